"""Schedulers of cards with notes do what their names say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sleepgym.env.observation import STATS_FEATURES, stats_features
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import OPERATORS, Action, NoteAction
from sleepgym.evaluation import evaluate
from sleepgym.schedulers import LookAhead, NoteFirst, NotesOnly, PopularFirst, Scheduler
from sleepgym.schedulers.noting import popularity_of_next

NOTES: dict[str, Any] = {
    "capacity": 41,
    "ticks": 1,
    "token_price": 0.0,
    "look_up_price": 0.0,
    "sure_nats": 1.0,
    "while_offline": True,
}
QUICK: dict[str, Any] = {
    "edit": {"steps": 2},
    "sleep": {"steps": 1, "rehearsal_rows": 1, "validation_rows": 2},
    "stream": {"arrival_rate": [1.0, 1.0], "known_facts": 2},
    "budget": {"inject": 2},
    "episode": {"days": 1, "perplexity_rows": 2},
}


@pytest.fixture(scope="module")
def env() -> SleepEnv:
    return SleepEnv("SleepLLM-Mini-v0", notes=NOTES, **QUICK)


def played(env: SleepEnv, scheduler: Scheduler, seed: int = 0) -> list[Any]:
    """Actions of an episode, all of them allowed."""
    observation, _ = env.reset(seed=seed)
    actions = []
    while not env.over:
        mask = env.action_masks()
        actions.append(OPERATORS[int(scheduler.predict(observation, action_masks=mask)[0])])
        assert mask[actions[-1]]
        observation, *_ = env.step(actions[-1])
    return actions


def seen(popularity: list[float], pending: list[float], **stats: float) -> dict[str, np.ndarray]:
    """An observation of a card with notes."""
    ledger = np.zeros((len(popularity), 14), np.float32)
    ledger[:, 0], ledger[:, 1], ledger[:, 10] = 1, pending, popularity
    return {"ledger": ledger, "stats": np.array([stats.get(name, 0) for name in stats_features(True)], np.float32)}


def test_notes_only_notes_everything_and_spends_nothing(env: SleepEnv) -> None:
    actions = played(env, NotesOnly())
    assert actions[0] == NoteAction.LOOK_UP_ALWAYS
    assert set(actions) == {NoteAction.LOOK_UP_ALWAYS, NoteAction.NOTE, Action.WAIT}
    episode = env.episode
    assert episode.edits_used == 0 and not episode.learner.state.memory.terms
    assert not episode.inbox.pending.keys() - {a.fact.key for a in episode.stream.arrivals[-1]}
    assert env.episode.recall() > 0.9


@pytest.mark.parametrize("rule", [NoteFirst(load_at=0.05), PopularFirst(load_at=0.05)])
def test_hybrids_use_both_tiers_and_look_up_when_unsure(env: SleepEnv, rule: Scheduler) -> None:
    actions = played(env, rule)
    assert actions[0] == NoteAction.LOOK_UP_UNSURE
    assert {NoteAction.NOTE, Action.INJECT} <= set(actions)
    assert env.episode.edits_used > 0 and env.episode.notes.told


def test_note_first_notes_before_it_teaches_and_popular_first_the_other_way_round() -> None:
    mask = np.ones(len(OPERATORS), bool)
    mask[NoteAction.LOOK_UP_UNSURE] = False
    observation = seen([0.1, 0.5, 0.9], [1, 1, 0], progress=0.5, traffic=1)
    assert popularity_of_next(observation) == np.float32(0.5)
    assert NoteFirst().act(observation, mask) == NoteAction.NOTE
    assert PopularFirst(popular_at=0.5).act(observation, mask) == Action.INJECT
    assert PopularFirst(popular_at=0.6).act(observation, mask) == NoteAction.NOTE
    mask[NoteAction.NOTE] = False
    assert NoteFirst(popular_at=0.5).act(observation, mask) == Action.INJECT
    assert NoteFirst(popular_at=0.6, reserve=2.0).act(observation, mask) == Action.WAIT
    mask[[NoteAction.NOTE, Action.INJECT]] = False
    rich = seen([0.1], [1], progress=0.5, budget_left=0.9, traffic=1)
    assert NoteFirst().act(rich, mask) == PopularFirst().act(rich, mask) == Action.REFRESH
    quiet = seen([0.1], [1], traffic=0.2, load=0.5)
    assert NoteFirst().act(quiet, mask) == PopularFirst().act(quiet, mask) == Action.SLEEP


@pytest.mark.parametrize("rule", [NotesOnly(), NoteFirst(), PopularFirst()])
def test_a_card_without_notes_is_refused(rule: Scheduler) -> None:
    observation = {"ledger": np.zeros((4, 11), np.float32), "stats": np.zeros(len(STATS_FEATURES), np.float32)}
    with pytest.raises(ValueError, match=r"expected a card with notes for .*, such as SleepLLM-Notes-v0"):
        rule.predict(observation, action_masks=np.ones(len(Action), bool))


def test_a_planner_tries_actions_of_notes_and_is_no_worse_than_its_rule(env: SleepEnv) -> None:
    results = [
        evaluate(lambda: env, make, [3], slots=1)[0]
        for make in (NoteFirst(), lambda env, seed: LookAhead(env, NoteFirst(), depth=99, width=10, every=4))
    ]
    assert results[1].episode_return >= results[0].episode_return - 1e-6


def test_rules_of_other_cards_play_it_with_the_weights_alone(env: SleepEnv) -> None:
    from sleepgym.schedulers import NightOwl

    actions = played(env, NightOwl())
    assert all(isinstance(action, Action) for action in actions)
    assert not env.episode.notes.told and env.episode.notes.answering == NoteAction.LOOK_UP_NEVER
