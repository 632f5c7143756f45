"""What the sleep experiments share: a model, the facts that it is taught, and everything that is asked about them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.asking import correct
from sleepgym import SleepingLM
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing import Editor, EditSpec, preset, spec_for
from sleepgym.editing.base import Base, make_base
from sleepgym.facts import Fact, World
from sleepgym.facts.real import RealFacts
from sleepgym.files import cache_dir
from sleepgym.lm import load, perplexity
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.asking import chat_probe, raw_probe
from sleepgym.memory.owners import EDIT
from sleepgym.memory.rehearsal import Rehearsal
from sleepgym.memory.reports import SleepReport

Point = dict[str, float]
"""What was measured at one moment, by name."""

EVERYTHING = ("raw", "chat", "questions", "unseen", "kept", "drift")


@dataclass(frozen=True)
class Plan:
    """How much of everything; ``--changes NAME NUMBER`` sets one of them.

    Attributes:
        wake: Facts injected one by one at most.
        least: Facts injected one by one before recall may stop it.
        low: Recall (percent) at which the model counts as worn out.
        cycles: Nights at most until it has recovered.
        second: Facts of the second wave.
        at_once: Facts that a night trains where there are more than it can take.
        sweep: Numbers of facts injected at once.
        nights: Nights of the sweep and the ablations.
        days: Days of a life.
        per_day: Facts of a day.
        room: Places of the ledger in a life that prunes.
        taxed: Facts taught to a model that hedges.
        tax_nights: Its nights.
        hedge_steps: Steps of the training that makes it hedge.
        ablations: Numbers of facts of the ablations.
        known: Known facts asked for at most, to see which are kept.
        rows: Rows of held-out text, and of rehearsal, at most.
    """

    wake: int = 60
    least: int = 30
    low: int = 40
    cycles: int = 10
    second: int = 5
    at_once: int = 20
    sweep: tuple[int, ...] = (5, 10, 15, 20, 50, 100)
    nights: int = 3
    days: int = 30
    per_day: int = 10
    room: int = 48
    taxed: int = 20
    tax_nights: int = 4
    hedge_steps: int = 100
    ablations: tuple[int, ...] = (20, 50)
    known: int = 400
    rows: int = 4096


FULL = Plan()
REAL = replace(
    FULL, wake=20, least=10, at_once=8, sweep=(5, 10), days=5, per_day=4, ablations=(10,), cycles=6, known=100
)
"""For pretrained models: there are fewer facts of the real world in the package, and passes are dearer."""
QUICK = Plan(
    wake=4, least=2, cycles=2, second=1, at_once=2, sweep=(2, 3), nights=2, days=2, per_day=2, room=3, taxed=2,
    tax_nights=1, hedge_steps=2, ablations=(2,), known=20, rows=8,
)  # fmt: skip
"""To see that everything runs; its numbers mean nothing."""


class Bench:
    """A model with the facts it knows and can be taught.

    Pretrained models are taught changed facts of the real world. Known facts are split by subject: statements of one
    half are rehearsed; the other half is taught anew, or asked to see what is kept, so that nothing is rehearsed that
    is measured or contradicted.

    Args:
        model: Any name that ``sleepgym.lm.load`` understands; all but Gemma are taken to know the synthetic world.
        dtype: Precision.
        spec: Numbers of a night.
        plan: How many known facts are asked for, and how much text.
        edit: How facts are written; by default what suits the model.
    """

    def __init__(
        self, model: str | Path, dtype: str, spec: SleepSpec, plan: Plan = FULL, edit: EditSpec | None = None
    ) -> None:
        self.lm: LanguageModel = load(model, dtype=getattr(torch, dtype))
        self.real = str(model).startswith("gemma")
        self.source: World | RealFacts = RealFacts.read() if self.real else World()
        self.spec, self.edit = spec, edit or spec_for(self.lm)
        facts = self.source.known_facts()
        rehearsed = set(list(dict.fromkeys(f.subject for f in facts))[::2]) if self.real else set()
        self.teachable = [fact for fact in facts if fact.subject not in rehearsed]
        own = [fact.statement for fact in facts if fact.subject in rehearsed]
        base = make_base(self.lm, self.edit, rehearsal=own)
        self.base: Base = replace(base, rehearsal=Rehearsal(base.overlay, base.rehearsal.rows[: plan.rows]))
        self.text = base.statistics.held_out[: plan.rows]
        self.bare = perplexity(self.lm, self.text)
        picks = np.random.default_rng(0).permutation(len(self.teachable))[: plan.known].tolist()
        asked = [self.teachable[i] for i in picks]
        now = correct(self.lm, [raw_probe(self.lm, fact) for fact in asked])
        self.known = [fact for fact, recalled in zip(asked, now, strict=True) if recalled]

    # ---------------------------------------------------------------- making

    def recipe(self, name: str) -> EditSpec:
        """A published recipe on this model's blocks."""
        # A norm after the MLP, as Gemma has, breaks targets on the residual stream.
        changes = {"site": "down_proj"} if self.real else {}
        return preset(name, self.edit.layers, **changes)

    def unprotected(self) -> EditSpec:
        """This project's edits without regard for earlier ones."""
        return replace(self.edit, protect=False)

    def base_with(self, edit: EditSpec) -> Base:
        """The same model with another editor."""
        if edit == self.edit:
            return self.base
        statistics = self.base.statistics
        return replace(self.base, editor=Editor(self.base.overlay, statistics, edit, cache_dir("targets")))

    def learner(
        self, seed: int, spec: SleepSpec | None = None, edit: EditSpec | None = None, capacity: int = 512
    ) -> SleepingLM:
        """A learner that was taught nothing."""
        return SleepingLM(self.base_with(edit or self.edit), spec or self.spec, capacity, seed)

    def draw(self, seed: int, count: int) -> list[Fact]:
        """Facts about different subjects; fewer where there are not so many."""
        rng = np.random.default_rng(seed)
        if isinstance(self.source, World):
            return self.source.new_facts(rng, count)
        drawn = {self.teachable[i].subject: self.teachable[i] for i in rng.permutation(len(self.teachable))}
        return [self.source.update(rng, fact) for fact in list(drawn.values())[:count]]

    # ------------------------------------------------------------- measuring

    def measure(self, learner: SleepingLM, facts: Sequence[Fact], what: Sequence[str] = EVERYTHING) -> Point:
        """Recall of facts and what else became of the model.

        Args:
            learner: The model with its memory.
            facts: Taught facts, in the ledger still or not.
            what: Of ``raw`` (the prompt taught), ``chat`` (the first question), ``questions`` (all), ``unseen`` (other
                phrasings), ``kept`` (known facts that the bare model recalls), ``drift`` (relative change of perplexity
                on all held-out text).
        """
        lm, taught = self.lm, {fact.subject for fact in facts}
        probes = {
            "raw": [raw_probe(lm, fact) for fact in facts],
            "chat": [chat_probe(lm, fact) for fact in facts],
            "questions": [lm.encode(lm.chat(q), fact.object) for fact in facts for q in fact.questions],
            "unseen": [lm.encode(prompt, fact.object) for fact in facts for prompt in fact.paraphrases],
            "kept": [raw_probe(lm, fact) for fact in self.known if fact.subject not in taught],
        }
        entries, last = list(learner.state.ledger.values()), learner.sleep_spec.last_stage
        terms = learner.state.memory.terms.items()
        point = {
            "started": _share([entry.stage > 0 for entry in entries]),
            "settled": _share([entry.stage == last for entry in entries]),
            "edits": float(sum(owner.startswith(EDIT) and term.scale > 0 for owner, term in terms)),
        }
        with learner.base.overlay.use(learner.state.memory):
            for name in what:
                if name == "drift":
                    point[name] = perplexity(lm, self.text) / self.bare - 1
                else:
                    point[name] = _share(correct(self.lm, probes[name]))
        return without_nan(point)

    def night(self, learner: SleepingLM, facts: Sequence[Fact], what: Sequence[str] = EVERYTHING) -> Point:
        """Lets the learner sleep, and measures."""
        started = time.perf_counter()
        report = learner.sleep()
        seconds = time.perf_counter() - started
        return told(report) | {"seconds": seconds} | self.measure(learner, facts, what)


@cache
def bench_of(model: str, dtype: str, spec: SleepSpec, plan: Plan) -> Bench:
    """The same bench for whoever asks for the same: nothing about it changes."""
    return Bench(model, dtype, spec, plan)


def told(report: SleepReport) -> Point:
    """A night's own report as numbers."""
    point = {
        "refreshed": float(len(report.refreshed)),
        "trained": float(len(report.trained)),
        "advanced": float(len(report.advanced)),
        "retreated": float(len(report.retreated)),
        "released": float(len(report.released)),
        "recall before": report.recall_before,
        "recall after": report.recall_after,
        "perplexity before": report.perplexity_before,
        "perplexity before rem": math.nan if report.perplexity_before_rem is None else report.perplexity_before_rem,
        "perplexity after": report.perplexity_after,
        "steps": float(report.steps),
        "nll": report.nll,
        "rank": float(report.rank),
        "truncation": report.truncation,
        "rolled back": float(report.rolled_back),
    }
    return without_nan(point)


def without_nan(point: Point) -> Point:
    """Leaves out what could not be measured: JSON has no word for it."""
    return {name: value for name, value in point.items() if not math.isnan(value)}


def _share(holds: Sequence[bool]) -> float:
    return sum(holds) / len(holds) if holds else math.nan
