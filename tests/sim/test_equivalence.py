"""On the same stream, actions and answers, the sim does what the real environment does, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sleepgym.env.observation import ledger_features, stats_features
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import OPERATORS, Action, NoteAction
from sleepgym.sim.infos import infos
from sleepgym.sim.observation import observations
from sleepgym.sim.recorder import Policy, Record, record_episode
from sleepgym.sim.replay import changes_of, replay
from tests.sim.conftest import NOTES

CARDS: dict[str, dict[str, dict[str, Any]]] = {
    "mini": {"episode": {"days": 4}},
    # A full ledger and an inbox that overflows.
    "crowded": {"budget": {"capacity": 4, "pending": 2, "edits": [2.0, 3.0]}, "stream": {"arrival_rate": [1.0, 1.2]}},
    # Updates of what is written and of what waits; edits run out.
    "churning": {
        "stream": {"update_share": [0.5, 0.7], "max_new_facts": 5},
        "budget": {"edits": [0.5, 0.7]},
        "episode": {"days": 4},
    },
    "gated": {"sleep": {"adapter": "gated", "scales": (1.0, 0.0), "facts": 3}, "budget": {"edits": [3.0, 4.0]}},
    # Few facts a night, some of them held instead of trained; a new adapter every night, beside the edits.
    "spaced": {
        "sleep": {"facts": 3, "spacing": 4, "settled": 4, "adapter": "fresh", "max_rank": 40, "first_layer": 0},
        "budget": {"edits": [3.0, 4.0]},
        "episode": {"days": 4},
    },
    # Nights that undo themselves.
    "harmful": {"sleep": {"max_perplexity_ratio": 1.0, "max_recall_drop": 0.0}, "budget": {"edits": [3.0, 4.0]}},
    # Perplexity ends the episode.
    "collapsing": {"episode": {"max_perplexity_ratio": 1.00001}},
    # Notes, of which facts of equal popularity change often; they answer while the weights are offline.
    "noted": {
        "notes": NOTES,
        "stream": {"arrival_rate": [0.8, 1.0], "update_share": [0.3, 0.5], "popularity_cap": 1.3},
        "budget": {"capacity": 6, "inject": 2, "edits": [3.0, 4.0]},
        "episode": {"days": 4},
    },
    # Few notes, of which those that slow weights hold go into the archive; offline, nobody answers.
    "archived": {
        "notes": NOTES | {"capacity": 5, "while_offline": False},
        "sleep": {"scales": [1.0, 0.0], "refresh": False, "steps": 8},
        "stream": {"arrival_rate": [0.8, 1.0], "update_share": [0.2, 0.3], "known_facts": 0},
        "budget": {"capacity": 6, "inject": 2, "edits": [3.0, 4.0]},
        "episode": {"days": 4},
    },
    # The agent chooses how much it writes and how long it sleeps.
    "chosen": {"parameters": {"facts": [1, 2, 4], "sleep": [1, 3, 5]}},
}


@dataclass
class Seen:
    """What the real environment showed after a step."""

    observation: dict[str, np.ndarray]
    reward: float
    ended: tuple[bool, bool]
    info: dict[str, Any]


@pytest.fixture(scope="module", params=[(name, seed) for name in CARDS for seed in (0, 1)], ids=str)
def played(
    request: pytest.FixtureRequest, mini: Callable[..., SleepEnv], busy: Callable[[int], Policy]
) -> tuple[Record, list[Seen]]:
    """A record, and what was seen at the reset and after every step."""
    name, seed = request.param
    env, seen = Watched(mini(**CARDS[name])), []
    env.seen = seen
    return record_episode(env, busy(seed), seed, "busy"), seen  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def happened() -> Counter[str]:
    """What has happened in the episodes that were compared."""
    return Counter()


class Watched:
    """A SleepEnv that keeps what it shows."""

    def __init__(self, env: SleepEnv) -> None:
        self.env, self.seen = env, list[Seen]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, seed: int) -> tuple[Any, Any]:
        observation, info = self.env.reset(seed=seed)
        self.seen.append(Seen(observation, 0.0, (False, False), info))
        return observation, info

    def step(self, action: int) -> tuple[Any, ...]:
        out = self.env.step(action)
        self.seen.append(Seen(out[0], out[1], out[2:4], out[4]))
        return out


def test_masks_clock_budget_inbox_rewards_and_observations_are_those_of_the_real_environment(
    played: tuple[Record, list[Seen]], happened: Counter[str]
) -> None:
    record, seen = played
    before = seen[0]
    happened.update(OPERATORS[action].name for action in record.action[~record.invalid])
    happened.update(invalid=record.invalid.sum(), undone=record.undone.sum(), collapsed=seen[-1].ended[0])
    happened.update(lost=seen[-1].info["lost"], refreshed_at_night=refreshed_at_night(record))
    happened.update(archived=seen[-1].info.get("archived", 0), taught_at_night=taught_at_night(record))
    for (episodes, choices, allowed, _), after in zip(replay(record), seen[1:], strict=True):
        assert np.array_equal(episodes.masks[0], mask_of_operators(before.info))
        assert_same_observation(observations(episodes.setting, episodes.streams, episodes.state), before.observation)
        done = episodes.step(choices, np.zeros(1, bool), allowed)
        for name, term in vars(done.rewards).items():
            assert term[0] == pytest.approx(after.info[f"reward_{name}"], abs=1e-9), name
        assert done.rewards.total[0] == pytest.approx(after.reward, abs=1e-9)
        assert (episodes.collapsed[0], episodes.truncated[0]) == after.ended
        clock = episodes.state.clock
        found = {
            "invalid_action": done.invalid,
            "rolled_back": done.undone,
            "recall": episodes.recall,
            "score": episodes.score,
            "edits_used": clock.edits_used,
            "tick": clock.tick,
            "sleeps": clock.sleeps,
            "naps": clock.naps,
            "lost": clock.lost,
            "arrived": (episodes.state.facts.current >= 0).sum(1),
            "pending": (episodes.state.facts.inbox >= 0).sum(1),
        }
        for name, value in found.items():
            assert value[0] == pytest.approx(after.info[name], abs=1e-9), name
        told = infos(episodes, episodes.masks, done)
        assert told.keys() == after.info.keys()
        for name in ("notes", "archived", "look_ups", "tokens_read"):
            if name in told:
                assert told[name][0] == pytest.approx(after.info[name], abs=1e-9), name
        before = after
    assert_same_observation(observations(episodes.setting, episodes.streams, episodes.state), before.observation)


def test_what_can_happen_has_happened_in_the_episodes_that_were_compared(happened: Counter[str]) -> None:
    expected = {*Action.__members__, *NoteAction.__members__, "invalid", "undone", "collapsed", "lost"}
    expected |= {"refreshed_at_night", "archived", "taught_at_night"}
    assert {name for name, count in happened.items() if count} == expected


def mask_of_operators(info: dict[str, Any]) -> np.ndarray:
    mask = info["action_mask"]
    return (mask[0] if isinstance(mask, tuple) else mask).astype(bool)


def refreshed_at_night(record: Record) -> int:
    nights = [change for change in changes_of(record) if change.action == Action.SLEEP]
    return sum(int(night.chosen.sum()) for night in nights)


def taught_at_night(record: Record) -> int:
    """Number of facts that nights taught anew from notes."""
    changes = changes_of(record)
    pairs = pairwise(changes)
    return sum(
        int(one.chosen.sum())
        for one, other in pairs
        if (one.action, other.action) == (Action.INJECT, Action.SLEEP)
        and one.at.state.clock.steps[0] == other.at.state.clock.steps[0]
    )


def assert_same_observation(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    has_notes = expected["stats"].shape[-1] > len(stats_features(False))
    assert found["ledger"].shape[1:] == expected["ledger"].shape and found["stats"].shape[1:] == expected["stats"].shape
    for place, name in enumerate(stats_features(has_notes)):
        assert found["stats"][0, place] == pytest.approx(expected["stats"][place], abs=1e-6), name
    for place, name in enumerate(ledger_features(has_notes)):
        # Audits and records measure margins in batches of their own, which differ by rounding.
        tolerance = 1e-5 if name == "margin" else 1e-6
        np.testing.assert_allclose(
            found["ledger"][0, :, place], expected["ledger"][:, place], atol=tolerance, err_msg=name
        )
