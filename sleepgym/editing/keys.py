"""Keys: inputs of the edited down-projections at a fact's key token (Meng et al. 2023, eq. 19); outputs and states."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sleepgym.lm.language_model import LanguageModel, StopForward, hooked

At = tuple[Sequence[int], int]
"""Token row, and the position in it that is read."""


def measured_keys(lm: LanguageModel, groups: Sequence[Sequence[At]], layer: int) -> Tensor:
    """Measures the inputs of a layer's down-projection, averaged over each group's contexts.

    The memory in use applies: the keys are those of the partly edited model.

    Args:
        lm: The model.
        groups: Contexts to average over, one group per key.
        layer: Index of the block.

    Returns:
        Keys ``[groups, d_in]``, float64 on the model's device (float64: see ``solver``).
    """
    rows = [row for group in groups for row in group]
    (keys,) = _seen(lm, rows, [lm.linear(lm.blocks[layer].down_proj)], before=True)
    sizes = torch.tensor([len(group) for group in groups], device=keys.device)
    owner = torch.repeat_interleave(torch.arange(len(groups), device=keys.device), sizes)
    return keys.new_zeros(len(groups), keys.shape[1]).index_add(0, owner, keys) / sizes[:, None]


def keys_by_layer(lm: LanguageModel, rows: Sequence[At], layers: Sequence[int]) -> Tensor:
    """Measures the inputs of several layers' down-projections in one pass.

    Args:
        lm: The model, with the memory in use.
        rows: Token rows with the positions to read.
        layers: Indices of blocks, ascending.

    Returns:
        Keys ``[layers, rows, d_in]``, float64 on the model's device.
    """
    return torch.stack(_seen(lm, rows, [lm.linear(lm.blocks[layer].down_proj) for layer in layers], before=True))


def measured_outputs(lm: LanguageModel, rows: Sequence[At], layer: int) -> Tensor:
    """Measures the outputs of a layer's down-projection, with what the memory in use adds to them.

    Args:
        lm: The model, with the memory in use.
        rows: Token rows with the positions to read.
        layer: Index of the block.

    Returns:
        Outputs ``[rows, d]``, float64 on the model's device.
    """
    return _seen(lm, rows, [lm.linear(lm.blocks[layer].down_proj)], before=False)[0]


def measured_states(lm: LanguageModel, rows: Sequence[At], layer: int) -> Tensor:
    """Measures the residual stream after a block.

    Args:
        lm: The model, with the memory in use.
        rows: Token rows with the positions to read.
        layer: Index of the block.

    Returns:
        States ``[rows, d]``, float64 on the model's device.
    """
    return _seen(lm, rows, [lm.linear(lm.blocks[layer].name)], before=False)[0]


@torch.no_grad()
def _seen(lm: LanguageModel, rows: Sequence[At], modules: Sequence[nn.Module], before: bool) -> list[Tensor]:
    """Returns modules' inputs (``before``) or outputs at the given positions; the pass stops at the last of them."""
    # Attention is causal: tokens after the last position that is read do not matter.
    width = max(at for _, at in rows) + 1
    input_ids = lm.pad([ids[:width] for ids, _ in rows])
    positions = torch.tensor([at for _, at in rows])
    caught: list[Tensor] = []

    def catch(x: Tensor) -> None:
        x = x.reshape(len(rows), width, -1)  # some models flatten rows and tokens before the MLP
        caught.append(x[torch.arange(len(rows), device=x.device), positions.to(x.device)].double())
        if len(caught) == len(modules):
            raise StopForward

    def handle(module: nn.Module) -> RemovableHandle:
        if before:
            return module.register_forward_pre_hook(lambda module, args: catch(args[0]))
        return module.register_forward_hook(lambda module, args, out: catch(out if isinstance(out, Tensor) else out[0]))

    with lm.guard.exclusive(), hooked(*map(handle, modules)), suppress(StopForward):
        lm.model(input_ids=input_ids, use_cache=False)
    return [tensor.to(lm.device) for tensor in caught]
