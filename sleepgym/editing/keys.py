"""Keys: what the edited down-projections read at a subject's last token (Meng et al. 2023, eq. 19)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from sleepgym.lm.language_model import Encoded, LanguageModel, hooked


class _StopForward(Exception):  # noqa: N818 (a signal, not an error)
    """Ends a forward pass at the layer of interest; what is above it is not needed."""


@torch.no_grad()
def subject_keys(lm: LanguageModel, groups: Sequence[Sequence[Encoded]], layer: int) -> Tensor:
    """Inputs of a layer's down-projection at the subject, averaged over each group's contexts.

    Whatever memory is in use is seen: the keys are those of the partly edited model.

    Args:
        lm: The model.
        groups: Per fact its contexts, each with its subject located.
        layer: Index of the block.

    Returns:
        Keys ``[facts, d_in]``, float64 on the model's device (float64: see ``solver``).
    """
    rows = [row for group in groups for row in group]
    # Nothing after the last subject is read, and causal attention never looks ahead.
    width = max(r.subject_last for r in rows) + 1
    input_ids = lm.pad([r.ids[:width] for r in rows])
    subject = torch.tensor([r.subject_last for r in rows])
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0]
        caught.append(x[torch.arange(len(rows), device=x.device), subject.to(x.device)].double())
        raise _StopForward

    with hooked(lm.linear(lm.blocks[layer].down_proj).register_forward_pre_hook(catch)), suppress(_StopForward):
        lm.model(input_ids=input_ids, use_cache=False)
    owner = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor([len(g) for g in groups]))
    keys = caught[0]
    total = keys.new_zeros(len(groups), keys.shape[1]).index_add(0, owner.to(keys.device), keys)
    return total / torch.tensor([len(g) for g in groups], device=keys.device)[:, None]
