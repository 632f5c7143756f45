"""Owners: the names under which terms stand in a memory."""

from __future__ import annotations

from sleepgym.facts.fact import Fact

EDIT = "edit:"
"""Prefix of the owner names of edits; the rest of the name is the fact's key."""

ADAPTER = "lora"
"""Owner name of what nights have trained."""


def owner_of(fact: Fact) -> str:
    """Name under which a fact's edit stands in a memory."""
    return edit_of(fact.key)


def edit_of(key: tuple[str, str]) -> str:
    """Name under which the edit of a ``(subject, relation)`` stands in a memory."""
    return f"{EDIT}{key[0]}|{key[1]}"
