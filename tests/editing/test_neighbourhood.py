"""Others beside what is taught: given facts or made-up subjects, and what a solve makes of their keys."""

from dataclasses import replace

import pytest
import torch

from sleepgym.editing import Editor
from sleepgym.editing.keys import keys_by_layer, measured_keys
from sleepgym.editing.neighbourhood import Neighbourhood
from sleepgym.editing.targets import key_position
from sleepgym.facts import Fact
from sleepgym.lm import score
from sleepgym.memory.asking import in_context, raw_probe
from sleepgym.memory.overlay import Memory
from sleepgym.memory.owners import owner_of
from sleepgym.sleeper import SleepingLM


@pytest.fixture(scope="module")
def known(world):
    return world.known_facts()


def test_given_facts_are_those_of_the_relation_that_are_not_taught(base, known):
    fact = known[0]
    same = [other for other in known if other.relation == fact.relation]
    found = Neighbourhood(base.overlay, known).beside([fact], {fact.subject, same[1].subject}, 5)
    assert found == [other for other in same if other.subject not in (fact.subject, same[1].subject)][:5]


def test_many_relations_share_out_what_four_may_have(base, known):
    facts = [Fact(f"Bo{i}", f"Bo{i} is number", "one", relation=f"r{i}") for i in range(16)]
    given = [Fact(f"Al{i}{j}", f"Al{i}{j} is number", "two", relation=f"r{i}") for i in range(16) for j in range(9)]
    beside = Neighbourhood(base.overlay, given)
    assert [len(beside.beside(facts[:n], (), 8)) for n in (1, 4, 8, 16)] == [8, 32, 32, 32]


def test_others_are_made_up_where_none_are_given(base, facts):
    one = replace(
        facts[0], subject="Mount Leila", prompt="Mount Leila lies in", paraphrases=(), questions=("And Mount Leila?",)
    )
    two = Fact("Bo", "Bo lies in", "Rome", one.relation)
    text = [base.lm.encode("When Kofi met Judith, Irene was in Nairobi.").ids]
    beside = Neighbourhood(base.overlay, [replace(one, relation="other")], text)
    found = beside.beside([one, two], {"Mount Leila", "Bo"}, 12)
    assert 2 < len(found) <= 12 and len({each.subject for each in found}) == len(found)
    for each in found:
        word = each.subject.removesuffix(" Leila")
        assert word in ("When", "Kofi", "Judith", "Irene", "Nairobi")
        assert each.prompt == f"{each.subject} lies in"
        assert each.questions == ((f"And {each.subject}?",) if each.subject != word else ())
    again = Neighbourhood(base.overlay, (), text).beside([one, two], {"Mount Leila", "Bo"}, 12)
    assert again == found, "the same wherever it is asked"
    taught = {"Mount Leila", "Bo", found[0].subject}
    assert found[0].subject not in {each.subject for each in beside.beside([one, two], taught, 12)}
    assert Neighbourhood(base.overlay).beside([one], {"Mount Leila"}, 12) == [], "no text, no names"


def test_keys_of_several_layers_are_those_of_each(base, known):
    rows = [(row.ids, key_position(row, base.editor.spec)) for row in (in_context(base.lm, f) for f in known[:3])]
    together = keys_by_layer(base.lm, rows, (0, 1))
    for layer in (0, 1):
        torch.testing.assert_close(together[layer], measured_keys(base.lm, [[row] for row in rows], layer))


def test_terms_put_out_little_at_the_keys_of_neighbours_and_all_at_their_own(base, facts, known):
    others = [fact for fact in known if fact.relation == facts[0].relation][:60]
    put_out = {}
    for gate, beside in ((0.0, ()), (0.0, others), (0.5, others)):
        editor = Editor(base.overlay, base.statistics, replace(base.editor.spec, gate=gate, max_weight=1.0))
        memory = Memory()
        editor.write(memory, facts[:1], (), beside)
        term = memory.terms[owner_of(facts[0])]
        (link,) = editor.target_store.of(facts[:1])
        rows = [(row.ids, key_position(row, editor.spec)) for row in (in_context(base.lm, f) for f in others)]
        keys = keys_by_layer(base.lm, rows, editor.spec.layers)
        a = [a.double() for a, _ in term.factors.values()]
        at_own = torch.stack([row @ key.double() for row, key in zip(a, link.target.keys, strict=True)])
        at_others = torch.stack([key @ row.T for row, key in zip(a, keys, strict=True)]).abs().max() / at_own.max()
        put_out[gate, bool(beside)] = float(at_others)
        assert gate == 0 or torch.allclose(at_own, torch.ones_like(at_own), rtol=1e-5)
        if gate:
            assert score(base.lm, [raw_probe(base.lm, facts[0])], base.overlay.asked(memory)).correct.all()
    assert put_out[0.0, True] < 0.5 * put_out[0.0, False]
    assert put_out[0.5, True] == pytest.approx(put_out[0.0, True], rel=1e-3), "the gate scales all alike"


def test_learner_writes_and_refreshes_beside_its_neighbours(base, facts, known):
    others = [fact for fact in known if fact.relation == facts[0].relation][:30]
    spec = replace(base.editor.spec, neighbours=20, gate=0.5)
    editor = Editor(base.overlay, base.statistics, spec)
    learner = SleepingLM(replace(base, editor=editor, neighbourhood=Neighbourhood(base.overlay, others)), seed=0)
    learner.inject(facts[:1])
    alone = Memory()
    editor.write(alone, facts[:1], (), others[:20])
    term, same = (memory.terms[owner_of(facts[0])] for memory in (learner.state.memory, alone))
    assert all(torch.equal(a, x) for (a, _), (x, _) in zip(term.factors.values(), same.factors.values(), strict=True))
    learner.refresh([facts[0].key])
    anew = learner.state.memory.terms[owner_of(facts[0])]
    assert all(torch.equal(a, x) for (a, _), (x, _) in zip(anew.factors.values(), same.factors.values(), strict=True))
