"""Steps of a night: health, audit, maintain, consolidate, rem, gate, dissolve, validate.

Every step takes any number of nights, treats each as it would alone, and shares forward passes among them. Steps
modify drafts of the learners' states: the caller keeps the originals, and adopts a draft only if the whole night
succeeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sleepgym.consolidation.adapters import adapter_in, keep, put_adapter, rows_in, tonights_adapter
from sleepgym.consolidation.answers import questions
from sleepgym.consolidation.lessons import lessons
from sleepgym.consolidation.lora import AdapterTraining, HeldQuestions, TrainedAdapter, train_adapters
from sleepgym.consolidation.neighbours import neighbours_of
from sleepgym.consolidation.rem import passages
from sleepgym.consolidation.seen import Seen, ask
from sleepgym.consolidation.spacing import to_hold, to_train
from sleepgym.consolidation.spec import SleepError, SleepSpec
from sleepgym.consolidation.stages import dissolve as dissolve_edits
from sleepgym.consolidation.stages import dissolve_further
from sleepgym.editing.base import Base, Progress
from sleepgym.editing.upkeep import audit as audit_states
from sleepgym.editing.upkeep import refresh
from sleepgym.facts.fact import Fact
from sleepgym.lm import perplexity
from sleepgym.lm.encoding import Encoded
from sleepgym.memory.asking import chat_probe, raw_probe
from sleepgym.memory.ledger import Key
from sleepgym.memory.overlay import Memory, Term
from sleepgym.memory.owners import ADAPTER, owner_of
from sleepgym.memory.reports import AuditReport, SleepReport
from sleepgym.memory.settled import Settled
from sleepgym.memory.state import State

_REM_REHEARSAL = 3.0
"""Factor of the rehearsal weight in REM."""

_REM_RATE = 0.3
"""Factor of the learning rate in REM, which refines what was learned before."""


@dataclass(eq=False)
class Night:
    """Progress of one learner's night: its inputs, its draft, and the measurements of its steps.

    Attributes:
        base: The shared model; the same for all nights of a call.
        spec: Settings of the night; the same for all nights of a call.
        state: Draft of the learner's state, with at least one fact.
        known: Pretrained facts that must stay recalled.
        edits: Maximum number of edits to spend on refreshing, lowest margin first; None for no limit.
        perplexities: Perplexity on held-out text by time: ``"before"``, ``"rem"`` (before REM), ``"after"``.
        known_recall: Share of ``known`` recalled, ``"before"`` and ``"after"``.
        audits: Audits of the ledger, the first before the night and the last after it.
        stages: Stage of each fact at the gate.
        refreshed: Keys of the facts that were re-solved.
        trained: Keys of the facts that the adapter was trained on.
        held: Settled facts, and facts of the ledger that are not trained, whose answers are held.
        yesterday: Slow weights before training, which give these answers.
        others: Questions about subjects that are not taught, to which the answers of the bare model are held.
        trainings: Results of consolidation and REM.
        truncation: Relative error of recompressing the adapter.
        passed: Whether each fact passed the gate.
        seen: Measurements, so that none is repeated while the memory stays as it is.
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
    held: tuple[Settled, ...] = ()
    yesterday: Memory = field(default_factory=Memory)
    others: tuple[Settled, ...] = ()
    trainings: list[TrainedAdapter] = field(default_factory=list)
    truncation: float = 0.0
    passed: dict[Key, bool] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)

    @property
    def harmful(self) -> bool:
        """Whether perplexity or recall got worse by more than ``spec`` allows."""
        before, after = self.perplexities["before"], self.perplexities["after"]
        # Negated comparison, so that a NaN perplexity counts as harm.
        within = after <= before * self.spec.max_perplexity_ratio
        drops = (
            self.audits[0].recall - self.audits[-1].recall,
            self.known_recall["before"] - self.known_recall["after"],
        )
        return not within or max(drops) > self.spec.max_recall_drop

    def report(self) -> SleepReport:
        """Returns the report of the night, after its last step."""
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
            rank=self.slow_weights().largest_rank,
            truncation=self.truncation,
            rolled_back=harmful,
            held=tuple(each.key for each in self.held),
        )

    def slow_weights(self) -> Memory:
        """Returns the draft's memory without edits."""
        return self.state.memory.without([owner_of(fact) for fact in self.state.ledger.facts])


NightStep = Callable[[Sequence[Night], Progress], None]
"""Step of a night: modifies the given nights, and reports progress."""


def health(nights: Sequence[Night], progress: Progress) -> None:
    """Measures the references that the night is validated against: perplexity on held-out text, recall of known facts.

    Raises:
        SleepError: Perplexity is not finite before the night.
    """
    _measure(nights, "before")
    for night in nights:
        found = night.perplexities["before"]
        if not math.isfinite(found):
            raise SleepError(
                f"expected a model with a finite perplexity to sleep, found {found}; prune or reset what spoilt it"
            )


def audit(nights: Sequence[Night], progress: Progress) -> None:
    """Audits the ledgers."""
    for night, found in zip(nights, _audited(nights), strict=True):
        night.audits.append(found)


def maintain(nights: Sequence[Night], progress: Progress) -> None:
    """Refreshes the degraded facts of stage 0, protecting the keys of all other facts.

    Degraded facts of later stages are trained this night instead: a refreshed edit would set them back to stage 0 and
    interfere with other facts meanwhile.

    Raises:
        EditError: The normal matrix cannot be factored, or a loss became NaN or infinite.
    """
    for night in nights:
        if night.spec.refresh:
            degraded = [key for key in night.audits[0].degraded if night.state.ledger[key].stage == 0]
            night.refreshed = refresh(night.base, night.state, degraded[: night.edits]).refreshed


def consolidate(nights: Sequence[Night], progress: Progress) -> None:
    """Trains adapters on the facts that are due, with all edits switched off; holds what they answer to the others.

    With edits on, the lessons' losses and so their gradients would be near zero.

    Raises:
        SleepError: A loss became NaN or infinite, or the model lacks a targeted block or linear.
    """
    for night in nights:
        _choose(night)
    planned = [
        _training_of(n, tonights_adapter(n.base, n.state, n.spec, n.trained), lessons(n.base.lm, _facts(n)))
        for n in nights
    ]
    results = _trained(nights, planned, nights[0].spec, progress, "consolidate")
    for night, training in zip(nights, results, strict=True):
        state = night.state
        night.trainings.append(training)
        if training.steps or ADAPTER not in state.memory.terms:
            night.truncation = keep(state, training.factors, night.spec)
        state.nights += 1
        for key in night.trained:
            state.ledger.update(key, trained_at=state.nights)
        for each in night.held:
            if each.key in state.settled:
                state.settled[each.key] = replace(each, held_at=state.nights)


def rem(nights: Sequence[Night], progress: Progress) -> None:
    """Trains once more on passages in the model's own words, with a higher rehearsal weight; see ``spec.rem_steps``.

    Raises:
        SleepError: A loss became NaN or infinite.
    """
    spec = nights[0].spec
    if not spec.rem_steps:
        return
    _measure(nights, "rem", known=False)
    planned = []
    for night in nights:
        with night.base.overlay.use(night.state.memory):
            rem_rows = passages(night.base.lm, _facts(night), night.state.rng)
        rows = [*rem_rows, *lessons(night.base.lm, _facts(night))]
        planned.append(_training_of(night, adapter_in(night.state.memory, spec), rows))
    rem_spec = replace(
        spec,
        steps=spec.rem_steps,
        learning_rate=_REM_RATE * spec.learning_rate,
        rehearsal_weight=_REM_REHEARSAL * spec.rehearsal_weight,
        stop_nll=0.0,
    )
    results = _trained(nights, planned, rem_spec, progress, "rem")
    for night, training in zip(nights, results, strict=True):
        night.trainings.append(training)
        put_adapter(night.state.memory, training.factors, spec)


def gate(nights: Sequence[Night], progress: Progress) -> None:
    """Tests which facts slow weights recall alone: raw and in chat, with all edits switched off."""
    base = nights[0].base
    probes = [[p(base.lm, f) for f in n.state.ledger.facts for p in (raw_probe, chat_probe)] for n in nights]
    found = ask(_seen(nights), base.overlay, [night.slow_weights() for night in nights], probes)
    for night, margin in zip(nights, found, strict=True):
        both = (margin > 0).view(-1, 2).all(1)
        if night.spec.gate == "night":
            both = both.all().expand_as(both)
        night.stages = {key: entry.stage for key, entry in night.state.ledger.items()}
        night.passed = dict(zip(night.state.ledger, both.tolist(), strict=True))


def dissolve(nights: Sequence[Night], progress: Progress) -> None:
    """Scales edits down for facts that passed the gate and back up for those that failed, then audits the ledgers."""
    for night in nights:
        dissolve_edits(night.state, night.passed, night.spec)
    changed = True
    while changed:
        reports = _audited(nights)
        stuck = [[k for k in found.degraded if n.passed[k]] for n, found in zip(nights, reports, strict=True)]
        changes = [dissolve_further(n.state, keys, n.passed, n.spec) for n, keys in zip(nights, stuck, strict=True)]
        changed = any(changes)
    for night, found in zip(nights, reports, strict=True):
        night.audits.append(found)


def validate(nights: Sequence[Night], progress: Progress) -> None:
    """Measures perplexity and recall of known facts after the night."""
    _measure(nights, "after")


STEPS: tuple[NightStep, ...] = (health, audit, maintain, consolidate, rem, gate, dissolve, validate)
"""Steps of a night, in order."""


def sleep(nights: Sequence[Night], progress: Progress, steps: Sequence[NightStep] = STEPS) -> None:
    """Runs the steps of all nights together.

    Args:
        nights: At least one, all with the same base and spec, each with at least one fact.
        progress: Called as ``(step, done, total)``: before and after each step, and during training.
        steps: Steps to run, in order.

    Raises:
        SleepError: Nights differ in base or spec, or a step failed; the drafts are then invalid.
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
        night.perplexities[when] = night.seen.perplexity(night.state.memory, partial(_perplexity, night))
    if known:
        probes = [[raw_probe(base.lm, fact) for fact in night.known] for night in nights]
        memories = [night.state.memory for night in nights]
        for night, found in zip(nights, ask(_seen(nights), base.overlay, memories, probes), strict=True):
            night.known_recall[when] = float((found > 0).float().mean()) if len(found) else 1.0


def _perplexity(night: Night) -> float:
    rows = night.base.statistics.held_out[: night.spec.validation_rows]
    return perplexity(night.base.lm, rows, logits=night.base.overlay.asked(night.state.memory))


def _audited(nights: Sequence[Night]) -> list[AuditReport]:
    return audit_states(nights[0].base, [night.state for night in nights], partial(ask, _seen(nights)))


def _seen(nights: Sequence[Night]) -> list[Seen]:
    return [night.seen for night in nights]


def _choose(night: Night) -> None:
    """Chooses the facts to train and the answers to hold: of settled facts, and of those that are not trained."""
    state, spec = night.state, night.spec
    night.trained = tuple(to_train(state.ledger, state.nights + 1, spec.spacing, spec.facts))
    trained = set(night.trained)
    resting = [Settled.of(e.fact, e.trained_at) for key, e in state.ledger.items() if e.held and key not in trained]
    night.held = tuple(to_hold([*state.settled.values(), *resting], spec.settled))
    night.yesterday = night.slow_weights()
    if spec.neighbours:
        night.others = tuple(neighbours_of(night.base, state, _facts(night), spec.neighbours))


def _facts(night: Night) -> list[Fact]:
    return [night.state.ledger[key].fact for key in night.trained]


def _training_of(night: Night, adapter: Term, rows: Sequence[Encoded]) -> AdapterTraining:
    """Returns the training of an adapter: instead of the stored one if it continues that, otherwise on top of it."""
    memory, gated = night.slow_weights(), night.spec.adapter == "gated"
    if gated:
        memory = memory.without(list(rows_in(memory)))
    elif night.state.memory.terms.get(ADAPTER) is adapter:
        memory = memory.without([ADAPTER])
    lm, spec = night.base.lm, night.spec
    held = (
        HeldQuestions(questions(lm, night.held), night.yesterday, spec.settled_rows, spec.settled_weight),
        HeldQuestions(questions(lm, night.others), Memory(), spec.neighbour_rows, spec.neighbour_weight),
    )
    return AdapterTraining(memory, adapter.factors, rows, night.state.rng, held, adapter.gates, outputs_only=gated)


def _trained(
    nights: Sequence[Night], planned: Sequence[AdapterTraining], spec: SleepSpec, progress: Progress, name: str
) -> list[TrainedAdapter]:
    base = nights[0].base
    return train_adapters(base.rehearsal, planned, spec, lambda step, steps: progress(name, step, steps))
