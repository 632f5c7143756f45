"""Owner names: the keys of terms in a memory."""

from __future__ import annotations

from sleepgym.facts.fact import Fact

EDIT = "edit:"
"""Prefix of the owner names of edits, followed by ``subject|relation``; a bar in either is escaped by a backslash."""

ADAPTER = "lora"
"""Owner name of the LoRA adapter that nights train."""

ROW = "row:"
"""Prefix of the owner names of a gated adapter's rows, followed by ``subject|relation``."""


def owner_of(fact: Fact) -> str:
    """Returns the owner name of a fact's edit."""
    return edit_of(fact.key)


def edit_of(key: tuple[str, str]) -> str:
    """Returns the owner name of the edit of a ``(subject, relation)``."""
    return f"{EDIT}{_joined(key)}"


def row_of(key: tuple[str, str]) -> str:
    """Returns the owner name of the row that a gated adapter has for a ``(subject, relation)``."""
    return f"{ROW}{_joined(key)}"


def _joined(key: tuple[str, str]) -> str:
    """No two keys have one name."""
    return "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in key)
