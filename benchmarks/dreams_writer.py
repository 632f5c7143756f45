"""A writer of dreams: a LoRA on the frozen base, tuned by preferences of clients who score what it writes.

After POPri (arXiv 2504.16438): a round samples J texts for each of K public prompts, every client scores all of them,
scores are standardised and clipped to an L2 norm of 1, summed and noised, and per prompt a chosen and a rejected text
train the writer by DPO (arXiv 2305.18290, eq. 7) with the base as reference. Texts are told apart by index, so that
equal ones keep their own scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, logsigmoid

from sleepgym.consolidation.lessons import lessons
from sleepgym.consolidation.lora import new_adapter
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.facts import Fact
from sleepgym.lm import score
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.generation import Sampling, left_padded, sampled
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.probes import object_positions
from sleepgym.memory.asking import raw_probe
from sleepgym.memory.overlay import Memory, Overlay, Term

_ROWS = 64
"""Rows per pass."""

LEAST = 16
"""Least number of tokens that are written, so that every dream has as many as a night reads of it."""

Feedback = Callable[[Overlay, Sequence["Client"], Sequence[Encoded]], Tensor]
"""Scores ``[clients, dreams]``; higher is better."""


@dataclass(frozen=True, eq=False)
class Client:
    """Somebody who scores dreams in private: facts that a learner holds, and its memory."""

    facts: Sequence[Fact]
    memory: Memory


@dataclass(frozen=True)
class DreamSpec:
    """Settings of tuning.

    Attributes:
        prompts: K, public prompts of a round.
        samples: J, dreams per prompt.
        rejected: Rank of the rejected dream among the J of a prompt, from 2.
        rounds: T.
        steps: Optimiser steps per round.
        pairs: Pairs per step.
        rank: Rank of the writer's LoRA.
        beta: Inverse temperature of DPO.
        learning_rate: Step size of AdamW.
        tokens: Largest number of tokens that are written after a prompt.
        sigma: Standard deviation of the noise on each sum of clipped scores; 0 for none.
    """

    prompts: int = 32
    samples: int = 10
    rejected: int = 5
    rounds: int = 4
    steps: int = 20
    pairs: int = 16
    rank: int = 16
    beta: float = 0.1
    learning_rate: float = 5e-4
    tokens: int = 40
    sigma: float = 0.0


class Writer:
    """A LoRA on the frozen base that writes texts; fresh, it writes as the base does.

    Args:
        overlay: The model with hooks.
        rank: Rank of the LoRA.
        seed: Seed of its ``A`` and of all samples.
    """

    def __init__(self, overlay: Overlay, rank: int = 16, seed: int = 0) -> None:
        self.overlay, self._rng = overlay, np.random.default_rng(seed)
        factors = new_adapter(overlay.lm, SleepSpec(rank=rank, max_rank=rank), 0, self._rng)
        self.adapter = Term({n: (a.requires_grad_(), b.requires_grad_()) for n, (a, b) in factors.items()})
        self._generator = torch.Generator().manual_seed(int(self._rng.integers(2**31)))

    @torch.no_grad()
    def write(self, prompts: Sequence[str], each: int, tokens: int) -> list[Encoded]:
        """Samples dreams: ``each`` of every prompt, prompt by prompt; what is written is the object."""
        lm, rows = self.overlay.lm, [self.overlay.lm.encode(p).ids for p in prompts for _ in range(each)]
        found: list[Encoded] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self._rng.integers(2**31)))
            for start in range(0, len(rows), _ROWS):
                part = rows[start : start + _ROWS]
                ids, mask = left_padded(lm, part)
                with self.overlay.use((), self.adapter):
                    out = sampled(lm, ids, mask, Sampling(), max_new_tokens=tokens, min_new_tokens=min(LEAST, tokens))
                for row, new in zip(part, out[:, ids.shape[1] :].tolist(), strict=True):
                    found.append(Encoded((*row, *_trimmed(lm, new)), len(row)))
        return found

    def log_probs(self, rows: Sequence[Encoded], tuned: bool) -> Tensor:
        """Log-probability (nats) of what was written in each row, ``[rows]``, by this writer or by the base."""
        lm = self.overlay.lm
        at = object_positions(rows)
        with self.overlay.use((), self.adapter if tuned else ()):
            log_p = lm.logits_at(lm.pad([row.ids for row in rows]), at[0], at[1] - 1).log_softmax(-1)
        targets = torch.tensor(list(chain.from_iterable(row.object_ids for row in rows)), device=log_p.device)
        values = log_p.gather(1, targets[:, None]).squeeze(1)
        return values.new_zeros(len(rows)).index_add(0, at[0].to(values.device), values)

    def prefer(self, chosen: Sequence[Encoded], rejected: Sequence[Encoded], spec: DreamSpec) -> list[float]:
        """Trains on pairs by DPO; returns the loss of each step."""
        optimizer = self._optimizer(spec)
        with torch.no_grad():
            reference = self.log_probs(chosen, False) - self.log_probs(rejected, False)
        losses = []
        for _ in range(spec.steps):
            picks = self._rng.permutation(len(chosen))[: spec.pairs].tolist()
            now = self.log_probs([chosen[i] for i in picks], True) - self.log_probs([rejected[i] for i in picks], True)
            losses.append(self._step(optimizer, -logsigmoid(spec.beta * (now - reference[picks])).mean()))
        return losses

    def imitate(self, chosen: Sequence[Encoded], spec: DreamSpec) -> list[float]:
        """Trains on the chosen texts alone, by their likelihood; returns the loss of each step."""
        optimizer, losses = self._optimizer(spec), []
        for _ in range(spec.steps):
            picks = self._rng.permutation(len(chosen))[: spec.pairs].tolist()
            rows = [chosen[i] for i in picks]
            lengths = torch.tensor([len(row.object_ids) for row in rows])
            losses.append(self._step(optimizer, -(self.log_probs(rows, True).cpu() / lengths).mean()))
        return losses

    def _optimizer(self, spec: DreamSpec) -> torch.optim.Optimizer:
        parameters = [p for pair in self.adapter.factors.values() for p in pair]
        return torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=0.0)

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())


# -------------------------------------------------------------------- feedback


def by_cosine(overlay: Overlay, clients: Sequence[Client], dreams: Sequence[Encoded]) -> Tensor:
    """Cosine of the base's mean hidden states of a dream to those of a client's facts, averaged over its facts."""
    lm = overlay.lm
    written = _hidden(overlay, [dream.ids for dream in dreams])
    told = [_hidden(overlay, [raw_probe(lm, fact).ids for fact in client.facts]) for client in clients]
    return torch.stack([cosine_similarity(written[:, None], facts[None], dim=-1).mean(1) for facts in told])


def by_recall(overlay: Overlay, clients: Sequence[Client], dreams: Sequence[Encoded]) -> Tensor:
    """Log-probability of a client's facts with the dream before them, minus without, on the client's memory."""
    lm, found = overlay.lm, []
    for client in clients:
        probes = [raw_probe(lm, fact) for fact in client.facts]
        rows = [_behind(lm, dream, probe) for dream in dreams for probe in probes]
        with overlay.use(client.memory):  # no row is asked twice: none is worth keeping
            without = -score(lm, probes).nll
            parts = [-score(lm, rows[i : i + _ROWS]).nll for i in range(0, len(rows), _ROWS)]
        found.append((torch.cat(parts).view(len(dreams), -1) - without).mean(1))
    return torch.stack(found)


def by_gradient(overlay: Overlay, clients: Sequence[Client], dreams: Sequence[Encoded]) -> Tensor:
    """Cosine of gradients on a fresh adapter of a night: of a client's lessons, and of the dream's likelihood."""
    lm = overlay.lm
    factors = new_adapter(lm, SleepSpec(), len(lm.blocks) // 2, np.random.default_rng(0))
    adapter = Term({name: (a, b.requires_grad_()) for name, (a, b) in factors.items()})
    wanted = [_gradient(overlay, adapter, lessons(lm, client.facts)) for client in clients]
    written = [_gradient(overlay, adapter, [dream]) for dream in dreams]
    return cosine_similarity(torch.stack(wanted)[:, None], torch.stack(written)[None], dim=-1)


FEEDBACK: dict[str, Feedback] = {"cosine": by_cosine, "recall": by_recall, "gradient": by_gradient}
"""Scores by name."""


def _gradient(overlay: Overlay, adapter: Term, rows: Sequence[Encoded]) -> Tensor:
    lm, at = overlay.lm, object_positions(rows)
    with overlay.use((), adapter):
        log_p = lm.logits_at(lm.pad([row.ids for row in rows]), at[0], at[1] - 1).log_softmax(-1)
    targets = torch.tensor(list(chain.from_iterable(row.object_ids for row in rows)), device=log_p.device)
    loss = -log_p.gather(1, targets[:, None]).mean()
    parameters = [b for _, b in adapter.factors.values()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


@torch.no_grad()
def _hidden(overlay: Overlay, rows: Sequence[tuple[int, ...]]) -> Tensor:
    """Means over tokens of the base's last hidden states, ``[rows, width]``."""
    lm, found = overlay.lm, []
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        ids = lm.pad(part)
        lengths = torch.tensor([len(row) for row in part], device=ids.device)
        read = (torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]).float()
        with overlay.use(()):
            last = lm.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-1].float()
        found.append((last * read[..., None]).sum(1) / lengths[:, None])
    return torch.cat(found)


def _behind(lm: LanguageModel, dream: Encoded, probe: Encoded) -> Encoded:
    """A probe with a dream before it; the probe's own start token is left out."""
    own = probe.ids[1:] if probe.ids[0] == lm.tokenizer.bos_token_id else probe.ids
    cut = len(probe.ids) - len(own)
    return replace(probe, ids=(*dream.ids, *own), object_start=len(dream.ids) + probe.object_start - cut)


def _trimmed(lm: LanguageModel, tokens: list[int]) -> list[int]:
    pad = lm.tokenizer.pad_token_id
    while len(tokens) > 1 and tokens[-1] == pad:
        tokens.pop()
    return tokens


# ----------------------------------------------------------------------- votes


def tally(scores: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    """Sums the clients' standardised and clipped scores, and adds noise.

    Args:
        scores: ``[clients, dreams]``.
        sigma: Standard deviation of Gaussian noise on each sum; the sum moves by at most 1 in L2 norm if a client comes
            or goes.
        rng: Source of the noise.

    Returns:
        ``[dreams]``.
    """
    ballots = scores - scores.mean(1, keepdim=True)
    ballots = ballots / ballots.std(1, keepdim=True).clamp_min(1e-12)
    ballots = ballots / ballots.norm(dim=1, keepdim=True).clamp_min(1.0)
    return ballots.sum(0) + sigma * torch.from_numpy(rng.standard_normal(scores.shape[1])).to(scores)


def pairs(votes: Tensor, samples: int, rejected: int) -> tuple[list[int], list[int]]:
    """Indices of the chosen and the rejected dream of every prompt: the first, and the one of a lower rank."""
    order = votes.view(-1, samples).argsort(dim=1, descending=True, stable=True)
    start = torch.arange(len(order)) * samples
    return (order[:, 0] + start).tolist(), (order[:, rejected - 1] + start).tolist()


def tune(
    writer: Writer,
    prompts: Sequence[str],
    clients: Sequence[Client],
    feedback: Feedback | None,
    spec: DreamSpec,
    rng: np.random.Generator,
    imitate: bool = False,
) -> list[dict[str, float]]:
    """Tunes a writer over all rounds; without feedback preferences are random.

    Returns:
        Per round the mean score (of the clients' mean) of all dreams and of the chosen ones, and the last loss.
    """
    told = []
    for _ in range(spec.rounds):
        drawn = [prompts[i] for i in rng.choice(len(prompts), spec.prompts, replace=len(prompts) < spec.prompts)]
        dreams = writer.write(drawn, spec.samples, spec.tokens)
        scores = torch.from_numpy(rng.standard_normal((1, len(dreams)))).float()
        if feedback is not None:
            scores = feedback(writer.overlay, clients, dreams)
        chosen, rejected = pairs(tally(scores, spec.sigma, rng), spec.samples, spec.rejected)
        best = [dreams[i] for i in chosen]
        losses = writer.imitate(best, spec) if imitate else writer.prefer(best, [dreams[i] for i in rejected], spec)
        mean = scores.mean(0)
        told.append({"score": float(mean.mean()), "chosen": float(mean[chosen].mean()), "loss": losses[-1]})
    return told
