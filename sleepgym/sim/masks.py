"""Which actions are allowed in many episodes: the rules of :func:`sleepgym.episode.operators.allowed`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.actions import LOOK_UPS, Action, NoteAction
from sleepgym.sim.routing import can_be_noted, untaught, waiting
from sleepgym.sim.rules import edits_left, known_degraded, room
from sleepgym.sim.setting import Setting
from sleepgym.sim.state import State


def masks(setting: Setting, state: State, edit_budget: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Returns the action masks, bool ``[rows, actions]`` in the order of the card's operators.

    Args:
        setting: Numbers of the card.
        state: State of the episodes.
        edit_budget: Edits allowed, ``[rows]``.
    """
    ledger, left, fill = state.ledger, edits_left(state, edit_budget) > 0, state.ledger.fill
    allowed = np.ones((len(state), len(setting.card.operators)), bool)
    allowed[:, Action.INJECT] = left & can_be_written(setting, state)
    allowed[:, Action.REFRESH] = left & known_degraded(state.facts, ledger).any(1)
    allowed[:, Action.NAP] = allowed[:, Action.SLEEP] = fill > 0
    allowed[:, Action.PRUNE] = (ledger.present & (ledger.stage == setting.card.sleep.last_stage)).any(1)
    if setting.card.notes is not None:
        allowed[:, NoteAction.NOTE] = can_be_noted(setting, state)
        allowed[:, list(LOOK_UPS)] = np.arange(len(LOOK_UPS)) != state.notes.answering[:, None]
    return allowed


def can_be_written(setting: Setting, state: State) -> NDArray[np.bool_]:
    """Returns where INJECT would write anything, bool ``[rows]``.

    A new version of a fact in the ledger needs no room.
    """
    found = waiting(state.facts) if setting.card.notes is None else untaught(state)
    return (found & (state.facts.entry >= 0)).any(1) | (found.any(1) & (room(setting, state) > 0))
