"""The delta rule is the recurrence of the paper, and nothing but S crosses the end of a window."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sleepgym.fastweights.layers import GatedDelta
from sleepgym.fastweights.model import FastWeightModel, ModelSpec
from sleepgym.settings import SettingError

SPEC = ModelSpec(vocabulary=11, window_tokens=12, width=16, blocks=2, heads=2)


@pytest.fixture
def model() -> FastWeightModel:
    return FastWeightModel(SPEC, seed=1)


def tokens(seed: int, length: int, batch: int = 3) -> Tensor:
    return torch.randint(SPEC.vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def recurrence(layer: GatedDelta, h: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The layer token by token, from the equation: S_t = a_t S_(t-1) (I - b_t k_t k_t^T) + b_t v_t k_t^T."""
    mixed = layer.project(h)
    channels = []
    for t in range(h.shape[1]):
        past = [mixed[:, t + lag - 3] if t + lag - 3 >= 0 else torch.zeros_like(mixed[:, 0]) for lag in range(4)]
        channels.append(sum(layer.conv[lag] * past[lag] for lag in range(4)))
    query, key, value = F.silu(torch.stack(channels, 1)).unflatten(-1, (3, layer.heads, -1)).unbind(2)
    query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    decay, rate = layer.gates(h).chunk(2, -1)
    eye = torch.eye(layer.head_width)
    s, read = state.transpose(-1, -2), []  # values by keys, as the paper has it
    for t in range(h.shape[1]):
        a, b = (-F.softplus(decay[:, t])).exp()[..., None, None], rate[:, t].sigmoid()[..., None, None]
        k, v, q = key[:, t, :, :, None], value[:, t, :, :, None], query[:, t, :, :, None]
        s = a * s @ (eye - b * k @ k.mT) + b * v @ k.mT
        read.append((s @ q)[..., 0] * layer.head_width**-0.5)
    gate = F.silu(layer.gate(h).unflatten(-1, (layer.heads, -1)))
    return layer.out((layer.norm(torch.stack(read, 1)) * gate).flatten(-2)), s.transpose(-1, -2)


def test_the_chunked_delta_rule_is_the_plain_recurrence(model: FastWeightModel) -> None:
    layer = model.blocks[0].delta
    h, state = torch.randn(3, 9, 16), torch.randn(3, 2, 8, 8)
    for found, expected in zip(layer(h, state), recurrence(layer, h, state), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_two_halves_of_a_window_leave_the_state_of_the_whole_where_nothing_else_looks_back(
    model: FastWeightModel,
) -> None:
    layer = model.blocks[0].delta
    with torch.no_grad():
        layer.conv[:-1] = 0.0  # the convolution looks back too, but not beyond its window
    h = torch.randn(2, 10, 16)
    _, whole = layer(h, torch.zeros(2, 2, 8, 8))
    _, first = layer(h[:, :4], torch.zeros(2, 2, 8, 8))
    _, second = layer(h[:, 4:], first)
    torch.testing.assert_close(second, whole, atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_differences_through_passes_and_windows() -> None:
    model = FastWeightModel(ModelSpec(5, 4, width=4, blocks=1, heads=1), seed=0)
    windows, queries = [torch.tensor([[0, 1, 2, 3]]), torch.tensor([[3, 4, 1, 0]])], torch.tensor([[2, 4]])

    def loss() -> Tensor:
        return model(windows, queries, 3)[0, -1].log_softmax(-1)[1]

    loss().backward()
    # Through the state alone: queries do not hold these tokens, and attention does not reach back.
    gradient = model.embedding.weight.grad
    assert gradient is not None
    for token in (0, 1, 3):
        assert gradient[token].norm() > 0
        step, change = 1e-3, torch.zeros(2)
        for place, sign in enumerate((1, -1)):
            with torch.no_grad():
                model.embedding.weight[token, 2] += sign * step
                change[place] = loss()
                model.embedding.weight[token, 2] -= sign * step
        assert gradient[token, 2].item() == pytest.approx(
            (change[0] - change[1]).item() / (2 * step), rel=0.05, abs=2e-4
        )


def test_every_pass_of_every_window_gets_a_gradient(model: FastWeightModel) -> None:
    states = []
    state = model.empty(3)
    for seed in (0, 1):
        h = model.begin_window(tokens(seed, 8))
        for _ in range(3):
            h, state = model.step(h, state)
            for layer in state.layers:
                layer.retain_grad()
            states.append(state)
    model.answer(tokens(2, 6), state).square().sum().backward()
    assert all(layer.grad is not None and layer.grad.norm() > 0 for state in states for layer in state.layers)


def test_only_the_state_crosses_the_end_of_a_window(model: FastWeightModel) -> None:
    first, other, second, queries = tokens(0, 8), tokens(1, 8), tokens(2, 8), tokens(3, 6)
    state = model.digest(first, model.empty(3), 2)
    # The same S, whatever window it came from, gives the same answers, bit for bit.
    expected = model([first, second], queries, 2)
    found = model.answer(queries, model.digest(second, state.fork(), 2))
    assert torch.equal(found, expected)
    # Without S, nothing is left of the first window.
    empty = model.digest(first, model.empty(3), 0)
    assert torch.equal(model.answer(queries, model.digest(second, empty, 2)), model([other, second], queries, [0, 2]))
    assert not torch.equal(expected, model([other, second], queries, 2))


def test_a_pass_changes_neither_the_state_it_is_given_nor_what_is_answered_from_it(model: FastWeightModel) -> None:
    state = model.digest(tokens(0, 8), model.empty(3), 1)
    kept = state.fork()
    before = model.answer(tokens(1, 4), state)
    model.digest(tokens(2, 8), state, 3)
    assert all(torch.equal(a, b) for a, b in zip(state.layers, kept.layers, strict=True))
    assert torch.equal(model.answer(tokens(1, 4), state), before)


def test_n_passes_are_n_steps_that_carry_the_residual_stream(model: FastWeightModel) -> None:
    window, state = tokens(0, 8), model.empty(3)
    h = model.begin_window(window)
    for _ in range(3):
        h, state = model.step(h, state)
    assert state.distance(model.digest(window, model.empty(3), 3)).max() == 0
    # A pass over the bare window again is something else.
    again = model.digest(window, model.digest(window, model.empty(3), 1), 1)
    assert again.distance(model.digest(window, model.empty(3), 2)).min() > 0


def test_a_state_that_is_frozen_after_the_first_pass_is_that_of_one_pass(model: FastWeightModel) -> None:
    window = tokens(0, 8)
    frozen = model.digest(window, model.empty(3), 4, frozen=True)
    assert frozen.distance(model.digest(window, model.empty(3), 1)).max() == 0


def test_sequences_of_a_batch_do_not_meet(model: FastWeightModel) -> None:
    windows, queries = [tokens(0, 8), tokens(1, 8)], tokens(2, 6)
    together = model(windows, queries, 2)
    for row in range(3):
        alone = model([window[row : row + 1] for window in windows], queries[row : row + 1], 2)
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)


def test_equal_seeds_give_equal_models_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one, other = FastWeightModel(SPEC, 5), FastWeightModel(SPEC, 6)
    assert torch.equal(torch.rand(3), expected)
    again = FastWeightModel(SPEC, 5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


def test_an_impossible_shape_is_refused() -> None:
    with pytest.raises(SettingError, match="heads: expected a divisor of the width 16, found 3"):
        ModelSpec(11, 12, width=16, heads=3)
    with pytest.raises(SettingError, match="blocks: expected at least 1, found 0"):
        ModelSpec(11, 12, blocks=0)
