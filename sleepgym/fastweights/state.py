"""The state S: what crosses the end of a window, and all that does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sleepgym.errors import SleepGymError
from sleepgym.files import write


class FastStateError(SleepGymError, ValueError):
    """A file holds no state, or one of another model."""


@dataclass(frozen=True)
class FastState:
    """Fast weights of a batch of sequences; a pass makes a new one, so that an older one can always be gone back to.

    Attributes:
        layers: S of each delta-rule layer, ``[batch, heads, head_width, head_width]``.
    """

    layers: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(layer.nbytes for layer in self.layers)

    def fork(self) -> FastState:
        """A copy that shares no memory with this one, cut off from what it was computed from."""
        return FastState(tuple(layer.detach().clone() for layer in self.layers))

    @classmethod
    def joined(cls, states: Sequence[FastState]) -> FastState:
        """The states of several batches as one batch."""
        return cls(tuple(torch.cat(layers) for layers in zip(*(state.layers for state in states), strict=True)))

    def rows(self, index: Tensor) -> FastState:
        """The states of some sequences of the batch."""
        return FastState(tuple(layer[index] for layer in self.layers))

    def norm(self) -> Tensor:
        """Frobenius norm of S over all layers, per sequence ``[batch]``."""
        return torch.stack([layer.flatten(1).square().sum(1) for layer in self.layers]).sum(0).sqrt()

    def distance(self, other: FastState) -> Tensor:
        """Frobenius norm of the difference from another state, per sequence ``[batch]``."""
        return FastState(tuple(a - b for a, b in zip(self.layers, other.layers, strict=True))).norm()

    def save(self, path: str | Path) -> None:
        """Writes the state (safetensors), all or nothing.

        Raises:
            OSError: It cannot be written.
        """
        layers = {f"layer.{n}": layer.detach().contiguous() for n, layer in enumerate(self.layers)}
        write(Path(path), save(layers))

    @classmethod
    def load(cls, path: str | Path) -> FastState:
        """Reads what :meth:`save` wrote.

        Raises:
            FastStateError: The file is missing, or is something else.
        """
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise FastStateError(f"{path}: expected a state in safetensors, found {error}") from error
        names = [f"layer.{n}" for n in range(len(found))]
        if not found or sorted(found) != sorted(names):
            raise FastStateError(f"{path}: expected layers layer.0, layer.1, ..., found {', '.join(sorted(found))}")
        return cls(tuple(found[name] for name in names))
