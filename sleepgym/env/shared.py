"""Models that environments share, and what is found out about them once.

Besides the world in :mod:`sleepgym.episode.stream` and what was read in :mod:`sleepgym.editing.statistics`, these are
the package's only process-wide caches, and on purpose: loading a model costs seconds and its weights are never written,
so that every environment of a process (a second one, a reset, a vector of them) can use the same one. Whatever an
environment changes is in its own state and never here. Processes share nothing.
"""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from functools import cache

import torch

from sleepgym.editing.spec import EditSpec
from sleepgym.episode.card_sections import EpisodeCard, ModelCard
from sleepgym.episode.held_out import HeldOut
from sleepgym.facts.fact import Fact
from sleepgym.lm import LanguageModel, load, score
from sleepgym.memory.asking import chat_probe
from sleepgym.memory.rehearsal import Rehearsal
from sleepgym.sleeper import Base, make_base

_rehearsals: dict[tuple[ModelCard, tuple[tuple[int, ...], ...]], Rehearsal] = {}


@cache
def shared_lm(model: ModelCard) -> LanguageModel:
    """The model of a card, loaded on first use."""
    dtype = None if model.dtype is None else getattr(torch, model.dtype)
    return load(model.name, device=model.device, dtype=dtype, quantization=model.quantization)


def shared_base(model: ModelCard, edit: EditSpec) -> Base:
    """Hooks, statistics and editor of a model and an editing recipe; settles a worker's threads first."""
    settle_threads(os.getpid())
    return _base(model, edit)


@cache
def _base(model: ModelCard, edit: EditSpec) -> Base:
    base = make_base(shared_lm(model), edit)
    # What is kept of the text that nights replay takes seconds to run, and does not depend on the editing recipe.
    return replace(base, rehearsal=_rehearsals.setdefault((model, base.rehearsal.rows), base.rehearsal))


@cache
def held_out(model: ModelCard, edit: EditSpec, card: EpisodeCard) -> HeldOut:
    """Held-out text that drift is measured on, with the bare model's perplexity."""
    return HeldOut.of(shared_base(model, edit), card)


@cache
def settle_threads(process: int) -> None:
    """Gives torch one thread in a worker, that is in a process that another one started by ``multiprocessing``.

    Workers come in numbers, and each would otherwise take a thread per core; forked ones would wait forever for threads
    of their parent, which a fork does not copy. ``OMP_NUM_THREADS`` in the environment chooses another number, and so
    does ``torch.set_num_threads`` once the first environment is made.

    Args:
        process: Id of this process; once per id, since a fork inherits this function's cache.
    """
    if multiprocessing.parent_process() is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


@cache
def is_known(model: ModelCard, fact: Fact) -> bool:
    """Whether the bare model answers a question about the fact with exactly its object.

    Each fact is asked alone: in other company its last bits, and so a very close answer, may be others, and which
    facts an episode asks would depend on what was asked in the process before.
    """
    lm = shared_lm(model)
    return bool(score(lm, [chat_probe(lm, fact)]).correct)
