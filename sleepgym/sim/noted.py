"""Questions of many episodes that are looked up in notes: which, what that costs, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.actions import LOOK_UPS, NoteAction
from sleepgym.episode.notes import look_up_price
from sleepgym.sim.arrays import gathered
from sleepgym.sim.rules import Bools, answered, is_recalled
from sleepgym.sim.setting import Setting
from sleepgym.sim.state import State
from sleepgym.sim.streams import Streams

_NEVER, _ALWAYS = LOOK_UPS.index(NoteAction.LOOK_UP_NEVER), LOOK_UPS.index(NoteAction.LOOK_UP_ALWAYS)


@dataclass(frozen=True)
class NotedFacts:
    """What notes tell, ``[rows, facts]`` each; see :class:`sleepgym.episode.notes.NotedFacts`.

    Attributes:
        noted: Whether there is a note of each fact, in whatever version.
        right: Whether its note tells the current version, and the bare model reads it from there.
        taught: Whether the weights were taught what is noted, or what is current.
        price: Share of the worth of an answer that a look-up takes; 0 without a note.
        tokens: Tokens that its note adds to a context; 0 without a note.
    """

    noted: Bools
    right: Bools
    taught: Bools
    price: NDArray[np.float64]
    tokens: NDArray[np.float64]

    @classmethod
    def of(cls, setting: Setting, streams: Streams, state: State) -> NotedFacts:
        """Lays notes out.

        Args:
            setting: Numbers of a card with notes.
            streams: Streams of the episodes.
            state: State of the episodes.
        """
        assert setting.card.notes is not None
        facts, told = state.facts, state.notes.told
        noted, version = told >= 0, np.maximum(told, 0)
        tokens = np.where(noted, gathered(streams.note_tokens, version), 0).astype(np.float64)
        return cls(
            noted=noted,
            right=noted & (told == facts.current) & gathered(streams.note_right, version),
            taught=(facts.written >= 0) & ((facts.written == facts.current) | (facts.written == told)),
            price=look_up_price(setting.card.notes, noted, tokens),
            tokens=tokens,
        )

    def looked_up(self, setting: Setting, state: State, offline: NDArray[np.bool_] | None = None) -> Bools:
        """Returns which facts' questions would be looked up, and a note found, bool ``[rows, facts]``.

        Args:
            setting: Numbers of a card with notes.
            state: State of the episodes.
            offline: Where the weights answer nothing, bool ``[rows]``; None for nowhere.
        """
        assert setting.card.notes is not None
        answering, offline = state.notes.answering, np.zeros(len(state), bool) if offline is None else offline
        never = (answering == _NEVER) | (offline & (not setting.card.notes.while_offline))
        always = (answering == _ALWAYS) | offline
        return self.noted & ~never[:, None] & (always[:, None] | ~self.taught | ~state.mind.sure)


def recalled(setting: Setting, streams: Streams, state: State) -> Bools:
    """Returns which facts would be answered right, by the weights or from notes, bool ``[rows, facts]``."""
    right = is_recalled(state.facts, state.mind)
    if setting.card.notes is None:
        return right
    noted = NotedFacts.of(setting, streams, state)
    return np.where(noted.looked_up(setting, state), noted.right, right)


def serve(
    setting: Setting,
    streams: Streams,
    state: State,
    weights: NDArray[np.float64],
    offline: NDArray[np.bool_],
    traffic: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Answers the questions of a tick on a card with notes, and counts those that are looked up.

    See :func:`sleepgym.episode.reward.served`; a tick of :class:`~sleepgym.episode.episode.Episode` does the same.

    Args:
        setting: Numbers of the card.
        streams: Streams of the episodes.
        state: State of the episodes; look-ups are counted in its notes.
        weights: Share of each arrived fact among the questions about arrived facts, ``[rows, facts]``.
        offline: Where the weights answer nothing, bool ``[rows]``.
        traffic: Questions of the tick, relative to the peak, ``[rows]``.

    Returns:
        Worth of the answers, relative to right ones of the weights, ``[rows]``.
    """
    noted, notes, mind, spec = NotedFacts.of(setting, streams, state), state.notes, state.mind, setting.card.stream
    looked_up = noted.looked_up(setting, state, offline)
    own = is_recalled(state.facts, mind) & ~offline[:, None]
    worth = np.where(looked_up, noted.right * (1 - noted.price), own)
    about_new = np.minimum(1.0, (weights * worth).sum(1))
    is_asked, known = streams.known > 0, np.where(offline, 0.0, mind.known)
    new_share = np.where(is_asked, 1 - spec.known_share, 1.0)
    asked = new_share[:, None] * weights * looked_up
    share = asked.sum(1)
    notes.looked_up += traffic * share
    notes.tokens_read += traffic * (asked * noted.tokens).sum(1)
    notes.look_ups += (share - notes.look_ups) / setting.card.episode.served_memory_ticks
    return answered(setting, state.facts, about_new, known, is_asked)
