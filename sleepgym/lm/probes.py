"""Questions put to a model in batches: does it recall an object, how firmly, and how well does it model text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel


@dataclass(frozen=True)
class Scores:
    """What a batch of probes found; all arrays have shape ``[probes]``.

    Attributes:
        margin: Log-probability of the object's token minus that of its best rival, at the worst of the
            object's tokens (nats). Greedy decoding writes the whole object exactly when this is positive.
        nll: Negative log-likelihood of the whole object (nats, summed over its tokens).
    """

    margin: Tensor
    nll: Tensor

    @property
    def correct(self) -> Tensor:
        """Whether greedy decoding writes exactly the object, ``[probes]`` bool."""
        return self.margin > 0

    @property
    def recall(self) -> float:
        """Share of probes that are correct; NaN for no probes."""
        return float(self.correct.float().mean())


def object_positions(probes: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """Row and column of every object token of a padded batch, row by row."""
    rows = torch.repeat_interleave(torch.arange(len(probes)), torch.tensor([len(p.object_ids) for p in probes]))
    return rows, torch.cat([torch.arange(p.object_start, len(p.ids)) for p in probes])


def text_positions(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Row and column of every token of a padded batch that another token follows, row by row."""
    lengths = torch.tensor([len(t) - 1 for t in texts])
    rows = torch.repeat_interleave(torch.arange(len(texts)), lengths)
    return rows, torch.cat([torch.arange(n) for n in lengths.tolist()])


@torch.no_grad()
def score(lm: LanguageModel, probes: Sequence[Encoded]) -> Scores:
    """Scores encoded prompts with objects in one forward pass.

    Teacher forcing and greedy decoding agree on exact match: as long as every earlier token was the
    argmax, both condition on the same text. So one pass suffices, however long the objects are.
    """
    if not probes:
        return Scores(torch.empty(0), torch.empty(0))
    rows, columns = object_positions(probes)
    input_ids = lm.pad([p.ids for p in probes])
    # The logits that predict token t follow token t - 1.
    log_probs = lm.logits_at(input_ids, rows, columns - 1, narrow=True).log_softmax(-1).cpu()
    targets = input_ids.cpu()[rows, columns]
    own = log_probs.gather(1, targets[:, None]).squeeze(1)
    rival = log_probs.scatter(1, targets[:, None], -math.inf).amax(1)
    margin = torch.full((len(probes),), math.inf).scatter_reduce(0, rows, own - rival, "amin")
    nll = torch.zeros(len(probes)).index_add(0, rows, -own)
    return Scores(margin, nll)


@torch.no_grad()
def perplexity(lm: LanguageModel, texts: Sequence[Sequence[int]], batch_rows: int | None = None) -> float:
    """Perplexity of token rows: exp of the mean NLL over every token but each row's first.

    Args:
        lm: The model.
        texts: Token ids per row.
        batch_rows: Rows per forward pass; bounds memory, changes the result by no more than rounding. By default 8 on a
            CPU, where activations that outgrow its caches take half as long again, and 32 elsewhere.

    Raises:
        ValueError: There is no token that another one precedes.
    """
    if not any(len(text) > 1 for text in texts):
        raise ValueError(
            f"expected at least one row of two tokens or more, found {len(texts)} rows of at most one; "
            "perplexity is about tokens that follow others, pass some text"
        )
    total, count = 0.0, 0
    batch_rows = batch_rows or (8 if lm.device.type == "cpu" else 32)
    for start in range(0, len(texts), batch_rows):
        batch = texts[start : start + batch_rows]
        rows, columns = text_positions(batch)
        input_ids = lm.pad(batch)
        logits = lm.logits_at(input_ids, rows, columns)
        targets = input_ids[rows.to(input_ids.device), columns.to(input_ids.device) + 1].to(logits.device)
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        count += len(targets)
    # A ruined model's NLL can be beyond what exp can show.
    return math.exp(total / count) if total / count < 700 else math.inf
