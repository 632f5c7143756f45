import torch

from sleepgym.editing.upkeep import audit, refresh
from sleepgym.memory.asking import chat_probe, margins
from sleepgym.memory.owners import owner_of
from sleepgym.sleeper import SleepingLM


def test_states_are_audited_together_as_they_would_be_alone(base, facts):
    learners = [SleepingLM(base) for _ in range(3)]
    for count, learner in enumerate(learners, start=1):
        learner.inject(facts[: 2 * count])
    states = [learner.state for learner in learners]
    lost = facts[1]
    states[1].memory.scale(owner_of(lost), 0.0)
    together = audit(base, [state.copy() for state in states])
    assert [len(report.margins) for report in together] == [2, 4, 6]
    assert [report.degraded for report in together] == [(), (lost.key,), ()]
    for state, report in zip(states, together, strict=True):
        (alone,) = audit(base, [state])
        torch.testing.assert_close(
            torch.tensor(list(report.margins.values())), torch.tensor(list(alone.margins.values())), atol=1e-4, rtol=0
        )
        assert [entry.margin for entry in state.ledger.values()] == list(alone.margins.values())


def test_an_audit_asks_in_chat_whatever_the_stage(base, facts):
    learner = SleepingLM(base)
    learner.inject(facts[:3])
    learner.state.ledger.update(facts[1].key, stage=1)
    learner.state.memory.scale(owner_of(facts[1]), 0.3)
    (report,) = audit(base, [learner.state])
    (asked,) = margins(base.overlay, [learner.state.memory], [[chat_probe(base.lm, fact) for fact in facts[:3]]])
    torch.testing.assert_close(torch.tensor(list(report.margins.values())), asked, atol=1e-4, rtol=0)


def test_empty_ledger_has_nothing_to_audit(base):
    (report,) = audit(base, [SleepingLM(base).state])
    assert (report.margins, report.degraded) == ({}, ())


def test_refreshed_fact_has_not_been_seen_since(base, facts):
    learner = SleepingLM(base)
    learner.inject(facts[:3])
    learner.audit()
    state = learner.state
    state.ledger.update(facts[0].key, stage=2)
    state.memory.scale(owner_of(facts[0]), 0.1)
    report = refresh(base, state, [facts[0].key])
    entry = state.ledger[facts[0].key]
    assert (report.refreshed, report.recall_after, report.edits) == ((facts[0].key,), 1.0, 1)
    assert state.scale_of(facts[0].key) == 1.0
    assert (entry.stage, entry.audited_at, entry.writes) == (0, -1, 2) and entry.margin is None
    assert len(state.memory.terms) == 3, "in the place of the old edit, not beside it"
