import numpy as np
import pytest

from sleepgym.consolidation.rem import passages
from sleepgym.memory.overlay import Memory


@pytest.mark.parametrize("count", [1, 2, 6])
def test_passages_lead_through_other_facts_to_each_fact(base, facts, count):
    memory = Memory()
    base.editor.write(memory, facts[:count])
    with base.overlay.use(memory):
        rows = passages(base.lm, facts[:count], np.random.default_rng(0))
    assert len(rows) == count
    for fact, row in zip(facts, rows, strict=False):
        text = base.lm.tokenizer.decode(row.ids)
        assert text.endswith(f"{fact.prompt} {fact.object}")
        others = [f for f in facts[:count] if f is not fact]
        assert sum(f.prompt in text for f in others) == min(2, count - 1)
        assert base.lm.tokenizer.decode(row.object_ids).strip() == fact.object
    told = " ".join(base.lm.tokenizer.decode(row.ids[: row.object_start]) for row in rows)
    if count > 1:
        assert any(fact.object in told for fact in facts[:count]), "the model says what it was taught"


def test_passages_follow_from_the_seed(base, facts):
    one, other = (passages(base.lm, facts[:5], np.random.default_rng(3)) for _ in range(2))
    assert one == other
    assert one != passages(base.lm, facts[:5], np.random.default_rng(4))
