"""Models that environments share.

These are the package's only process-wide caches, and on purpose: loading a model costs seconds and its weights
are never written, so that every environment of a process (a second one, a reset, a vector of them) can use
the same one. Whatever an environment changes is in its own state and never here. Processes share nothing.
"""

from __future__ import annotations

from functools import cache

from sleepgym.editing.spec import EditSpec
from sleepgym.lm import LanguageModel, load, perplexity
from sleepgym.sleeper import Base, make_base


@cache
def shared_lm(name: str, device: str | None = None) -> LanguageModel:
    """The model of that name, loaded on first use."""
    return load(name, device=device)


@cache
def shared_base(name: str, edit: EditSpec, device: str | None = None) -> Base:
    """Hooks, statistics and editor of a model and an editing recipe."""
    return make_base(shared_lm(name, device), edit)


@cache
def bare_perplexity(name: str, edit: EditSpec, device: str | None, rows: int) -> float:
    """Perplexity on the first rows of held-out text, without any memory: drift is measured against it."""
    base = shared_base(name, edit, device)
    with base.overlay.use(()):
        return perplexity(base.lm, base.statistics.held_out[:rows])
