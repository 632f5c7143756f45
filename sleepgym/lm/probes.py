"""Questions put to a model in batches: does it recall an object, how firmly, and how well does it model text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel

Logits = Callable[[Sequence[tuple[int, ...]], tuple[Tensor, Tensor]], Tensor]
"""Logits ``[n, vocabulary]`` of token rows that follow the tokens at ``(rows, columns)``, ``[n]`` each."""

_LOGITS = 2**24
"""Logits that are normalised at a time, where a text has more; bounds memory and changes no result."""

_HELD = 2**25
"""Logits that a pass over several rows of text returns at most: 128 MB, or two rows of 49 tokens of a vocabulary of
262,144."""


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


def sampled_columns(texts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Draws positions whose next tokens stand for all of a text; the same ones whenever they are drawn.

    Args:
        texts: Token rows.
        tokens: Number of positions in all, shared out evenly among the rows; a shorter row gives all it has.

    Returns:
        Per row its positions, ascending.
    """
    rng = np.random.default_rng(0)
    shares = [tokens * (i + 1) // len(texts) - tokens * i // len(texts) for i in range(len(texts))]
    return [sorted(rng.permutation(len(t) - 1)[:n].tolist()) for t, n in zip(texts, shares, strict=True)]


def _positions(columns: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    rows = torch.repeat_interleave(torch.arange(len(columns)), torch.tensor([len(c) for c in columns]))
    return rows, torch.tensor([column for of_row in columns for column in of_row])


def plain(lm: LanguageModel, narrow: bool = True) -> Logits:
    """The model's own logits, with what is in use on it."""
    return lambda rows, at: lm.logits_at(lm.pad(rows), *at, narrow)


@torch.no_grad()
def score(lm: LanguageModel, probes: Sequence[Encoded], logits: Logits | None = None) -> Scores:
    """Scores encoded prompts with objects in one forward pass.

    Teacher forcing and greedy decoding agree on exact match: as long as every earlier token was the
    argmax, both condition on the same text. So one pass suffices, however long the objects are.

    Args:
        lm: The model.
        probes: The prompts.
        logits: What runs them; None for :func:`plain`.
    """
    if not probes:
        return Scores(torch.empty(0), torch.empty(0))
    rows, columns = object_positions(probes)
    # The logits that predict token t follow token t - 1.
    found = (logits or plain(lm))([p.ids for p in probes], (rows, columns - 1))
    targets = torch.tensor([token for p in probes for token in p.object_ids], device=found.device)[:, None]
    own = found.gather(1, targets).squeeze(1)
    nll = (found.logsumexp(1) - own).cpu()
    rival = found.scatter(1, targets, -math.inf).amax(1)
    margin = torch.full((len(probes),), math.inf).scatter_reduce(0, rows, (own - rival).cpu(), "amin")
    return Scores(margin, torch.zeros(len(probes)).index_add(0, rows, nll))


@torch.no_grad()
def perplexity(
    lm: LanguageModel,
    texts: Sequence[Sequence[int]],
    batch_rows: int | None = None,
    columns: Sequence[Sequence[int]] | None = None,
    logits: Logits | None = None,
) -> float:
    """Perplexity of token rows: exp of the mean NLL over every token but each row's first.

    Args:
        lm: The model.
        texts: Token ids per row.
        batch_rows: Rows per forward pass; bounds memory, changes the result by no more than rounding. By default 8 on a
            CPU, where activations that outgrow its caches take half as long again, and 32 elsewhere; fewer of a large
            vocabulary, whose logits would take more than 128 MB.
        columns: Per row the positions whose next tokens count; None for all of them.
        logits: What runs the rows, and returns a tensor that may be overwritten; None for :func:`plain`.

    Raises:
        ValueError: There is no token that another one precedes.
    """
    columns = [range(len(text) - 1) for text in texts] if columns is None else columns
    if not any(map(len, columns)):
        raise ValueError(
            f"expected at least one row of two tokens or more, found {len(texts)} rows of at most one; "
            "perplexity is about tokens that follow others, pass some text"
        )
    total, count = 0.0, 0
    if batch_rows is None:
        fitting = _HELD // (lm.vocabulary * max(map(len, columns)))
        batch_rows = max(1, min(fitting, 8 if lm.device.type == "cpu" else 32))
    # What is read at every token gains nothing from a last MLP that runs at some of them.
    logits = logits or plain(lm, narrow=False)
    for start in range(0, len(texts), batch_rows):
        batch, read = texts[start : start + batch_rows], columns[start : start + batch_rows]
        if not any(map(len, read)):
            continue
        targets = [text[column + 1] for text, of_row in zip(batch, read, strict=True) for column in of_row]
        # Without a name here, logits are gone before the next pass makes as many.
        total += _nll_in_place(logits([tuple(text) for text in batch], _positions(read)), targets)
        count += len(targets)
    # A ruined model's NLL can be beyond what exp can show.
    return math.exp(total / count) if total / count < 700 else math.inf


def _nll_in_place(logits: Tensor, targets: Sequence[int]) -> float:
    """Summed NLL of tokens, of logits ``[tokens, vocabulary]`` that become log-probabilities."""
    # Part by part: of a large vocabulary, a second tensor like this one takes hundreds of megabytes.
    for part in logits.split(max(1, _LOGITS // logits.shape[1])):
        part.copy_(part.log_softmax(1))
    following = torch.tensor(targets, device=logits.device)
    return float(torch.nn.functional.nll_loss(logits, following, reduction="sum"))
