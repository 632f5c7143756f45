"""LoRA training on lessons, regularised towards the frozen base on ordinary text.

Several learners can be trained in one loop: they share forward passes and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sleepgym.consolidation.spec import SleepError, SleepSpec
from sleepgym.lm.architecture import features
from sleepgym.lm.continuation import Continuation, Start
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.probes import object_positions, text_positions
from sleepgym.memory.overlay import Factors, Memory, Overlay
from sleepgym.memory.rehearsal import Rehearsal

T = TypeVar("T")

_MOMENTUM = 0.7
"""First beta of AdamW. Below the usual 0.9: gradients of lessons about similar subjects alternate in sign, and momentum
makes them overshoot."""

_ROWS = 256
"""Maximum number of lessons per pass without gradients."""


@dataclass(frozen=True, eq=False)
class AdapterTraining:
    """Training job of one learner.

    Attributes:
        memory: Fixed terms that apply during training; leave out the edits that the adapter is to replace.
        adapter: Initial factors; not modified.
        lessons: Prompts with objects, at least one.
        rng: Source of the batches.
    """

    memory: Memory
    adapter: Factors
    lessons: Sequence[Encoded]
    rng: np.random.Generator


@dataclass(frozen=True)
class TrainedAdapter:
    """Result of a training.

    Attributes:
        factors: The trained adapter.
        steps: Optimiser steps taken.
        nll: Mean NLL of the lessons (nats per token) as last measured.
    """

    factors: Factors
    steps: int
    nll: float


def new_adapter(
    lm: LanguageModel, spec: SleepSpec, first_layer: int, rng: np.random.Generator
) -> dict[str, tuple[Tensor, Tensor]]:
    """Initialises a LoRA adapter with zero output: random ``A`` (Kaiming uniform, as PEFT) and ``B = 0``.

    Args:
        lm: The model.
        spec: Rank and targets.
        first_layer: Lowest block with adapters.
        rng: Source of ``A``.

    Returns:
        ``A [rank, d_in]`` and ``B [d_out, rank]`` by module, in float32 at least, on the devices of the modules.

    Raises:
        SleepError: The model has no such block, or no linear of a targeted name.
    """
    names = [name for block in lm.blocks[first_layer:] for name in block.linears]
    chosen = [name for name in names if not spec.targets or name.rpartition(".")[2] in spec.targets]
    if not chosen:
        found = sorted({name.rpartition(".")[2] for name in names})
        raise SleepError(
            f"expected linears named {spec.targets or 'anything'} in block {first_layer} of {lm.name!r} or above, "
            f"found {len(lm.blocks)} blocks with {found or 'none there'}; change targets or lower first_layer"
        )
    # Optimiser steps are small relative to the weights: half precision would round most of them away.
    dtype = torch.promote_types(lm.dtype, torch.float32)
    factors = {}
    for name in chosen:
        module = lm.linear(name)
        d_in, d_out = features(module)
        bound = 1 / math.sqrt(d_in)
        a = torch.from_numpy(rng.uniform(-bound, bound, (spec.rank, d_in))).to(dtype)
        device = next(module.parameters()).device
        factors[name] = (a.to(device), torch.zeros(d_out, spec.rank, dtype=dtype, device=device))
    return factors


def train_adapters(
    rehearsal: Rehearsal,
    trainings: Sequence[AdapterTraining],
    spec: SleepSpec,
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> list[TrainedAdapter]:
    """Trains several adapters in one loop; each result equals that of training it alone, up to rounding.

    The loss of a training is the mean NLL of its lessons' objects plus, on rehearsal text, KL(bare || trained), which
    keeps the model's distribution instead of fitting the text. The reference is the base and not the model before the
    night, so that drift does not accumulate over nights. Loss, gradient clipping, optimiser moments and stopping are
    separate for each training.

    Blocks below the lowest adapter or term are run once and cached.

    Args:
        rehearsal: The model, and text to draw from.
        trainings: Jobs, at least one.
        spec: Steps, learning rate and batch sizes.
        progress: Called as ``(step, steps)`` after each step.

    Returns:
        One result per training, in order.

    Raises:
        SleepError: A loss became NaN or infinite.
    """
    overlay = rehearsal.overlay
    runs = [_AdapterRun(training, spec, len(rehearsal.rows)) for training in trainings]
    first_block = _lowest_block(overlay.lm, trainings)
    lessons = _Lessons(overlay, runs, first_block)
    rehearsing = bool(spec.rehearsal_weight and spec.rehearsal_rows and rehearsal.rows)
    texts = _Texts(runs, rehearsal, first_block) if rehearsing else None
    for step in range(1, spec.steps + 1):
        for i, run in enumerate(runs):
            if not run.finished and not len(run.unlearned):
                # Losses were measured at different steps, so that all have to be measured again before stopping.
                run.measure_all(lessons.nll_of_run(i))
        active = [i for i, run in enumerate(runs) if not run.finished]
        if not active:
            break
        active_runs = [runs[i] for i in active]
        for run in active_runs:
            run.draw()
        nll = lessons.nll({i: runs[i].lessons for i in active})
        loss = torch.stack([row[: len(run.lessons)].mean() for row, run in zip(nll, active_runs, strict=True)])
        if texts is not None:
            loss = loss + spec.rehearsal_weight * texts.divergence(active)
        _require_finite(loss, step)
        loss.sum().backward()
        for run, measured in zip(active_runs, nll.detach(), strict=True):
            run.update(measured, step)
        progress(step, spec.steps)
    return [run.result() for run in runs]


class _AdapterRun:
    """State of one training: parameters, optimiser, and the lessons and rehearsal rows of the current step."""

    def __init__(self, training: AdapterTraining, spec: SleepSpec, rehearsal_rows: int) -> None:
        self.training, self.spec = training, spec
        self.factors = {
            name: (a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_())
            for name, (a, b) in training.adapter.items()
        }
        self._parameters = [p for pair in self.factors.values() for p in pair]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=spec.learning_rate, betas=(_MOMENTUM, 0.999), weight_decay=0.0
        )
        self._rehearsal = rehearsal_rows
        self._nll = np.zeros(len(training.lessons))  # of each lesson, as last measured
        self._steps = 0
        self.lessons: list[int] = []
        self.texts: list[int] = []
        self.finished = False

    @property
    def unlearned(self) -> NDArray[np.intp]:
        """Indices of the lessons whose last measured NLL is not below ``stop_nll``."""
        return np.flatnonzero(~(self._nll < self.spec.stop_nll))

    def measure_all(self, nll: Tensor) -> None:
        """Records the NLL of all lessons, ``[lessons]``; the training is finished if all are learned."""
        self._nll = nll.cpu().double().numpy()
        self.finished = not len(self.unlearned)

    def draw(self) -> None:
        """Draws the lessons and rehearsal rows of the next step.

        All lessons if the batch has room for them; otherwise at least half of the room is for unlearned ones.
        """
        rng, room = self.training.rng, self.spec.lessons
        unlearned = rng.permutation(self.unlearned)
        learned = rng.permutation(np.setdiff1d(np.arange(len(self._nll)), unlearned))
        unlearned = unlearned[: max(room - len(learned), room // 2)]
        self.lessons = [*unlearned.tolist(), *learned[: room - len(unlearned)].tolist()]
        self.texts = rng.permutation(self._rehearsal)[: self.spec.rehearsal_rows].tolist()

    def update(self, nll: Tensor, step: int) -> None:
        """Takes one optimiser step with the accumulated gradients and records the NLL of the step's lessons."""
        self._nll[self.lessons] = nll[: len(self.lessons)].cpu().double().numpy()
        # Linear decay, so that training ends with small steps.
        for group in self._optimizer.param_groups:
            group["lr"] = self.spec.learning_rate * (1 - (step - 1) / self.spec.steps)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._steps = step

    def result(self) -> TrainedAdapter:
        """Returns the adapter as trained so far."""
        factors = {n: (a.detach(), b.detach()) for n, (a, b) in self.factors.items()}
        return TrainedAdapter(factors, self._steps, float(self._nll.mean()))


class _Lessons:
    """Lessons of all runs, padded to the same number per run by repeating the run's first lesson."""

    def __init__(self, overlay: Overlay, runs: Sequence[_AdapterRun], first_block: int) -> None:
        self._overlay, self._runs = overlay, runs
        self._width = max(len(run.training.lessons) for run in runs)
        self._rows = [lesson for run in runs for lesson in _filled(run.training.lessons, self._width)]
        with torch.no_grad(), overlay.use([run.training.memory for run in runs]):
            # The prediction at the last token is never read.
            ids = [row.ids[:-1] for row in self._rows]
            self._run = Continuation(overlay.lm, ids, [0] * len(ids), Start(first_block))

    @torch.no_grad()
    def nll_of_run(self, i: int) -> Tensor:
        """Returns the mean NLL per object token of every lesson of one run, ``[lessons]``."""
        every = range(len(self._runs[i].training.lessons))
        return torch.cat([self.nll({i: every[start : start + _ROWS]})[0] for start in range(0, len(every), _ROWS)])

    def nll(self, lessons: Mapping[int, Sequence[int]]) -> Tensor:
        """Returns the mean NLL per object token of the given lessons of each run.

        Args:
            lessons: Indices of lessons by index of run.

        Returns:
            ``[runs, lessons]``; shorter rows are padded with the NLL of their first lesson.
        """
        runs, width = [self._runs[i] for i in lessons], max(len(chosen) for chosen in lessons.values())
        picks = [i * self._width + k for i, chosen in lessons.items() for k in _filled(chosen, width)]
        chosen = [self._rows[k] for k in picks]
        run = self._run.select(torch.tensor(picks, device=self._overlay.lm.device))
        rows, columns = (t.to(self._overlay.lm.device) for t in object_positions(chosen))
        with self._overlay.use([p.training.memory for p in runs], [p.factors for p in runs]):
            log_p = run.logits(rows, columns - 1, narrow=True).log_softmax(-1)
        targets = torch.tensor([token for row in chosen for token in row.object_ids], device=log_p.device)
        nll = -log_p.gather(1, targets[:, None]).squeeze(1)
        rows = rows.to(nll.device)
        mean = nll.new_zeros(len(chosen)).index_add(0, rows, nll) / torch.bincount(rows)
        return mean.view(len(runs), width)


class _Texts:
    """Rehearsal rows of all runs, on the base and on the trained model."""

    def __init__(self, runs: Sequence[_AdapterRun], rehearsal: Rehearsal, first_block: int) -> None:
        self._runs, self._rehearsal = runs, rehearsal
        self._run, self._bare = rehearsal.run(first_block), rehearsal.run(len(rehearsal.overlay.lm.blocks))

    def divergence(self, active: Sequence[int]) -> Tensor:
        """Returns KL(bare || trained), averaged over the tokens of the rows that each active run drew, ``[active]``."""
        runs, overlay = [self._runs[i] for i in active], self._rehearsal.overlay
        picks = [i for run in runs for i in run.texts]
        chosen = torch.tensor(picks, device=overlay.lm.device)
        rows, columns = (t.to(overlay.lm.device) for t in text_positions([self._rehearsal.rows[i] for i in picks]))
        with torch.no_grad(), overlay.use(()):
            p = self._bare.select(chosen).logits(rows, columns).log_softmax(-1)
        with overlay.use([run.training.memory for run in runs], [run.factors for run in runs]):
            q = self._run.select(chosen).logits(rows, columns).log_softmax(-1)
        kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        of_run = (rows // len(runs[0].texts)).to(kl.device)
        return kl.new_zeros(len(runs)).index_add(0, of_run, kl) / torch.bincount(of_run)


def _filled(items: Sequence[T], width: int) -> list[T]:
    return [*items, *[items[0]] * (width - len(items))]


def _lowest_block(lm: LanguageModel, trainings: Sequence[AdapterTraining]) -> int:
    """Returns the index of the lowest block with an adapter in training or a term that is not switched off."""
    names = {name for training in trainings for name in training.adapter}
    names |= {name for t in trainings for term in t.memory.terms.values() if term.scale for name in term.factors}
    return next(i for i, block in enumerate(lm.blocks) if not names.isdisjoint(block.linears))


def _require_finite(loss: Tensor, step: int) -> None:
    if not torch.isfinite(loss).all():
        found = ", ".join(f"{value:.4g}" for value in loss.tolist())
        raise SleepError(
            f"expected a finite loss in the night's training, found {found} at step {step}; "
            "nothing was changed, lower learning_rate"
        )
