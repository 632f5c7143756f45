import pytest
import torch

from sleepgym.lm.continuation import Continuation
from sleepgym.memory.asking import chat_probe, raw_probe
from sleepgym.memory.lower import LowerBlocks
from sleepgym.memory.overlay import Memory


@pytest.fixture
def rows(base, facts):
    return [probe(base.lm, fact).ids for fact in facts[:5] for probe in (raw_probe, chat_probe)]


def last_logits(run, rows):
    columns = torch.tensor([len(row) - 1 for row in rows])
    with torch.no_grad():
        return run.logits(torch.arange(len(rows)), columns)


@pytest.mark.parametrize("first_block", [0, 1, -1])
def test_logits_are_those_without_a_cache(base, rows, first_block):
    first_block %= len(base.lm.blocks)
    plain = Continuation(base.lm, rows, [0] * len(rows), first_block)
    kept, none = LowerBlocks(base.overlay), LowerBlocks(base.overlay, size=0)
    for lower in (kept, kept, none):
        torch.testing.assert_close(
            last_logits(lower.run(rows, first_block), rows), last_logits(plain, rows), atol=1e-4, rtol=0
        )
    assert len(kept) == (len(rows) if first_block else 0) and len(none) == 0


def test_what_is_kept_does_not_depend_on_who_asked_first(base, rows):
    """A replay in another process, which finds another cache, is to come out alike to the last bit."""
    together, apart = LowerBlocks(base.overlay), LowerBlocks(base.overlay)
    for row in reversed(rows):
        apart.run([row], 1)
    assert torch.equal(last_logits(together.run(rows, 1), rows), last_logits(apart.run(rows, 1), rows))


def test_rows_are_run_once(base, rows):
    lower, passes = LowerBlocks(base.overlay), []
    handle = base.lm.linear(base.lm.blocks[0].down_proj).register_forward_hook(lambda *_: passes.append(1))
    try:
        lower.run(rows, 1)
        first = len(passes)
        lower.run(rows[2:7], 1)
    finally:
        handle.remove()
    assert first >= len(rows) and len(passes) == first


def test_memory_in_use_outside_does_not_get_into_what_is_kept(base, facts, rows):
    memory = Memory()
    base.editor.write(memory, facts[:2])
    with base.overlay.use(memory):
        run = LowerBlocks(base.overlay).run(rows, 1)
    plain = Continuation(base.lm, rows, [0] * len(rows), 1)
    torch.testing.assert_close(last_logits(run, rows), last_logits(plain, rows), atol=1e-4, rtol=0)


def test_least_recently_used_rows_are_dropped_first(base, rows):
    lower = LowerBlocks(base.overlay)
    lower.run(rows[:1], 1)
    lower = LowerBlocks(base.overlay, size=3 * 4 * base.lm.model.config.hidden_size * max(map(len, rows)))
    for row in [*rows, rows[0], rows[1]]:
        lower.run([row], 1)
    assert 1 < len(lower) < len(rows)
    assert [row for _, row in lower._kept][-2:] == rows[:2]
