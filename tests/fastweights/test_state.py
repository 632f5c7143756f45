"""The state can be forked, saved and restored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sleepgym.fastweights import FastState, FastStateError, FastWeightModel, ModelSpec


@pytest.fixture
def model() -> FastWeightModel:
    return FastWeightModel(ModelSpec(11, 12, width=16, blocks=2, heads=2), seed=1)


def test_a_saved_state_answers_as_the_one_that_was_saved(model: FastWeightModel, tmp_path: Path) -> None:
    window, queries = torch.arange(8)[None], torch.tensor([[1, 9]])
    state = model.digest(window, model.empty(1), 3)
    state.save(tmp_path / "state.safetensors")
    restored = FastState.load(tmp_path / "state.safetensors")
    assert torch.equal(model.answer(queries, restored), model.answer(queries, state))
    after = model.digest(window, restored, 2)
    assert after.distance(model.digest(window, state, 2)).item() == 0


def test_a_fork_shares_neither_memory_nor_gradients(model: FastWeightModel) -> None:
    state = model.digest(torch.arange(8)[None], model.empty(1), 1)
    fork = state.fork()
    assert state.layers[0].requires_grad and not fork.layers[0].requires_grad
    norm = state.norm().item()
    for layer in fork.layers:
        layer.zero_()
    assert state.norm().item() == norm > 0 == fork.norm().item()


def test_norm_distance_rows_and_size_are_what_they_say() -> None:
    one = FastState((torch.full((2, 1, 2, 2), 1.0), torch.full((2, 1, 2, 2), 2.0)))
    other = FastState((torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 2.0)))
    assert one.norm().tolist() == pytest.approx([20**0.5] * 2)
    assert one.distance(other).tolist() == [2.0, 2.0]
    assert one.rows(torch.tensor([1])).layers[0].shape == (1, 1, 2, 2)
    assert one.nbytes == 2 * 8 * 4


@pytest.mark.parametrize("found", [{}, {"weight": torch.zeros(1)}, {"layer.1": torch.zeros(1)}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, found: dict[str, torch.Tensor]) -> None:
    save_file(found, tmp_path / "other.safetensors")
    with pytest.raises(FastStateError, match=r"expected layers layer\.0"):
        FastState.load(tmp_path / "other.safetensors")


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(b"nothing")
    for name in ("missing", "damaged"):
        with pytest.raises(FastStateError, match="expected a state in safetensors"):
            FastState.load(tmp_path / name)
