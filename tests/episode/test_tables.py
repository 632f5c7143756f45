"""Tables of an episode follow whatever is changed, by whomever."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.episode.episode import Episode
from sleepgym.episode.stream import Arrival
from sleepgym.episode.tables import Latest
from sleepgym.facts.fact import Fact
from sleepgym.memory.owners import edit_of


@pytest.fixture
def episode() -> Episode:
    """Some facts are written, and all answers are known."""
    env = SleepEnv("SleepLLM-Mini-v0", edit={"steps": 3}, episode={"perplexity_rows": 2})
    env.reset(seed=1)
    while len(env.episode.learner.state.ledger) < 2:
        env.step(Action.INJECT)
    return env.episode


def test_a_kept_value_is_computed_once_per_source() -> None:
    kept, computed = Latest[int](), []

    def of(*sources: object) -> int:
        return kept.of(lambda: computed.append(sources) or len(computed), *sources)

    facts = ("a", "b")
    assert not kept.holds(facts, 1)
    assert of(facts, 1) == of(("a", "b"), 1) == 1
    assert kept.holds(facts, 1) and not kept.holds(facts, 2) and not kept.holds(facts)
    assert of(facts, 2) == 2
    assert of(facts, 1) == 3  # the latest alone


def test_a_computation_that_fails_leaves_the_value_as_it_was() -> None:
    kept = Latest[int]()
    kept.of(lambda: 1, "a")
    with pytest.raises(ZeroDivisionError):
        kept.of(lambda: 1 // 0, "b")
    assert kept.of(lambda: 2, "a") == 1
    assert kept.of(lambda: 3, "b") == 3


def test_changes_of_the_ledger_are_seen(episode: Episode) -> None:
    ledger = episode.learner.state.ledger
    first, second = list(ledger)[:2]
    ledger.update(first, stage=2, margin=-1.5, audited_at=1, writes=4)
    written = episode.written
    assert (written.stage[0], written.margin[0], written.audited_at[0], written.writes[0]) == (2, -1.5, 1, 4)
    assert written.audited[0] and not written.recalled[0]
    ledger.remove(first)
    assert len(episode.written.stage) == len(ledger)
    ledger.update(second, margin=3.0)
    assert episode.written.margin[0] == 3.0 and episode.written.recalled[0]


def test_changes_of_the_memory_are_seen(episode: Episode) -> None:
    state = episode.learner.state
    (key, *_), load, rank, pressure = state.ledger, episode.written.load, episode.written.rank, episode.pressure()
    state.memory.scale(edit_of(key), 0.25)
    assert episode.written.scale[0] == 0.25
    assert episode.written.load == pytest.approx(load - 0.75)
    assert episode.written.rank == rank
    assert episode.pressure() < pressure
    state.memory.remove(edit_of(key))
    assert episode.written.scale[0] == 0
    assert episode.written.rank == rank - 1


def test_changes_of_the_inbox_are_seen(episode: Episode) -> None:
    inbox, key = episode.inbox, next(iter(episode.learner.state.ledger))
    place, old = list(inbox.current).index(key), inbox.current[key].fact
    newer = Fact(old.subject, old.prompt, "somewhere else", old.relation)
    assert episode.arrived.is_answerable[place] and old in episode.arrived.answerable
    for popularity in (0.5, 0.125):  # twice: where it waits, it stays
        inbox.arrive([Arrival(newer, 5, popularity, is_update=True)])
        assert episode.arrived.popularity[place] == popularity
    arrived = episode.arrived
    assert (arrived.popularity[place], arrived.arrived_at[place]) == (0.125, 5)
    assert not arrived.is_answerable[place] and old not in arrived.answerable
    assert episode.standings()[place] == "o"
    inbox.mark_written([newer])
    assert newer in episode.arrived.answerable
    assert newer in episode.asked()


def test_answers_are_those_of_the_latest_measurement_and_memory(episode: Episode) -> None:
    fact = episode.arrived.answerable[0]
    place = list(episode.inbox.current).index(fact.key)
    for right in (True, False, True):
        episode.examiner.note([fact], torch.tensor([1.0 if right else -1.0]))
        assert episode.correct()[place] == right
    episode.learner.state.memory.clear()
    assert set(episode.asked()) >= {fact, *episode.stream.known}
    assert not episode.correct()[place]


def test_an_episode_that_is_resumed_answers_as_it_did(episode: Episode) -> None:
    moment, before = episode.pause(), episode.correct()
    version, passes = episode.learner.state.memory.version, episode.examiner.answers.forward_passes
    fact = episode.arrived.answerable[0]
    # Two ways on from there, which end with equal counters and different answers.
    for sign in (1.0, -1.0):
        episode.resume(moment)
        episode.examiner.note([fact], torch.tensor([sign]))
        assert episode.correct()[list(episode.inbox.current).index(fact.key)] == (sign > 0)
        assert episode.learner.state.memory.version == version
        assert episode.examiner.answers.forward_passes == passes + 1
    episode.resume(moment)
    assert np.array_equal(episode.correct(), before)


def test_what_is_returned_can_be_written_to(episode: Episode) -> None:
    expected = episode.correct().copy()
    episode.correct()[:] = True
    assert np.array_equal(episode.correct(), expected)
