"""Trains LoRA adapters on lessons, each held to what the frozen base says on ordinary text.

Several learners can sleep in one loop: they share every pass and nothing else.
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
from sleepgym.lm.continuation import Continuation
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.probes import object_positions, text_positions
from sleepgym.memory.overlay import Factors, Memory, Overlay
from sleepgym.memory.rehearsal import Rehearsal

T = TypeVar("T")

_MOMENTUM = 0.7
"""Less than usual: lessons about subjects that are much alike pull to and fro, and momentum makes them overshoot."""

_ROWS = 256
"""Lessons looked at in one pass without gradients."""


@dataclass(frozen=True, eq=False)
class AdapterTraining:
    """What one learner trains tonight.

    Attributes:
        memory: Stays as it is, and is in force meanwhile (edits to be replaced: leave them out).
        adapter: Where training starts; not modified.
        lessons: Prompts with objects, at least one.
        rng: Draws batches.
    """

    memory: Memory
    adapter: Factors
    lessons: Sequence[Encoded]
    rng: np.random.Generator


@dataclass(frozen=True)
class TrainedAdapter:
    """A finished training: the adapter, the steps it took, and the lessons' mean NLL (nats per token) at the end."""

    factors: Factors
    steps: int
    nll: float


def new_adapter(
    lm: LanguageModel, spec: SleepSpec, first_layer: int, rng: np.random.Generator
) -> dict[str, tuple[Tensor, Tensor]]:
    """A LoRA adapter that changes nothing yet: random ``A`` (Kaiming uniform, as PEFT), zero ``B``.

    Args:
        lm: The model.
        spec: Rank and targets.
        first_layer: Lowest block that gets it.
        rng: Draws ``A``.

    Raises:
        SleepError: The model has no such block, or no linear of a targeted name.
    """
    names = [name for block in lm.blocks[first_layer:] for name in block.linears]
    chosen = [name for name in names if not spec.targets or name.rpartition(".")[2] in spec.targets]
    if not chosen:
        there = sorted({name.rpartition(".")[2] for name in names})
        raise SleepError(
            f"expected linears named {spec.targets or 'anything'} in block {first_layer} of {lm.name!r} or above, "
            f"found {len(lm.blocks)} blocks with {there or 'none there'}; change targets or lower first_layer"
        )
    # Steps are small beside the weights they change: half precision would lose most of them.
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
    """Trains one adapter per training, all in one loop; each ends up as if it had been trained alone.

    A training's loss is the mean NLL of its lessons' objects plus, on rehearsal text, KL(bare || now): the model is
    to keep saying what the base says, not to fit the text. Measured against the base rather than against
    yesterday, nights do not add up their drift. Losses, clipping, moments and stopping are each training's own.

    All that cannot change meanwhile is computed once: what lies below the lowest adapter.

    Args:
        rehearsal: Text to draw from, and the model.
        trainings: At least one.
        spec: Steps, rate, batch.
        progress: Called as ``(step, steps)``.

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
            if not run.finished and not len(run.missing):
                # All seem to be known, but they were seen at different times.
                run.look_back(lessons.look_at(i))
        active = [i for i, run in enumerate(runs) if not run.finished]
        if not active:
            break
        now = [runs[i] for i in active]
        for run in now:
            run.draw()
        nll = lessons.nll({i: runs[i].lessons for i in active})
        loss = torch.stack([row[: len(p.lessons)].mean() for row, p in zip(nll, now, strict=True)])
        if texts is not None:
            loss = loss + spec.rehearsal_weight * texts.divergence(active)
        _require_finite(loss, step)
        loss.sum().backward()
        for run, seen in zip(now, nll.detach(), strict=True):
            run.learn(seen, step)
        progress(step, spec.steps)
    return [run.trained() for run in runs]


class _AdapterRun:
    """One training under way: its parameters, its optimizer, and what it looks at in this step."""

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
        self._seen = np.zeros(len(training.lessons))  # NLL of each lesson when it was last looked at
        self._steps = 0
        self.lessons: list[int] = []
        self.texts: list[int] = []
        self.finished = False

    @property
    def missing(self) -> NDArray[np.intp]:
        """Lessons that were not known when they were last looked at."""
        return np.flatnonzero(~(self._seen < self.spec.stop_nll))

    def look_back(self, nll: Tensor) -> None:
        """Notes how all lessons stand; done if each is known."""
        self._seen = nll.cpu().double().numpy()
        self.finished = not len(self.missing)

    def draw(self) -> None:
        """Chooses this step's lessons and rehearsal rows.

        All lessons if there is room for them; otherwise half of the room is for those that are missing.
        """
        rng, room = self.training.rng, self.spec.lessons
        missing = rng.permutation(self.missing)
        known = rng.permutation(np.setdiff1d(np.arange(len(self._seen)), missing))
        missing = missing[: max(room - len(known), room // 2)]
        self.lessons = [*missing.tolist(), *known[: room - len(missing)].tolist()]
        self.texts = rng.permutation(self._rehearsal)[: self.spec.rehearsal_rows].tolist()

    def learn(self, nll: Tensor, step: int) -> None:
        """One optimizer step, after gradients have arrived."""
        self._seen[self.lessons] = nll[: len(self.lessons)].cpu().double().numpy()
        # Linear decay: the last steps settle what the first ones moved.
        for group in self._optimizer.param_groups:
            group["lr"] = self.spec.learning_rate * (1 - (step - 1) / self.spec.steps)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._steps = step

    def trained(self) -> TrainedAdapter:
        """What has come of it."""
        factors = {n: (a.detach(), b.detach()) for n, (a, b) in self.factors.items()}
        return TrainedAdapter(factors, self._steps, float(self._seen.mean()))


class _Lessons:
    """All lessons of all runs, each run's filled up to the same number by repeating its first."""

    def __init__(self, overlay: Overlay, runs: Sequence[_AdapterRun], first_block: int) -> None:
        self._overlay, self._runs = overlay, runs
        self._width = max(len(run.training.lessons) for run in runs)
        self._rows = [lesson for run in runs for lesson in _filled(run.training.lessons, self._width)]
        with torch.no_grad(), overlay.use([run.training.memory for run in runs]):
            # What is predicted by the last token, nobody reads.
            ids = [row.ids[:-1] for row in self._rows]
            self._run = Continuation(overlay.lm, ids, [0] * len(ids), first_block)

    @torch.no_grad()
    def look_at(self, i: int) -> Tensor:
        """Mean NLL per object token of every lesson of one run."""
        every = range(len(self._runs[i].training.lessons))
        return torch.cat([self.nll({i: every[start : start + _ROWS]})[0] for start in range(0, len(every), _ROWS)])

    def nll(self, lessons: Mapping[int, Sequence[int]]) -> Tensor:
        """Mean NLL per object token of some lessons of some runs, ``[runs, lessons]``, filled up."""
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
    """Every run's rehearsal."""

    def __init__(self, runs: Sequence[_AdapterRun], rehearsal: Rehearsal, first_block: int) -> None:
        self._runs, self._rehearsal = runs, rehearsal
        self._run, self._bare = rehearsal.run(first_block), rehearsal.run(len(rehearsal.overlay.lm.blocks))

    def divergence(self, active: Sequence[int]) -> Tensor:
        """Mean over tokens of KL(bare || now) on what each active run has drawn, ``[active]``."""
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
    """The lowest block that differs from the base: in what is trained, or in what is in force meanwhile."""
    names = {name for training in trainings for name in training.adapter}
    names |= {name for c in trainings for term in c.memory.terms.values() if term.scale for name in term.factors}
    return next(i for i, block in enumerate(lm.blocks) if not names.isdisjoint(block.linears))


def _require_finite(loss: Tensor, step: int) -> None:
    if not torch.isfinite(loss).all():
        found = ", ".join(f"{value:.4g}" for value in loss.tolist())
        raise SleepError(
            f"expected a finite loss in the night's training, found {found} at step {step}; "
            "nothing was changed, lower learning_rate"
        )
