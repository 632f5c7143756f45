"""The experiments of benchmarks/sleep.py: each gives, by variant, a function from a seed to what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.sleep_bench import Bench, Plan, Point, told
from benchmarks.sleep_hedger import alignment_tax
from sleepgym import SleepingLM
from sleepgym.consolidation import night
from sleepgym.consolidation.night import STEPS, Night
from sleepgym.editing import EditError, EditSpec
from sleepgym.editing.base import Progress, silent
from sleepgym.facts import Fact
from sleepgym.lm import perplexity

Run = Callable[[int], list[Point]]
"""From a seed to what was measured, in the order of events."""


def capacity(bench: Bench, plan: Plan) -> dict[str, Run]:
    """How many facts edits hold without sleep: one by one, with recall of all so far after each."""

    def run(edit: EditSpec, seed: int) -> list[Point]:
        learner, facts, points = bench.learner(seed, edit=edit), bench.draw(seed, plan.wake), list[Point]()
        for n, fact in enumerate(facts, start=1):
            try:
                learner.inject([fact])
            except EditError:  # ruined beyond editing: nothing more can be taught
                break
            points.append({"facts": n} | bench.measure(learner, facts[:n], ("raw", "chat")))
        return points

    edits = {
        "sleeping-llm": bench.recipe("sleeping-llm"),
        "sleepgym, unprotected": bench.unprotected(),
        "sleepgym": bench.edit,
    }
    return {name: partial(run, edit) for name, edit in edits.items()}


def convergence(bench: Bench, plan: Plan) -> dict[str, Run]:
    """How many nights bring back a model that was taught until it had forgotten most."""

    def run(edit: EditSpec, seed: int) -> list[Point]:
        learner, facts = _worn_out(bench, plan, seed, edit)
        return _recovery(bench, plan, learner, facts)

    return {name: partial(run, edit) for name, edit in _naive(bench).items()}


def second_wave(bench: Bench, plan: Plan) -> dict[str, Run]:
    """The same again with a few more facts, once it has recovered."""

    def run(edit: EditSpec, seed: int) -> list[Point]:
        learner, facts = _worn_out(bench, plan, seed, edit)
        _recovery(bench, plan, learner, facts)
        learner.base = bench.base_with(edit)
        more = [f for f in bench.draw(seed + 1000, len(facts) + plan.second) if f.subject not in _subjects(facts)]
        for fact in more[: plan.second]:
            learner.inject([fact])
        learner.base = bench.base
        return _recovery(bench, plan, learner, [*facts, *more[: plan.second]])

    return {name: partial(run, edit) for name, edit in _naive(bench).items()}


def sweep(bench: Bench, plan: Plan) -> dict[str, Run]:
    """Facts injected at once, then some nights."""

    def run(count: int, seed: int) -> list[Point]:
        learner, facts = bench.learner(seed), bench.draw(seed, count)
        learner.inject(facts)
        return _nights(bench, learner, facts, plan.nights)

    return {f"{count} facts": partial(run, count) for count in plan.sweep}


def lifetime(bench: Bench, plan: Plan) -> dict[str, Run]:
    """A life of learning by day and sleeping by night; asked about everything it was ever taught."""

    def run(changes: dict[str, Any], prune: bool, seed: int) -> list[Point]:
        learner, facts = bench.learner(seed, replace(bench.spec, **changes)), bench.draw(seed, plan.days * plan.per_day)
        points: list[Point] = []
        for day in range(1, plan.days + 1):
            taught, started = facts[: day * plan.per_day], time.perf_counter()
            for fact in taught[(day - 1) * plan.per_day :]:
                learner.inject([fact])
            awake = time.perf_counter() - started
            point = bench.night(learner, taught, ("raw", "chat", "kept", "drift"))
            points.append({"day": day, "facts": len(taught), "seconds awake": awake} | point)
            if prune:
                learner.prune()
        return points

    return {
        "continued": partial(run, {"adapter": "continued"}, False),
        "fresh": partial(run, {"adapter": "fresh"}, False),
        "pruned": partial(run, {"adapter": "continued"}, True),
    }


def days_through(
    learner: SleepingLM, facts: Sequence[Fact], days: int, per_day: int, room: int
) -> Iterator[tuple[int, int, float]]:
    """Teaches facts day by day; what slow weights hold is pruned where room is needed.

    Args:
        learner: Put to sleep by the caller, after each day.
        facts: Facts in the order in which they arrive.
        days: Number of days; there may be too few facts for all of them.
        per_day: Facts that arrive in a day.
        room: Places of the ledger. What finds no room waits for the next day.

    Yields:
        Number of the day, facts taught so far, and seconds that teaching took.
    """
    taught = 0
    for day in range(1, days + 1):
        started, arrived = time.perf_counter(), day * per_day
        if len(learner.state.ledger) + arrived - taught > room:
            learner.prune()
        today = facts[taught:arrived][: room - len(learner.state.ledger)]
        if today:
            learner.inject(today)
        taught += len(today)
        yield day, taught, time.perf_counter() - started


def life(bench: Bench, plan: Plan) -> dict[str, Run]:
    """A life through a small ledger: what slow weights hold is pruned where room is needed, and must stay known."""

    def run(changes: dict[str, Any], seed: int) -> list[Point]:
        learner = bench.learner(seed, replace(bench.spec, **changes), capacity=plan.room)
        facts, points = bench.draw(seed, plan.days * plan.per_day), list[Point]()
        for day, taught, awake in days_through(learner, facts, plan.days, plan.per_day, plan.room):
            point = bench.night(learner, facts[:taught], ("raw", "chat", "kept", "drift"))
            pruned = {"pruned": float(len(learner.state.settled)), "ledger": float(len(learner.state.ledger))}
            points.append({"day": day, "facts": taught, "seconds awake": awake} | pruned | point)
        return points

    # Where nothing is held, what is not trained fades: every fact of the ledger is trained every night.
    return {"settled": partial(run, {}), "not held": partial(run, {"settled": 0, "spacing": 1})}


def over_capacity(bench: Bench, plan: Plan) -> dict[str, Run]:
    """More facts than a night can train, night after night."""
    spec = replace(bench.spec, facts=plan.at_once)

    def run(edit: EditSpec, seed: int) -> list[Point]:
        learner, facts = bench.learner(seed, spec, edit), bench.draw(seed, plan.wake)
        for fact in facts:
            learner.inject([fact])
        learner.base = bench.base
        return _nights(bench, learner, facts, plan.cycles)

    return {name: partial(run, edit) for name, edit in _naive(bench).items()}


def ablations(bench: Bench, plan: Plan) -> dict[str, Run]:
    """What each part of a night is good for."""
    variants: dict[str, dict[str, Any]] = {
        "default": {},
        "REM": {"rem_steps": 20},
        "gate by night": {"gate": "night"},
        "dissolve 1, 0": {"scales": (1.0, 0.0)},
        "dissolve 1, 0.5, 0": {"scales": (1.0, 0.5, 0.0)},
        "no rehearsal": {"rehearsal_rows": 0},
        "fresh adapter": {"adapter": "fresh"},
    }

    def run(changes: dict[str, Any], count: int, seed: int) -> list[Point]:
        learner, facts = bench.learner(seed, replace(bench.spec, **changes)), bench.draw(seed, count)
        learner.inject(facts)
        points = [_evening(bench, learner, facts)]
        return points + [{"cycle": c} | _watched_night(bench, learner, facts) for c in range(1, plan.nights + 1)]

    return {
        f"{name}, {count} facts": partial(run, changes, count)
        for count in plan.ablations
        for name, changes in variants.items()
    }


EXPERIMENTS: dict[str, Callable[[Bench, Plan], dict[str, Run]]] = {
    "capacity": capacity,
    "convergence": convergence,
    "second-wave": second_wave,
    "sweep": sweep,
    "lifetime": lifetime,
    "life": life,
    "over-capacity": over_capacity,
    "alignment-tax": alignment_tax,
    "ablations": ablations,
}


def _naive(bench: Bench) -> dict[str, EditSpec]:
    """Edits that harm earlier ones. Only the days differ: nights refresh with this project's editor after either."""
    return {"sleepgym, unprotected": bench.unprotected(), "sleeping-llm's edits": bench.recipe("sleeping-llm")}


def _worn_out(bench: Bench, plan: Plan, seed: int, edit: EditSpec) -> tuple[SleepingLM, list[Fact]]:
    """Taught one by one until recall is low; and the facts it was taught."""
    learner, facts, taught = bench.learner(seed, edit=edit), bench.draw(seed, plan.wake), list[Fact]()
    for fact in facts:
        learner.inject([fact])
        taught.append(fact)
        if len(taught) >= plan.least and bench.measure(learner, taught, ("raw",))["raw"] <= plan.low / 100:
            break
    learner.base = bench.base
    return learner, taught


def _recovery(bench: Bench, plan: Plan, learner: SleepingLM, facts: Sequence[Fact]) -> list[Point]:
    """Nights until two in a row have found nothing degraded."""
    points: list[Point] = [_evening(bench, learner, facts)]
    quiet = 0
    while len(points) <= plan.cycles and quiet < 2:
        point = {"cycle": len(points)} | bench.night(learner, facts)
        quiet = quiet + 1 if point["recall before"] == 1 else 0
        points.append(point)
    return points


def _nights(bench: Bench, learner: SleepingLM, facts: Sequence[Fact], nights: int) -> list[Point]:
    """A number of nights, with what was before them."""
    points = [_evening(bench, learner, facts)]
    return points + [{"cycle": cycle} | bench.night(learner, facts) for cycle in range(1, nights + 1)]


def _evening(bench: Bench, learner: SleepingLM, facts: Sequence[Fact]) -> Point:
    return {"cycle": 0, "facts": len(facts)} | bench.measure(learner, facts)


def _watched_night(bench: Bench, learner: SleepingLM, facts: Sequence[Fact]) -> Point:
    """A night that is also measured right after REM, before edits dissolve: what REM alone did."""
    draft, started, seen = learner.state.copy(), time.perf_counter(), Point()
    rows = bench.text[: learner.sleep_spec.validation_rows]

    def look(nights: Sequence[Night], progress: Progress) -> None:
        with bench.base.overlay.use(draft.memory):
            seen["perplexity after rem"] = perplexity(bench.lm, rows)

    under_way = Night(learner.base, learner.sleep_spec, draft)
    after = STEPS.index(night.rem) + 1
    night.sleep([under_way], silent, (*STEPS[:after], look, *STEPS[after:]))
    report = under_way.report()
    if not report.rolled_back:
        learner.state = draft
    seconds = time.perf_counter() - started
    bare = perplexity(bench.lm, rows)
    return told(report) | seen | {"seconds": seconds, "bare": bare} | bench.measure(learner, facts)


def _subjects(facts: Sequence[Fact]) -> set[str]:
    return {fact.subject for fact in facts}
