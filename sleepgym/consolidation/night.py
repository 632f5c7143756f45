"""A night, step by step: health, audit, maintain, consolidate, rem, gate, dissolve, validate.

Every step takes any number of nights and does for each what it would do for it alone; what costs passes is done for
all in the same passes. Steps work on states that they may spoil: the caller keeps the originals, and takes a draft
over only once the whole night has succeeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sleepgym.consolidation.adapters import keep, tonights_adapter
from sleepgym.consolidation.lessons import lessons
from sleepgym.consolidation.lora import AdapterTraining, TrainedAdapter, train_adapters
from sleepgym.consolidation.rem import passages
from sleepgym.consolidation.spec import SleepError, SleepSpec
from sleepgym.consolidation.stages import dissolve as dissolve_edits
from sleepgym.consolidation.stages import dissolve_further
from sleepgym.editing.base import Base, Progress
from sleepgym.editing.upkeep import audit as audit_states
from sleepgym.editing.upkeep import refresh
from sleepgym.facts.fact import Fact
from sleepgym.lm import perplexity
from sleepgym.lm.encoding import Encoded
from sleepgym.memory.asking import chat_probe, margins, raw_probe
from sleepgym.memory.ledger import Key
from sleepgym.memory.overlay import Factors, Memory
from sleepgym.memory.owners import ADAPTER, owner_of
from sleepgym.memory.reports import AuditReport, SleepReport
from sleepgym.memory.state import State

_REM_REHEARSAL = 3.0
"""How much more rehearsal weighs in REM than before."""

_REM_RATE = 0.3
"""How much slower REM learns: it is to settle what was learnt, not to learn anew."""


@dataclass(eq=False)
class Night:
    """One learner's night under way: what it started from, its draft, and what its steps found.

    Attributes:
        base: The shared model; the same for all nights of a call.
        spec: Numbers of the night; the same for all nights of a call.
        state: The draft; holds at least one fact.
        known: Facts of the base that must stay recalled.
        edits: Edits that it may spend on refreshing, the worst facts first; None for as many as it takes.
    """

    base: Base
    spec: SleepSpec
    state: State
    known: Sequence[Fact] = ()
    edits: int | None = None
    perplexities: dict[str, float] = field(default_factory=dict)
    known_recall: dict[str, float] = field(default_factory=dict)
    audits: list[AuditReport] = field(default_factory=list)
    stages: dict[Key, int] = field(default_factory=dict)
    refreshed: tuple[Key, ...] = ()
    trained: tuple[Key, ...] = ()
    trainings: list[TrainedAdapter] = field(default_factory=list)
    truncation: float = 0.0
    passed: dict[Key, bool] = field(default_factory=dict)

    @property
    def harmful(self) -> bool:
        """Whether the night did more harm than it may."""
        before, after = self.perplexities["before"], self.perplexities["after"]
        # "not within" rather than "beyond": a perplexity that is not a number counts as harm.
        within = after <= before * self.spec.max_perplexity_ratio
        drops = (
            self.audits[0].recall - self.audits[-1].recall,
            self.known_recall["before"] - self.known_recall["after"],
        )
        return not within or max(drops) > self.spec.max_recall_drop

    def report(self) -> SleepReport:
        """What came of it."""
        harmful = self.harmful
        now = {key: entry.stage for key, entry in self.state.ledger.items()}
        kept = {} if harmful else now
        last = self.spec.last_stage
        return SleepReport(
            refreshed=() if harmful else self.refreshed,
            trained=self.trained,
            advanced=tuple(k for k, stage in kept.items() if stage > self.stages[k]),
            retreated=tuple(k for k, stage in kept.items() if stage == 0),
            released=tuple(k for k, stage in kept.items() if stage == last > self.stages[k]),
            recall_before=self.audits[0].recall,
            recall_after=self.audits[0 if harmful else -1].recall,
            perplexity_before=self.perplexities["before"],
            perplexity_after=self.perplexities["after"],
            perplexity_before_rem=self.perplexities.get("rem"),
            steps=sum(training.steps for training in self.trainings),
            nll=self.trainings[0].nll,
            rank=self.state.memory.terms[ADAPTER].rank,
            truncation=self.truncation,
            rolled_back=harmful,
        )

    def slow_weights(self) -> Memory:
        """The memory with all edits switched off."""
        return self.state.memory.without([owner_of(fact) for fact in self.state.ledger.facts])


NightStep = Callable[[Sequence[Night], Progress], None]


def health(nights: Sequence[Night], progress: Progress) -> None:
    """Notes what the night must not spoil: perplexity on held-out text, and recall of known facts.

    Raises:
        SleepError: The model is ill before the night: its perplexity is not a finite number.
    """
    _measure(nights, "before")
    for night in nights:
        found = night.perplexities["before"]
        if not math.isfinite(found):
            raise SleepError(
                f"expected a model with a finite perplexity to sleep, found {found}; prune or reset what spoilt it"
            )


def audit(nights: Sequence[Night], progress: Progress) -> None:
    """Finds the facts that are not recalled any more."""
    for night, found in zip(nights, audit_states(nights[0].base, [n.state for n in nights]), strict=True):
        night.audits.append(found)


def maintain(nights: Sequence[Night], progress: Progress) -> None:
    """Solves anew for those of them that only an edit holds, keeping all others still.

    What has begun to sink is a lesson of tonight: another edit would have to sink anew, and harm others meanwhile.
    """
    for night in nights:
        if night.spec.refresh:
            worn = [key for key in night.audits[0].degraded if night.state.ledger[key].stage == 0]
            night.refreshed = refresh(night.base, night.state, worn[: night.edits]).refreshed


def consolidate(nights: Sequence[Night], progress: Progress) -> None:
    """Trains adapters on the facts whose turn it is, with all edits switched off.

    With the edits on, a lesson would already be known and teach nothing.

    Raises:
        SleepError: Training diverged.
    """
    for night in nights:
        night.trained = tuple(_chosen(night))
    planned = [
        _training_of(n, tonights_adapter(n.base, n.state, n.spec), lessons(n.base.lm, _facts(n))) for n in nights
    ]
    for night, training in zip(nights, _trained(nights, planned, nights[0].spec, progress, "consolidate"), strict=True):
        night.trainings.append(training)
        night.truncation = keep(night.state, training.factors, night.spec)
        night.state.nights += 1
        for key in night.trained:
            night.state.ledger.update(key, trained_at=night.state.nights)


def rem(nights: Sequence[Night], progress: Progress) -> None:
    """Goes over the facts once more in passages of the model's own, while rehearsal weighs more."""
    spec = nights[0].spec
    if not spec.rem_steps:
        return
    _measure(nights, "rem", known=False)
    planned = []
    for night in nights:
        with night.base.overlay.use(night.state.memory):
            dreamt = passages(night.base.lm, _facts(night), night.state.rng)
        rows = [*dreamt, *lessons(night.base.lm, _facts(night))]
        planned.append(_training_of(night, night.state.memory.terms[ADAPTER].factors, rows))
    dreaming = replace(
        spec,
        steps=spec.rem_steps,
        learning_rate=_REM_RATE * spec.learning_rate,
        rehearsal_weight=_REM_REHEARSAL * spec.rehearsal_weight,
        stop_nll=0.0,
    )
    for night, training in zip(nights, _trained(nights, planned, dreaming, progress, "rem"), strict=True):
        night.trainings.append(training)
        night.state.memory.put(ADAPTER, training.factors)


def gate(nights: Sequence[Night], progress: Progress) -> None:
    """Asks every fact raw and in chat with all edits switched off: do slow weights recall it alone?"""
    base = nights[0].base
    probes = [[p(base.lm, f) for f in n.state.ledger.facts for p in (raw_probe, chat_probe)] for n in nights]
    found = margins(base.overlay, [night.slow_weights() for night in nights], probes)
    for night, margin in zip(nights, found, strict=True):
        both = (margin > 0).view(-1, 2).all(1)
        if night.spec.gate == "night":
            both = both.all().expand_as(both)
        night.stages = {key: entry.stage for key, entry in night.state.ledger.items()}
        night.passed = dict(zip(night.state.ledger, both.tolist(), strict=True))


def dissolve(nights: Sequence[Night], progress: Progress) -> None:
    """Scales edits down where slow weights recall the fact, and back up where they do not; audits what came of it."""
    for night in nights:
        dissolve_edits(night.state, night.passed, night.spec)
    moving = True
    while moving:
        seen = audit_states(nights[0].base, [night.state for night in nights])
        stuck = [[k for k in found.degraded if n.passed[k]] for n, found in zip(nights, seen, strict=True)]
        moved = [dissolve_further(n.state, keys, n.passed, n.spec) for n, keys in zip(nights, stuck, strict=True)]
        moving = any(moved)
    for night, found in zip(nights, seen, strict=True):
        night.audits.append(found)


def validate(nights: Sequence[Night], progress: Progress) -> None:
    """Measures again what the night must not have spoilt."""
    _measure(nights, "after")


STEPS: tuple[NightStep, ...] = (health, audit, maintain, consolidate, rem, gate, dissolve, validate)


def sleep(nights: Sequence[Night], progress: Progress, steps: Sequence[NightStep] = STEPS) -> None:
    """Runs the steps of all nights together.

    Args:
        nights: At least one, all with the same base and spec, each with at least one fact.
        progress: Called as ``(step, done, total)``: before and after each step, and while it trains.
        steps: What is done, in this order.

    Raises:
        SleepError: A step failed; the drafts are spoilt.
    """
    if any(night.base is not nights[0].base or night.spec != nights[0].spec for night in nights):
        raise SleepError("expected nights of one base and one spec, found several; let them sleep one after the other")
    for step in steps:
        progress(step.__name__, 0, 1)
        step(nights, progress)
        progress(step.__name__, 1, 1)


def _measure(nights: Sequence[Night], when: str, known: bool = True) -> None:
    base = nights[0].base
    for night in nights:
        with base.overlay.use(night.state.memory):
            night.perplexities[when] = perplexity(base.lm, base.statistics.held_out[: night.spec.validation_rows])
    if known:
        probes = [[raw_probe(base.lm, fact) for fact in night.known] for night in nights]
        for night, found in zip(nights, margins(base.overlay, [n.state.memory for n in nights], probes), strict=True):
            night.known_recall[when] = float((found > 0).float().mean()) if len(found) else 1.0


def _chosen(night: Night) -> list[Key]:
    """Facts that slow weights do not hold alone yet, then the others, those trained longest ago first."""
    last, ledger = night.spec.last_stage, night.state.ledger
    order = sorted(ledger, key=lambda key: (ledger[key].stage == last, ledger[key].trained_at))
    return order[: night.spec.facts]


def _facts(night: Night) -> list[Fact]:
    return [night.state.ledger[key].fact for key in night.trained]


def _training_of(night: Night, adapter: Factors, rows: Sequence[Encoded]) -> AdapterTraining:
    """Trains an adapter in place of the one in memory if it starts from that one, and on top of it otherwise."""
    memory, held = night.slow_weights(), night.state.memory.terms.get(ADAPTER)
    if held is not None and held.factors is adapter:
        memory = memory.without([ADAPTER])
    return AdapterTraining(memory, adapter, rows, night.state.rng)


def _trained(
    nights: Sequence[Night], planned: Sequence[AdapterTraining], spec: SleepSpec, progress: Progress, name: str
) -> list[TrainedAdapter]:
    base = nights[0].base
    return train_adapters(base.rehearsal, planned, spec, lambda step, steps: progress(name, step, steps))
