"""EAMET's alignment: residuals as similar to each other as their keys are."""

import numpy as np
import pytest
import torch

from sleepgym.editing import Editor, optimize_targets, preset
from sleepgym.editing.alignment import Alignment
from sleepgym.editing.keys import measured_keys
from sleepgym.editing.targets import contexts, key_position
from sleepgym.memory.overlay import Memory
from sleepgym.memory.owners import owner_of

N, M, D_IN, D_OUT = 55, 6, 12, 20


@pytest.fixture
def drawn():
    """Keys and residuals of ``N`` facts, then of ``M`` written ones."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(N + M, D_IN, generator=generator, dtype=torch.float64)
    return keys, torch.randn(N + M, D_OUT, generator=generator, dtype=torch.float64)


def alignment_of(keys, residuals, n, weight=2.0):
    return Alignment(keys[:n], keys[n:], residuals[n:], weight)


def plain(keys, residuals, i, weight):
    """The loss of one fact, number by number."""

    def cosine(a, b):
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    def softmax(x):
        e = np.exp((np.array(x) - max(x)) / 0.07)
        return e / e.sum()

    keys, residuals = keys.numpy(), residuals.numpy()
    others = [j for j in range(len(keys)) if j != i]
    of_keys = [cosine(keys[i], keys[j]) for j in others]
    of_residuals = [cosine(residuals[i], residuals[j]) for j in others]
    p, q = softmax(of_keys), softmax(of_residuals)
    nearest = sorted(range(len(others)), key=lambda j: -of_keys[j])[:50]
    shares = softmax([of_keys[j] for j in nearest])
    squares = sum(s * (of_keys[j] - of_residuals[j]) ** 2 for s, j in zip(shares, nearest, strict=True))
    return weight * float((p * np.log(p / q)).sum()) + 4 * weight * squares


def test_loss_is_the_papers(drawn):
    keys, residuals = drawn
    losses = alignment_of(keys, residuals, N, 0.7)(residuals[:N], residuals[:N], torch.arange(N))
    expected = [plain(keys, residuals, i, 0.7) for i in range(N)]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-9)


def test_loss_of_some_facts_is_theirs_among_all(drawn):
    keys, residuals = drawn
    align, chosen = alignment_of(keys, residuals, N), torch.tensor([3, 17, 40])
    every = align(residuals[:N], residuals[:N], torch.arange(N))
    torch.testing.assert_close(align(residuals[chosen], residuals[:N], chosen), every[chosen])


def test_loss_is_zero_where_all_cosines_agree_and_above_elsewhere(drawn):
    keys, residuals = drawn
    turn = torch.linalg.qr(residuals[:D_OUT].T).Q[:, :D_IN]  # a rotation into the other space keeps angles
    lengths = torch.linspace(0.1, 9.0, N + M, dtype=torch.float64)[:, None]
    alike = lengths * (keys @ turn.T)
    losses = alignment_of(keys, alike, N)(alike[:N], alike[:N], torch.arange(N))
    torch.testing.assert_close(losses, torch.zeros_like(losses), atol=1e-12, rtol=0)
    assert (alignment_of(keys, residuals, N)(residuals[:N], residuals[:N], torch.arange(N)) > 0.1).all()


@pytest.mark.parametrize("start", [-0.5, 0.9])
def test_two_facts_are_drawn_to_the_angle_of_their_keys(start):
    """With one other fact the divergence is 0, and the loss is ``4 w (c_k - c_r)^2``."""

    def plane(cosine):
        return torch.tensor([[cosine, (1 - cosine**2) ** 0.5]], dtype=torch.float64)

    align = Alignment(plane(0.3), plane(1.0), plane(1.0), 2.0)
    residual = (3 * plane(start)).requires_grad_()
    loss = align(residual, residual, torch.tensor([0]))
    torch.testing.assert_close(loss, torch.tensor([8 * (0.3 - start) ** 2], dtype=torch.float64))
    loss.sum().backward()
    after = torch.cosine_similarity(residual.detach() - 0.1 * residual.grad, plane(1.0)).item()
    assert abs(after - 0.3) < abs(start - 0.3)
    assert (residual.grad * residual.detach()).sum().abs() < 1e-12, "length is free"


def test_gradient_is_that_of_finite_differences_with_the_others_constant(drawn):
    keys, residuals = drawn
    align, every = alignment_of(keys, residuals, 5), residuals[:5].clone().requires_grad_()
    rows = residuals[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda r: align(r, every, torch.arange(5)), rows)
    align(rows, every, torch.arange(5)).sum().backward()
    assert every.grad is None


@pytest.mark.parametrize(("n", "m"), [(1, 0), (3, 0), (3, 2)])
def test_residuals_of_zero_and_facts_without_others_pass_no_gradient(drawn, n, m):
    """A gradient at zero would be as large as rounding allows, and the optimiser would not forget it."""
    keys, residuals = drawn
    align = Alignment(keys[:n], keys[n : n + m], residuals[:m], 2.0)
    rows = torch.zeros(n, D_OUT, requires_grad=True)
    losses = align(rows, rows, torch.arange(n))
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.equal(rows.grad, torch.zeros_like(rows))
    if n + m == 1:
        assert losses.tolist() == [0.0]


def cosines(rows):
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    return (unit @ unit.T)[~torch.eye(len(rows), dtype=torch.bool)]


@pytest.mark.parametrize("at_once", [True, False])
def test_written_facts_have_residuals_as_similar_as_their_keys(base, facts, at_once):
    apart = {}
    for name in ("memit-prev", "eamet"):
        editor, memory = Editor(base.overlay, base.statistics, preset(name, covariance_weight=300.0)), Memory()
        for i in range(1 if at_once else 6):
            editor.write(memory, facts[:6] if at_once else [facts[i]], () if at_once else facts[:i])
        rows = [contexts(base.lm, fact, editor.prefixes) for fact in facts[:6]]
        at = [[(row.ids, key_position(row, editor.spec)) for row in group] for group in rows]
        module = base.lm.blocks[0].down_proj
        residuals = torch.cat([memory.terms[owner_of(fact)].factors[module][1].T for fact in facts[:6]])
        apart[name] = float((cosines(residuals) - cosines(measured_keys(base.lm, at, 0))).abs().mean())
    assert apart["eamet"] < 0.5 * apart["memit-prev"]


def test_switched_off_facts_do_not_align_others(base, facts):
    editor, memory = Editor(base.overlay, base.statistics, preset("eamet", steps=3)), Memory()
    editor.write(memory, facts[:1])
    memory.scale(owner_of(facts[0]), 0.0)
    held = editor._alignment(memory, facts[1:2], facts[:1])
    assert held(torch.ones(1, 128), torch.ones(1, 128), torch.tensor([0])).tolist() == [0.0]


def test_weight_of_nothing_finds_the_same_targets_bit_for_bit(base, facts):
    spec = preset("memit", (0,), steps=8)
    off = Alignment(torch.randn(3, D_IN), torch.zeros(0, D_IN), torch.zeros(0, 128), 0.0)
    for one, other in zip(
        optimize_targets(base.lm, facts[:3], (), spec),
        optimize_targets(base.lm, facts[:3], (), spec, alignment=off),
        strict=True,
    ):
        assert torch.equal(one.value, other.value) and torch.equal(one.keys, other.keys)
