"""LoRA training on lessons, regularised towards the frozen base on ordinary text and to answers that are held.

Several learners can be trained in one loop: they share forward passes and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sleepgym.consolidation.answers import answered
from sleepgym.consolidation.losses import Held, Lessons, StepLoss, Texts
from sleepgym.consolidation.spec import SleepError, SleepSpec
from sleepgym.lm.architecture import features
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.overlay import Factors, Memory, Overlay, Term
from sleepgym.memory.rehearsal import Rehearsal

_MOMENTUM = 0.7
"""First beta of AdamW. Below the usual 0.9: gradients of lessons about similar subjects alternate in sign, and momentum
makes them overshoot."""


@dataclass(frozen=True, eq=False)
class HeldQuestions:
    """Questions whose answers a training holds to those of a reference.

    Attributes:
        rows: Token rows of the questions; there may be none.
        reference: Memory that gives the answers; empty for the bare model.
        per_step: Maximum number of questions per step: half or more are those whose answers have moved away from the
            reference's, if there are as many.
        weight: Weight of the KL divergence from the reference in the answers.
    """

    rows: Sequence[tuple[int, ...]]
    reference: Memory
    per_step: int
    weight: float

    @property
    def counts(self) -> bool:
        """Whether the loss has a term for them."""
        return bool(len(self.rows) and self.per_step and self.weight)


@dataclass(frozen=True, eq=False)
class AdapterTraining:
    """Training job of one learner.

    Attributes:
        memory: Fixed terms that apply during training; leave out the edits that the adapter is to replace.
        adapter: Initial factors; not modified.
        lessons: Prompts with objects; without any, nothing is trained.
        rng: Source of the batches.
        held: Kinds of questions whose answers are held; as many for all trainings of a call.
        gates: Gates of the adapter's rows ``A x``, ``[r]`` by module.
        outputs_only: Whether ``B`` alone is trained: gates are values of ``A x``, so ``A`` of a gated adapter stays.
    """

    memory: Memory
    adapter: Factors
    lessons: Sequence[Encoded]
    rng: np.random.Generator
    held: Sequence[HeldQuestions] = ()
    gates: Mapping[str, Tensor] = field(default_factory=dict)
    outputs_only: bool = False


@dataclass(frozen=True)
class TrainedAdapter:
    """Result of a training.

    Attributes:
        factors: The trained adapter.
        steps: Optimiser steps taken.
        nll: Mean NLL of the lessons (nats per token) as last measured; 0 without lessons.
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

    The loss of a training is the mean NLL of its lessons' objects plus terms that keep distributions instead of fitting
    texts: KL(bare || trained) on rehearsal text, and KL(reference || trained) in the answers to each kind of held
    questions. On text the reference is the base and not the model before the night, so that drift does not accumulate
    over nights; settled answers are nowhere but in yesterday's model. Loss, gradient clipping, optimiser moments and
    stopping are separate for each training.

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
    lengths = [len(row) - 1 for row in rehearsal.rows] if spec.rehearsal_weight and spec.rehearsal_rows else []
    runs = [_AdapterRun(training, spec, lengths) for training in trainings]
    if all(run.finished for run in runs):
        return [run.result() for run in runs]
    linears = _linears(trainings)
    lessons = Lessons(overlay, [run.training.memory for run in runs], [t.lessons for t in trainings], linears)
    texts = Texts(rehearsal, linears) if lengths else None
    held: dict[int, Held] = {}
    for step in range(1, spec.steps + 1):
        for i, run in enumerate(runs):
            if not run.finished and run.done:
                # Losses were measured at different steps, so that all have to be measured again before stopping.
                moved = {kind: answers.all_measured(i, run.adapter) for kind, answers in held.items()}
                run.measure_all(lessons.all_measured(i, run.adapter), moved)
        active = [i for i, run in enumerate(runs) if not run.finished]
        if not active:
            break
        active_runs = [runs[i] for i in active]
        for run in active_runs:
            run.draw()
        loss = StepLoss(active, [run.adapter for run in active_runs], overlay.lm.device)
        for i, nll in loss.add_answers(lessons, {i: runs[i].lessons for i in active}).items():
            runs[i].note_nll(nll)
        if texts is not None:
            memories = [run.training.memory for run in active_runs]
            loss.add_texts(texts, [run.texts for run in active_runs], memories, spec.rehearsal_weight)
        for kind in range(len(trainings[0].held)):
            asked = {i: runs[i].asked[kind] for i in active if runs[i].asked[kind]}
            if not asked:
                continue
            if kind not in held:
                # Made only now: a night that takes no step need not know the reference's answers.
                held[kind] = _held(overlay, trainings, kind, linears)
            for i, divergences in loss.add_answers(held[kind], asked, trainings[0].held[kind].weight).items():
                runs[i].note_divergences(kind, divergences)
        loss.differentiate()
        _require_finite(loss.value, step)
        for run in active_runs:
            run.update(step)
        progress(step, spec.steps)
    return [run.result() for run in runs]


class _AdapterRun:
    """State of one training: parameters, optimiser, and what the current step reads.

    Args:
        training: The job.
        spec: Its settings.
        lengths: Tokens that can be read of each rehearsal row; empty for no rehearsal.
    """

    def __init__(self, training: AdapterTraining, spec: SleepSpec, lengths: Sequence[int]) -> None:
        self.training, self.spec = training, spec
        rows_too = not training.outputs_only
        factors = {
            name: (a.detach().clone().requires_grad_(rows_too), b.detach().clone().requires_grad_())
            for name, (a, b) in training.adapter.items()
        }
        self.adapter = Term(factors, gates=training.gates)
        self._parameters = [p for pair in factors.values() for p in pair if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=spec.learning_rate, betas=(_MOMENTUM, 0.999), weight_decay=0.0
        )
        self._lengths = lengths
        self._nll = np.zeros(len(training.lessons))  # of each lesson, as last measured
        # Of each held answer by kind, as last measured.
        self._divergences = [np.zeros(len(each.rows)) for each in training.held]
        self._steps = 0
        self.lessons: list[int] = []
        self.texts: dict[int, list[int]] = {}
        self.asked: list[list[int]] = [[] for _ in training.held]
        # Without lessons there is nothing to hold answers against.
        self.finished = not training.lessons

    @property
    def done(self) -> bool:
        """Whether all lessons are learned and all held answers near the reference's, as last measured."""
        return not any(len(_far(values, self.spec.stop_nll)) for values in (self._nll, *self._divergences))

    def measure_all(self, nll: Tensor, divergences: Mapping[int, Tensor]) -> None:
        """Records what was measured of all lessons and held answers; the training is finished if nothing is left to do.

        Args:
            nll: NLL of all lessons, ``[lessons]``.
            divergences: KL divergence of all held answers by kind, ``[questions]``; none before the first step.
        """
        self._nll = _array(nll)
        for kind, measured in divergences.items():
            self._divergences[kind] = _array(measured)
        self.finished = self.done

    def note_nll(self, nll: Tensor) -> None:
        """Records the NLL of the step's lessons."""
        self._nll[self.lessons] = _array(nll)

    def note_divergences(self, kind: int, divergences: Tensor) -> None:
        """Records the KL divergence of the step's held answers of one kind."""
        self._divergences[kind][self.asked[kind]] = _array(divergences)

    def draw(self) -> None:
        """Draws the lessons, the tokens of rehearsal rows and the held questions of the next step."""
        rng, spec = self.training.rng, self.spec
        self.lessons = _drawn(rng, self._nll, spec.stop_nll, spec.lessons)
        texts = rng.permutation(len(self._lengths))[: spec.rehearsal_rows].tolist()
        self.texts = {i: _positions(rng, self._lengths[i], spec.rehearsal_tokens) for i in texts}
        for kind, each in enumerate(self.training.held):
            if each.counts:
                self.asked[kind] = _drawn(rng, self._divergences[kind], spec.stop_nll, each.per_step)

    def update(self, step: int) -> None:
        """Takes one optimiser step with the accumulated gradients."""
        # Linear decay, so that training ends with small steps.
        for group in self._optimizer.param_groups:
            group["lr"] = self.spec.learning_rate * (1 - (step - 1) / self.spec.steps)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._steps = step

    def result(self) -> TrainedAdapter:
        """Returns the adapter as trained so far."""
        factors = {n: (a.detach(), b.detach()) for n, (a, b) in self.adapter.factors.items()}
        return TrainedAdapter(factors, self._steps, float(self._nll.mean()) if len(self._nll) else 0.0)


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.cpu().double().numpy()


def _far(values: NDArray[np.float64], bound: float) -> NDArray[np.intp]:
    """Returns the indices of the values that are not below a bound."""
    return np.flatnonzero(~(values < bound))


def _drawn(rng: np.random.Generator, values: NDArray[np.float64], bound: float, room: int) -> list[int]:
    """Draws indices of values: all if there is room, otherwise at least half of it for those not below the bound."""
    far = rng.permutation(_far(values, bound))
    near = rng.permutation(np.setdiff1d(np.arange(len(values)), far))
    far = far[: max(room - len(near), room // 2)]
    return [*far.tolist(), *near[: room - len(far)].tolist()]


def _positions(rng: np.random.Generator, length: int, count: int) -> list[int]:
    """Draws ``count`` of ``length`` positions; all of them if there are not more, or if ``count`` is 0."""
    return sorted(rng.permutation(length)[:count].tolist()) if 0 < count < length else list(range(length))


def _held(overlay: Overlay, trainings: Sequence[AdapterTraining], kind: int, linears: Collection[str]) -> Held:
    """Asks the reference memories the held questions of one kind."""
    kinds = [training.held[kind] for training in trainings]
    references = [each.reference for each in kinds]
    rows = answered(overlay, references, [each.rows for each in kinds])
    return Held(overlay, [training.memory for training in trainings], references, rows, linears)


def _linears(trainings: Sequence[AdapterTraining]) -> set[str]:
    """Returns the names of the linears with an adapter in training or a term that is not switched off."""
    memories = [m for t in trainings for m in (t.memory, *(each.reference for each in t.held if each.rows))]
    names = {name for training in trainings for name in training.adapter}
    return names | {n for memory in memories for term in memory.terms.values() if term.scale for n in term.factors}


def _require_finite(loss: Tensor, step: int) -> None:
    if not torch.isfinite(loss).all():
        found = ", ".join(f"{value:.4g}" for value in loss.tolist())
        raise SleepError(
            f"expected a finite loss in the night's training, found {found} at step {step}; "
            "nothing was changed, lower learning_rate"
        )
