"""Rows that act at bare prompts as well, or are left as they are."""

from dataclasses import replace

import pytest
import torch

from sleepgym.editing import Editor
from sleepgym.editing import editor as editor_module
from sleepgym.editing.keys import keys_by_layer
from sleepgym.editing.reach import falls_short, reaching
from sleepgym.editing.solver import NormalMatrix
from sleepgym.editing.targets import key_position
from sleepgym.memory.asking import in_context
from sleepgym.memory.overlay import Memory
from sleepgym.memory.owners import owner_of
from sleepgym.memory.terms import Term

WIDTH = 12
GATE = 0.5


@pytest.fixture
def least_squares():
    """A second moment, its normal matrix, a key, and the row that is solved for it, 1 at the key, and keys of text."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(400, WIDTH, generator=generator, dtype=torch.float64)
    moment = text.T @ text / len(text)
    normal = NormalMatrix(moment, 100.0, 0.01)
    key = 20 * torch.randn(WIDTH, generator=generator, dtype=torch.float64)
    row = normal.solve(key[None])[0]
    return moment, normal, key, row / (row @ key), text[:100]


def apart(key, row, length=20.0, seed=1):
    """Keys at which the row is 0."""
    others = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    others -= (others @ row)[:, None] * row / (row @ row)
    return length * others / others.norm(dim=1, keepdim=True)


def solved(normal, key):
    system = normal.empty().extended(normal.whiten(key[None]))
    return lambda other: normal.unwhiten(system.extended(normal.whiten(other[None])).rows(1))[0]


def test_row_is_one_at_both_keys_and_as_small_as_can_be_elsewhere(least_squares):
    moment, normal, key, row, text = least_squares
    other = apart(key, row)[:1]
    found = reaching(row, key, other, GATE, solved(normal, key), text)
    held = torch.cat([key[None], other])
    torch.testing.assert_close(held @ found, torch.ones(2, dtype=torch.float64))
    # The minimum of a M a subject to a k = 1 at both keys, by Lagrange multipliers.
    M = 100.0 * moment + 0.01 * moment.diagonal().mean() * torch.eye(WIDTH, dtype=torch.float64)
    toward = torch.linalg.solve(M, held.T)
    torch.testing.assert_close(found, toward @ torch.linalg.solve(held @ toward, held.new_ones(2)))


@pytest.mark.parametrize("seed", range(5))
def test_row_reaches_all_others(least_squares, seed):
    _, normal, key, row, text = least_squares
    others = apart(key, row, seed=seed)
    found = reaching(row, key, others, GATE, solved(normal, key), text)
    assert (others @ found).min() >= GATE and float(key @ found) == pytest.approx(1.0)


def test_row_that_reaches_the_others_is_returned_as_it_is(least_squares):
    _, normal, key, row, text = least_squares
    assert reaching(row, key, torch.stack([key, 0.6 * key]), GATE, solved(normal, key), text) is row


def test_same_prompt_twice_is_reached_once(least_squares):
    _, normal, key, row, text = least_squares
    other = apart(key, row)[:1]
    once = reaching(row, key, other, GATE, solved(normal, key), text)
    twice = reaching(row, key, other.repeat(2, 1), GATE, solved(normal, key), text)
    torch.testing.assert_close(twice, once)


@pytest.mark.parametrize("kind", ["like the first of text", "parallel to the key", "zero", "NaN"])
def test_row_stays_where_no_sum_leaves_text_alone(least_squares, kind):
    _, normal, key, row, text = least_squares
    other = {
        "like the first of text": apart(key, row)[0],
        "parallel to the key": 0.1 * key,
        "zero": torch.zeros_like(key),
        "NaN": torch.full_like(key, torch.nan),
    }[kind]
    text = torch.cat([text, apart(key, row)[:1] + 0.1])
    assert reaching(row, key, other[None], GATE, solved(normal, key), text) is row


def test_term_falls_short_where_it_is_below_its_gate_in_any_module():
    a = torch.eye(2)
    term = Term({"x": (a[:1], a[:, :1]), "y": (a[1:], a[:, :1])}, gates={"y": torch.tensor([0.5])})
    for at_y, short in ((0.6, False), (0.4, True)):
        assert falls_short([term], ["x", "y"], torch.tensor([[[-1.0, 0.0]], [[0.0, at_y]]])) is short, "x has no gate"


def test_gated_terms_act_at_bare_prompts(base, facts, monkeypatch):
    written = facts[:6]

    def activations(gate):
        editor = Editor(base.overlay, base.statistics, replace(base.editor.spec, gate=gate, max_weight=1.0))
        memory = Memory()
        editor.write(memory, written)
        rows = [(row.ids, key_position(row, editor.spec)) for row in (in_context(base.lm, fact) for fact in written)]
        keys = keys_by_layer(base.lm, rows, editor.spec.layers[:1])[0]
        module = base.lm.blocks[editor.spec.layers[0]].down_proj
        A = torch.cat([memory.terms[owner_of(fact)].factors[module][0] for fact in written]).double()
        return (A * keys).sum(1)

    usual, reached = activations(0.01), activations(0.98)
    assert usual.min() < 0.98 <= reached.min() + 1e-5, "some of them do not act without this"
    torch.testing.assert_close(reached[usual >= 0.98], usual[usual >= 0.98])
    monkeypatch.setattr(editor_module, "reaching", lambda row, *_: row)
    torch.testing.assert_close(activations(0.98), usual)
