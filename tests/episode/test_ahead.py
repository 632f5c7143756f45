"""Targets are optimised in batches of the stream, so that what an agent did before changes none of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sleepgym.editing import target_store
from sleepgym.editing.spec import EditError
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode import episode as episode_module
from sleepgym.episode.actions import Action
from sleepgym.facts.fact import Fact


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Fact]]]:
    """Facts of each optimisation."""
    found: list[list[Fact]] = []
    optimize = target_store.optimize_targets

    def noted(lm, facts, *rest):  # type: ignore[no-untyped-def]
        found.append(list(facts))
        return optimize(lm, facts, *rest)

    monkeypatch.setattr(target_store, "optimize_targets", noted)
    return found


def made(**overrides: dict) -> SleepEnv:
    env = SleepEnv("SleepLLM-Mini-v0", edit={"steps": 3}, stream={"arrival_rate": [1.0, 1.0]}, **overrides)
    env.base.editor.target_store.cache._memory.clear()
    env.base.editor.target_store.cache._folder = None
    return env


def played(env: SleepEnv, waits: int) -> dict[str, torch.Tensor]:
    """Targets of all facts that were written, after waiting before each injection."""
    env.reset(seed=2)
    while not env.over:
        for _ in range(waits):
            env.step(Action.WAIT)
        if not env.over and env.action_masks()[Action.INJECT]:
            env.step(Action.INJECT)
        elif not env.over:
            env.step(Action.WAIT)
    cache = env.base.editor.target_store.cache
    return {name: target.value for name, target in cache._memory.items()}


def test_targets_do_not_depend_on_what_was_done_before(batches: list[list[Fact]]) -> None:
    eager, lazy = played(made(), 0), played(made(), 3)
    assert len(eager) > 8 and lazy.keys() & eager.keys() == lazy.keys()
    assert all(torch.equal(eager[name], value) for name, value in lazy.items())


def test_a_batch_is_optimised_once(batches: list[list[Fact]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_module, "_TOGETHER", 4)
    env = made()
    played(env, 0)
    every = [fact for batch in batches for fact in batch]
    assert len(every) == len(set(every)), "nothing twice"
    arrivals = len(env.episode._order)
    assert len(batches) <= arrivals / 4 + 1 < len(env.episode.history.doing)


def test_a_fact_that_cannot_be_taught_does_not_stop_those_before_it(
    batches: list[list[Fact]], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = made()
    env.reset(seed=2)
    while not env.action_masks()[Action.INJECT]:
        env.step(Action.WAIT)
    last = list(env.episode._order)[-1]
    optimize = target_store.optimize_targets

    def fails(lm, facts, *rest):  # type: ignore[no-untyped-def]
        if last in facts:
            raise EditError("expected finite losses")
        return optimize(lm, facts, *rest)

    monkeypatch.setattr(target_store, "optimize_targets", fails)
    *_, info = env.step(Action.INJECT)
    assert not info["invalid_action"] and len(env.episode.learner.state.ledger) > 0
