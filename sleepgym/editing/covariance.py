"""Second moments of keys on ordinary text (C of Meng et al. 2023, eq. 15)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from sleepgym.lm.language_model import LanguageModel, StopForward, hooked


@torch.no_grad()
def second_moments(
    lm: LanguageModel,
    texts: Sequence[Sequence[int]],
    layers: Sequence[int],
    batch_rows: int = 16,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[int, Tensor]:
    """Computes ``E[k k^T]`` of the inputs of each layer's down-projection over all tokens.

    About ``10 d_in`` tokens suffice for a matrix that generalises.

    Args:
        lm: The bare model.
        texts: Token rows.
        layers: Indices of blocks.
        batch_rows: Rows per pass.
        progress: Called with the number of rows done after each pass.

    Returns:
        Matrix ``[d_in, d_in]`` by layer, float32 on the CPU (passes are added up in float64).
    """
    sums: dict[int, Tensor] = {}
    tokens = 0
    for start in range(0, len(texts), batch_rows):
        batch = texts[start : start + batch_rows]
        input_ids = lm.pad(batch)
        lengths = torch.tensor([len(t) for t in batch])
        mask = torch.arange(input_ids.shape[1])[None] < lengths[:, None]

        def catch(layer: int, mask: Tensor = mask):  # type: ignore[no-untyped-def]  # torch types hooks as Callable
            def add(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                keys = args[0].reshape(*mask.shape, -1)[mask.to(args[0].device)].float()
                sums[layer] = sums.get(layer, 0) + (keys.T @ keys).double().cpu()
                if layer == max(layers):
                    raise StopForward

            return add

        with (
            lm.guard.exclusive(),
            suppress(StopForward),
            hooked(*(lm.linear(lm.blocks[i].down_proj).register_forward_pre_hook(catch(i)) for i in layers)),
        ):
            lm.model(input_ids=input_ids, use_cache=False)
        tokens += int(lengths.sum())
        progress(min(start + batch_rows, len(texts)))
    return {layer: (s / tokens).float() for layer, s in sums.items()}
