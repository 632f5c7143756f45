"""Finds a causal LM's blocks and MLP down-projections by structure, whatever the model is called."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


class ArchitectureError(ValueError):
    """The model has no part that an edit could be written next to; the message says what was looked for."""


@dataclass(frozen=True)
class Block:
    """One transformer block, as far as memory needs to know it.

    Attributes:
        down_proj: Module name of the last linear of the block's MLP (its input is the *key* of MEMIT).
        linears: Module names of every linear of the block, the down-projection included.
    """

    down_proj: str
    linears: tuple[str, ...]


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

    The blocks are the ``ModuleList`` as long as the configuration says the model is deep. Within a block
    the down-projection is the one linear outside attention that maps back to the residual stream.

    Raises:
        ArchitectureError: No block list, a mixture of experts, or no MLP that could be recognised.
    """
    config = model.config.get_text_config()
    depth, width = config.num_hidden_layers, config.hidden_size
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth}
    if not lists:
        raise ArchitectureError(
            f"expected a ModuleList of {depth} blocks in {type(model).__name__}, found none; "
            "sleepgym needs a decoder whose blocks are listed one by one"
        )
    # The shortest name is the outermost list: a block's own lists lie deeper.
    list_name = min(lists, key=len)
    return tuple(_describe(f"{list_name}.{i}", block, width) for i, block in enumerate(lists[list_name]))


def _describe(name: str, block: nn.Module, width: int) -> Block:
    attention = tuple(n for n, m in block.named_modules() if n and "attention" in type(m).__name__.lower())
    linears = {n: m for n, m in block.named_modules() if is_linear(m)}
    mlp = [n for n in linears if not any(n == a or n.startswith(a + ".") for a in attention)]
    down = [n for n in mlp if features(linears[n])[1] == width and features(linears[n])[0] != width]
    if len(down) > 1 or any("experts" in n for n, _ in block.named_parameters()):
        raise ArchitectureError(
            f"expected one MLP in {name}, found a mixture of experts ({len(down)} projections back to width {width}); "
            "a fact has no single place to be written in it, use a dense model"
        )
    if not down:
        raise ArchitectureError(
            f"expected a linear outside attention that maps to width {width} in {name}, "
            f"found {mlp or 'no linear at all'}; sleepgym edits dense MLPs only"
        )
    return Block(down_proj=f"{name}.{down[0]}", linears=tuple(f"{name}.{n}" for n in linears))
