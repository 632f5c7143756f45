from dataclasses import replace

import pytest
import torch

from sleepgym.consolidation.lessons import lessons
from sleepgym.memory.asking import chat_probe, margins, raw_probe
from sleepgym.memory.overlay import Memory


def test_lessons_are_each_fact_as_statement_and_as_answer(base, facts):
    bare = replace(facts[0], questions=())
    found = lessons(base.lm, [facts[1], bare])
    texts = [base.lm.tokenizer.decode(row.ids[: row.object_start], skip_special_tokens=True) for row in found]
    assert len(found) == 4
    for text, part in zip(texts, [facts[1].prompt, facts[1].questions[0], bare.prompt, bare.prompt], strict=True):
        assert part in text
    answers = [base.lm.tokenizer.decode(row.object_ids) for row in found]
    assert all(fact.object in answer for fact, answer in zip([facts[1], facts[1], bare, bare], answers, strict=True))
    assert all(answer.endswith(".") for answer in answers[::2])
    assert all(answer.endswith(base.lm.tokenizer.eos_token) for answer in answers[1::2]), "an answer has an end"


def test_groups_of_probes_are_each_put_to_their_own_memory(base, facts):
    taught, bare = Memory(), Memory()
    base.editor.write(taught, facts[:4])
    probes = [[raw_probe(base.lm, f) for f in facts[:4]], [raw_probe(base.lm, facts[0])], []]
    together = margins(base.overlay, [taught, bare, taught], probes)
    assert [len(found) for found in together] == [4, 1, 0]
    assert (together[0] > 0).all() and (together[1] < 0).all()
    for memory, group, found in zip([taught, bare], probes, together, strict=False):
        torch.testing.assert_close(found, margins(base.overlay, [memory], [group])[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("rows", [1, 3])
def test_many_probes_are_asked_in_several_passes(base, facts, monkeypatch, rows):
    probes = [[raw_probe(base.lm, f) for f in facts[:5]], [chat_probe(base.lm, f) for f in facts[:2]]]
    whole = margins(base.overlay, [Memory(), Memory()], probes)
    monkeypatch.setattr("sleepgym.memory.asking._ROWS", rows)
    for one, other in zip(whole, margins(base.overlay, [Memory(), Memory()], probes), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
