"""Finds a causal LM's blocks and MLP down-projections by structure, whatever the model is called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sleepgym.errors import SleepGymError


class ArchitectureError(SleepGymError, ValueError):
    """The model has no part that an edit could be written next to; the message says what was looked for."""


@dataclass(frozen=True)
class Block:
    """One transformer block, as far as memory needs to know it.

    Attributes:
        name: Module name of the block itself.
        down_proj: Module name of the last linear of the block's MLP (its input is the *key* of MEMIT).
        linears: Module names of every linear of the block, the down-projection included.
        mlp: Module name of the MLP, if it is a module that takes hidden states and nothing else; each token then goes
            through it alone.
        attention: Module name of its attention, if it has one module of that kind.
    """

    name: str
    down_proj: str
    linears: tuple[str, ...]
    mlp: str | None = None
    attention: str | None = None


def is_linear(module: nn.Module) -> bool:
    """Linear in the wide sense: ``nn.Linear`` (4-bit and 8-bit subclasses too) and GPT-2's ``Conv1D``."""
    return isinstance(module, (nn.Linear, Conv1D))


def features(module: nn.Module) -> tuple[int, int]:
    """``(d_in, d_out)`` of a linear; read from attributes, since a 4-bit weight hides its shape."""
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.nf)
    assert isinstance(module, nn.Linear)
    return module.in_features, module.out_features


def find_blocks(model: PreTrainedModel) -> tuple[Block, ...]:
    """Describes the blocks of a model in the order in which they run.

    The blocks are the ``ModuleList`` as long as the configuration says the model is deep. Every block must
    have attention, and what is linear outside it must be one dense MLP. No model is known by its name.

    Raises:
        ArchitectureError: No block list, a block without attention, a mixture of experts, or no MLP that could
            be recognised.
    """
    config = model.config.get_text_config()
    depth, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth}
    if not lists or width is None:
        raise ArchitectureError(
            f"expected a ModuleList of {depth} blocks in {type(model).__name__}, found none; "
            "sleepgym needs a decoder whose blocks are listed one by one"
        )
    # The shortest name is the outermost list: a block's own lists lie deeper.
    list_name = min(lists, key=len)
    return tuple(_describe(f"{list_name}.{i}", block, width) for i, block in enumerate(lists[list_name]))


@torch.no_grad()
def require_causal(model: PreTrainedModel) -> None:
    """Checks on two texts of two tokens that the first token does not see the second.

    Measured, since an encoder has the same modules as a decoder, and no attribute tells them apart in every family.

    Raises:
        ArchitectureError: Attention looks ahead.
    """
    device = next(model.get_input_embeddings().parameters()).device
    logits = model(input_ids=torch.tensor([[3, 4], [3, 5]], device=device), use_cache=False).logits[:, 0].float()
    rounding = max(1e-4, 16 * torch.finfo(model.dtype).eps) * float(logits.abs().max())
    if not torch.allclose(logits[0], logits[1], atol=rounding, rtol=0):
        raise ArchitectureError(
            f"expected a causal model, found that {type(model).__name__} reads the tokens that it is to predict; "
            "use a decoder, an encoder cannot continue a text"
        )


def _describe(name: str, block: nn.Module, width: int) -> Block:
    linears = {n: features(m) for n, m in block.named_modules() if is_linear(m)}
    attention = [n for n, m in block.named_modules() if n and "attention" in type(m).__name__.lower()]
    if not attention:
        parts = ", ".join(dict.fromkeys(type(m).__name__ for m in block.children()))
        raise ArchitectureError(
            f"expected attention in every block, found none in {name} ({parts or type(block).__name__}); "
            "sleepgym edits transformers whose blocks hold both attention and an MLP, not state-space or recurrent "
            "models, hybrids with them, or models that list attention and MLPs apart"
        )
    experts = next((n for n, _ in block.named_parameters() if "experts" in n), None)
    if experts is not None:
        raise ArchitectureError(
            f"expected one MLP in {name}, found a mixture of experts ({experts}); "
            "a fact has no single place to be written in it, use a dense model"
        )
    mlp = {n: shape for n, shape in linears.items() if not any(f"{n}.".startswith(f"{a}.") for a in attention)}
    down = _down_projection(name, mlp, width)
    parent = down.rpartition(".")[0]
    outermost = [n for n in attention if not any(n.startswith(f"{other}.") for other in attention)]
    alone = bool(parent) and all(n.startswith(f"{parent}.") for n in mlp) and _takes_one(block.get_submodule(parent))
    return Block(
        name=name,
        down_proj=f"{name}.{down}",
        linears=tuple(f"{name}.{n}" for n in linears),
        mlp=f"{name}.{parent}" if alone else None,
        attention=f"{name}.{outermost[0]}" if len(outermost) == 1 else None,
    )


def _takes_one(module: nn.Module) -> bool:
    return len(inspect.signature(module.forward).parameters) == 1


def _down_projection(block: str, mlp: Mapping[str, tuple[int, int]], width: int) -> str:
    """Name of the linear that maps back to the residual stream what others (up, or gate and up) map from it."""

    def ups(down: str) -> list[str]:
        inner = mlp[down][0]  # twice that where gate and up are one linear
        return [n for n, shape in mlp.items() if n != down and shape in ((width, inner), (width, 2 * inner))]

    pairs = {n: ups(n) for n, (_, d_out) in mlp.items() if d_out == width and ups(n)}
    found = ", ".join(f"{n} {d_in} -> {d_out}" for n, (d_in, d_out) in mlp.items()) or "no linear at all"
    if not pairs or set(mlp) - set(pairs) - {up for of_down in pairs.values() for up in of_down}:
        raise ArchitectureError(
            f"expected an MLP outside attention in {block} that maps from width {width} up and back, "
            f"and nothing else; found {found}; sleepgym edits dense MLPs only"
        )
    # What is narrower than the residual stream is a bottleneck beside the MLP, such as an adapter.
    downs = [n for n in pairs if mlp[n][0] >= width] or list(pairs)
    # In an MLP no wider inside than outside all linears look alike: they are registered in the order they run in.
    if len(downs) > 1 and any(mlp[n][0] != width for n in downs):
        raise ArchitectureError(
            f"expected one MLP in {block}, found {len(downs)} projections back to width {width} "
            f"({', '.join(downs)}); a fact has no single place to be written in it, use a model with one MLP per block"
        )
    return downs[-1]
