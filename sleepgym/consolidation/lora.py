"""Trains a LoRA adapter on lessons, held to what the model said before on ordinary text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sleepgym.consolidation.spec import SleepError, SleepSpec
from sleepgym.lm.architecture import features
from sleepgym.lm.language_model import Encoded, LanguageModel
from sleepgym.lm.probes import object_positions, text_positions
from sleepgym.overlay import Factors, Memory, Overlay


@dataclass(frozen=True)
class Training:
    """A finished training: the adapter, the steps it took, and the lessons' NLL (nats per token) at the end."""

    factors: Factors
    steps: int
    nll: float


def new_adapter(lm: LanguageModel, spec: SleepSpec, rng: np.random.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """A LoRA adapter that changes nothing yet: random ``A`` (Kaiming uniform, as PEFT), zero ``B``."""
    if spec.first_layer >= len(lm.blocks):
        raise SleepError(
            f"expected first_layer below {len(lm.blocks)} for {lm.name!r}, found {spec.first_layer}; lower it"
        )
    factors = {}
    for block in lm.blocks[spec.first_layer :]:
        for name in block.linears:
            module = lm.linear(name)
            d_in, d_out = features(module)
            bound = 1 / math.sqrt(d_in)
            a = torch.from_numpy(rng.uniform(-bound, bound, (spec.rank, d_in))).to(lm.dtype)
            device = next(module.parameters()).device
            factors[name] = (a.to(device), torch.zeros(d_out, spec.rank, dtype=lm.dtype, device=device))
    return factors


def train_adapter(
    overlay: Overlay,
    memory: Memory,
    adapter: Factors,
    lessons: Sequence[Encoded],
    rehearsal: Sequence[Sequence[int]],
    spec: SleepSpec,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> Training:
    """Trains an adapter on top of a memory.

    The loss is the NLL of the lessons' objects plus, on rehearsal text, KL(before || now): the model is to
    keep saying what it said, not to fit the text.

    Args:
        overlay: The model with hooks.
        memory: Stays as it is, and is in force during training (edits to be replaced: leave them out).
        adapter: Start; not modified.
        lessons: Prompts with objects.
        rehearsal: Token rows to draw from.
        spec: Steps, rate, batch.
        rng: Draws batches.
        progress: Called as ``(step, steps)``.

    Raises:
        SleepError: The loss became NaN or infinite.
    """
    lm = overlay.lm
    trained = {
        n: (a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()) for n, (a, b) in adapter.items()
    }
    parameters = [p for pair in trained.values() for p in pair]
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=0.0)
    nll = math.inf
    step = 0
    for step in range(1, spec.steps + 1):
        # Linear decay: the last steps settle what the first ones moved.
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * (1 - (step - 1) / spec.steps)
        chosen = rng.permutation(len(lessons))[: spec.lessons]
        replayed = rng.choice(len(rehearsal), size=min(spec.rehearsal_rows, len(rehearsal)), replace=False)
        with overlay.use(memory, trained):
            lesson_nll = _lesson_nll(lm, [lessons[i] for i in chosen])
        loss = lesson_nll.mean()
        if len(replayed) and spec.rehearsal_weight:
            loss = loss + spec.rehearsal_weight * _drift(
                overlay, memory, adapter, trained, [rehearsal[i] for i in replayed]
            )
        if not torch.isfinite(loss):
            raise SleepError(
                f"expected a finite loss in the night's training, found {loss.item()} at step {step}; "
                "nothing was changed, lower learning_rate"
            )
        nll = float(lesson_nll.detach().mean())
        progress(step, spec.steps)
        if len(chosen) == len(lessons) and float(lesson_nll.detach().max()) < spec.stop_nll:
            break
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return Training({n: (a.detach(), b.detach()) for n, (a, b) in trained.items()}, step, nll)


def _lesson_nll(lm: LanguageModel, lessons: Sequence[Encoded]) -> Tensor:
    """Mean NLL per object token of each lesson, ``[lessons]``."""
    rows, columns = object_positions(lessons)
    input_ids = lm.pad([p.ids for p in lessons])
    log_p = lm.logits_at(input_ids, rows, columns - 1).log_softmax(-1)
    targets = input_ids[rows.to(input_ids.device), columns.to(input_ids.device)]
    nll = -log_p.gather(1, targets[:, None].to(log_p.device)).squeeze(1)
    total = nll.new_zeros(len(lessons)).index_add(0, rows.to(nll.device), nll)
    return total / torch.bincount(rows).to(nll.device)


def _drift(overlay: Overlay, memory: Memory, before: Factors, now: Factors, texts: Sequence[Sequence[int]]) -> Tensor:
    """Mean over tokens of KL(before || now) on rows of text."""
    lm = overlay.lm
    rows, columns = text_positions(texts)
    input_ids = lm.pad(texts)
    with torch.no_grad(), overlay.use(memory, before):
        p = lm.logits_at(input_ids, rows, columns).log_softmax(-1)
    with overlay.use(memory, now):
        q = lm.logits_at(input_ids, rows, columns).log_softmax(-1)
    return torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
