"""Infos of many episodes: the keys, types and meanings of those of :class:`~sleepgym.env.sleep_env.SleepEnv`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.episodes import Episodes, Steps
from sleepgym.sim.rules import edits_left, known_degraded
from sleepgym.sim.state import State


def infos(episodes: Episodes, masks: NDArray[np.bool_], steps: Steps | None) -> dict[str, NDArray[Any]]:
    """Returns the infos, one row per episode.

    Args:
        episodes: The episodes.
        masks: Their masks of operators, bool ``[rows, actions]``.
        steps: The last steps; None after a reset.
    """
    state, rows = episodes.state, len(episodes)
    clock, integer = state.clock, np.int64
    nothing = np.zeros(rows)
    terms = {"served": nothing, "drift": nothing, "invalid": nothing} if steps is None else vars(steps.rewards)
    no = np.zeros(rows, bool)
    return {
        "action_mask": masks.astype(np.int8),
        "invalid_action": no if steps is None else steps.invalid,
        "error_code": np.zeros(rows, integer),
        **{f"reward_{name}": term for name, term in terms.items()},
        "recall": episodes.recall,
        "score": episodes.score,
        "edits_used": clock.edits_used.astype(integer),
        "edits_left": edits_left(state, episodes.streams.edit_budget).astype(integer),
        "ppl_ratio": state.mind.ratio.copy(),
        "tick": clock.tick.astype(integer),
        "sleeps": clock.sleeps.astype(integer),
        "naps": clock.naps.astype(integer),
        "arrived": np.count_nonzero(state.facts.current >= 0, axis=1),
        "pending": np.count_nonzero(state.facts.inbox >= 0, axis=1),
        "lost": clock.lost.astype(integer),
        "degraded": np.count_nonzero(known_degraded(state.facts, state.ledger), axis=1),
        "rolled_back": no if steps is None else steps.undone,
        **(_of_notes(state) if episodes.setting.card.notes is not None else {}),
    }


def _of_notes(state: State) -> dict[str, NDArray[Any]]:
    """Returns what infos have besides on a card with notes."""
    notes, asked = state.notes, state.clock.asked
    per_question = np.where(asked > 0, 1 / np.where(asked > 0, asked, 1.0), 0.0)
    return {
        "notes": np.count_nonzero(notes.noted, axis=1),
        "archived": np.count_nonzero(notes.archived, axis=1),
        "look_ups": notes.looked_up * per_question,
        "tokens_read": notes.tokens_read * per_question,
    }
