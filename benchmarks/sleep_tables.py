"""What benchmarks/sleep.py found beside what the "Sleeping LLM" papers report, as rows of text.

Reference figures are the papers' own, for Llama 3.1 8B unless noted; goals are this project's. Everything else comes
from the record of a run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from benchmarks.common.records import Record

Points = Sequence[dict[str, float]]
REFERENCE = "reference (Sleeping LLM papers, Llama 3.1 8B unless noted)"

TITLES = {
    "capacity": "Wake capacity: facts injected one by one, no sleep",
    "convergence": "Convergence: nights until a worn-out model has recovered",
    "second-wave": "Second wave: more facts after recovery",
    "sweep": "Consolidation: facts injected at once, then nights",
    "lifetime": "A life: facts by day, one night a day",
    "life": "A life through a small ledger: settled facts are pruned",
    "over-capacity": "Over capacity: more facts than a night trains",
    "alignment-tax": "Alignment tax: teaching a model that hedges",
    "ablations": "Ablations of a night",
}
WIDE = ("alignment-tax", "ablations")
"""Experiments with more variants than figures: a row per variant."""


@dataclass(frozen=True)
class Line:
    """One figure: what it is, what the papers report, what is aimed for, and how it is read off a run.

    ``first`` is the style of an event that may never happen.
    """

    what: str
    pick: Callable[[Points], float | None]
    style: Literal["share", "change", "number", "first"] = "share"
    reference: str = "-"
    goal: str = "-"


def last(key: str) -> Callable[[Points], float | None]:
    """A figure at the end."""
    return lambda points: points[-1].get(key)


def at(index: int, key: str) -> Callable[[Points], float | None]:
    """A figure at one of the points."""
    return lambda points: points[index].get(key) if index < len(points) else None


def over(key: str, how: Callable[[list[float]], float]) -> Callable[[Points], float | None]:
    """A figure over all points that have it."""

    def pick(points: Points) -> float | None:
        values = [point[key] for point in points if key in point]
        return how(values) if values else None

    return pick


def with_facts(count: int, key: str) -> Callable[[Points], float | None]:
    """A figure once so many facts were taught."""
    return lambda points: next((point.get(key) for point in points if point["facts"] == count), None)


def falls_below(level: float) -> Callable[[Points], float | None]:
    """Facts at which raw recall is first below a level."""
    return lambda points: next((point["facts"] for point in points if point["raw"] < level), None)


def cycles_needed(points: Points) -> float | None:
    """The night after which recall was complete and stayed so; 0 if it was before the first one."""
    if points[0]["raw"] == 1 and all(point["recall after"] == 1 for point in points[1:]):
        return 0
    needed = None
    for point in points[1:]:
        whole = point["recall after"] == 1
        needed = (needed or point["cycle"]) if whole else None
    return needed


def largest_fall(key: str) -> Callable[[Points], float]:
    """The largest fall of a figure from one point to the next; 0 if it never falls."""
    return lambda points: max([0.0, *(a[key] - b[key] for a, b in pairwise(points))])


def rem_drift(when: str) -> Callable[[Points], float | None]:
    """Drift on the first night, before or after REM."""

    def pick(points: Points) -> float | None:
        found = [p[f"perplexity {when} rem"] / p["bare"] - 1 for p in points if f"perplexity {when} rem" in p]
        # Nights without REM have nothing before it.
        return found[0] if found and any("perplexity before rem" in p for p in points) else None

    return pick


def removed_by_rem(points: Points) -> float | None:
    """Share of the first night's drift that REM removed; none if there was no drift."""
    before, after = rem_drift("before")(points), rem_drift("after")(points)
    return None if before is None or after is None or before <= 0 else 1 - after / before


_END = (
    Line("recall, raw", last("raw")),
    Line("recall, in chat", last("chat"), goal="1.00"),
    Line("recall, unseen phrasings", last("unseen")),
    Line("known facts kept", last("kept"), goal=">= 0.97"),
    Line("perplexity", last("drift"), "change", goal="<= +3 %"),
)

LINES: dict[str, tuple[Line, ...]] = {
    "capacity": (
        Line("recall after 13 facts", with_facts(13, "raw"), reference="0.92"),
        Line("recall after 14 facts", with_facts(14, "raw"), reference="0.57"),
        Line("facts when recall is first below 0.9", falls_below(0.9), "first", reference="14"),
        Line("facts when recall is first below 0.5", falls_below(0.5), "first", reference="-"),
        Line("recall at the end", last("raw")),
        Line("recall at the end, in chat", last("chat")),
        Line("facts at the end", last("facts"), "number"),
    ),
    "convergence": (
        Line("facts", at(0, "facts"), "number", reference="30"),
        Line("recall before the first night", at(0, "raw"), reference="0.40"),
        Line("nights until recall is 1.00", cycles_needed, "first", reference="4", goal="<= 2"),
        Line("recall after the first night", at(1, "recall after")),
        Line("facts refreshed in all", over("refreshed", sum), "number"),
        *_END,
        Line("seconds per night", over("seconds", statistics.mean), "number"),
    ),
    "second-wave": (
        Line("facts, old and new", at(0, "facts"), "number"),
        Line("recall before the first night", at(0, "raw")),
        Line("nights until recall is 1.00", cycles_needed, "first", goal="<= 2"),
        Line("recall after the first night", at(1, "recall after")),
        *_END,
    ),
    "sweep": (
        Line("advanced in the first night", at(1, "started"), reference="1.00", goal="1.00"),
        Line("at the last stage in the end", last("settled"), reference="0 to 0.80", goal=">= 0.95"),
        Line("recall, in chat", last("chat"), reference="1.00", goal="1.00"),
        Line("recall, in chat, every question", last("questions")),
        Line("recall, raw", last("raw")),
        Line("recall, unseen phrasings", last("unseen")),
        Line("known facts kept", last("kept"), goal=">= 0.97"),
        Line("perplexity", last("drift"), "change", reference="+44 to +63 %", goal="<= +3 %"),
        Line("steps of the first night", at(1, "steps"), "number"),
        Line("seconds per night", over("seconds", statistics.mean), "number"),
    ),
    "lifetime": (
        Line("facts", last("facts"), "number"),
        Line("recall at the end, raw", last("raw"), goal=">= 0.95"),
        Line("recall at the end, in chat", last("chat"), goal=">= 0.95"),
        Line("lowest recall of a day, raw", over("raw", min)),
        Line("lowest recall of a day, in chat", over("chat", min)),
        Line("edits active, most", over("edits", max), "number", goal="bounded"),
        Line("edits active, at the end", last("edits"), "number"),
        Line("known facts kept", last("kept")),
        Line("perplexity", last("drift"), "change", goal="<= +10 %"),
        Line("rank of the adapter", last("rank"), "number", goal="bounded"),
        Line("seconds of the first night", at(0, "seconds"), "number"),
        Line("seconds of the longest night", over("seconds", max), "number", goal="bounded"),
        Line("nights undone", over("rolled back", sum), "number", goal="0"),
    ),
    "life": (
        Line("facts", last("facts"), "number"),
        Line("in the ledger at the end", last("ledger"), "number"),
        Line("recall at the end, raw", last("raw"), goal=">= 0.95"),
        Line("recall at the end, in chat", last("chat"), goal=">= 0.95"),
        Line("lowest recall of a day, raw", over("raw", min)),
        Line("lowest recall of a day, in chat", over("chat", min)),
        Line("known facts kept", last("kept"), goal=">= 0.95"),
        Line("perplexity", last("drift"), "change", goal="<= +5 %"),
        Line("seconds per night", over("seconds", statistics.mean), "number"),
        Line("seconds of the longest night", over("seconds", max), "number", goal="bounded"),
        Line("nights undone", over("rolled back", sum), "number", goal="0"),
    ),
    "over-capacity": (
        Line("facts", at(0, "facts"), "number"),
        Line("recall before the first night, raw", at(0, "raw"), reference="0.97"),
        Line("recall after the last night, raw", last("raw"), reference="0.46"),
        Line("recall after the last night, in chat", last("chat")),
        Line("largest fall from night to night, raw", largest_fall("raw"), goal="within noise"),
        Line("largest fall from night to night, in chat", largest_fall("chat"), goal="within noise"),
        Line("at the last stage in the end", last("settled")),
        Line("known facts kept", last("kept")),
        Line("perplexity", last("drift"), "change"),
    ),
    "alignment-tax": (
        Line("hedges on strangers", last("hedged"), goal=">= 0.9 (hedging)"),
        Line("knows in chat", last("known in chat"), goal=">= 0.95"),
        Line("recall, in chat", last("chat"), reference="direct LoRA: 0.47 (3B), 0.37 (8B), 0 (70B)"),
        Line("recall, raw", last("raw")),
        Line("recall in chat before the first night", lambda p: p[0].get("chat") if len(p) > 1 else None),
        Line("recall in chat after one night", at(1, "chat")),
        Line("known facts kept", last("kept")),
        Line("perplexity", last("drift"), "change"),
    ),
    "ablations": (
        Line("recall, in chat", last("chat")),
        Line("recall, raw", last("raw")),
        Line("advanced in the first night", at(1, "started")),
        Line("at the last stage", last("settled")),
        Line("known facts kept", last("kept")),
        Line("perplexity", last("drift"), "change"),
        Line("first night before REM", rem_drift("before"), "change"),
        Line("after REM", rem_drift("after"), "change"),
        Line("share removed by REM", removed_by_rem, reference="0.88 (3B)"),
        Line("seconds per night", over("seconds", statistics.mean), "number"),
    ),
}


def variants_of(record: Record) -> list[str]:
    """Variants in the order in which they were run."""
    return list(dict.fromkeys(run["variant"] for run in record["runs"]))


def runs_of(record: Record, variant: str) -> list[Points]:
    """What each seed measured; without runs that failed."""
    return [run["points"] for run in record["runs"] if run["variant"] == variant and run["points"]]


def cell(record: Record, variant: str, line: Line) -> str:
    """Mean and, where seeds differ, range."""
    found = [line.pick(points) for points in runs_of(record, variant)]
    values = [value for value in found if value is not None]
    if not values:
        return "never" if found and line.style == "first" else "-"
    mean, low, high = statistics.mean(values), min(values), max(values)
    never = len(found) - len(values)
    note = f", never in {never} of {len(found)}" if line.style == "first" and never else ""
    if line.style == "change":
        shown, range_ = f"{100 * mean:+.1f} %", f"{100 * low:+.1f} to {100 * high:+.1f}"
    elif line.style == "share":
        shown, range_ = f"{mean:.2f}", f"{low:.2f}-{high:.2f}"
    else:
        shown, range_ = f"{mean:.3g}", f"{low:.3g}-{high:.3g}"
    return shown + (f" ({range_})" if high > low else "") + note


def table(record: Record) -> list[list[str]]:
    """Rows of cells, the first one the header."""
    lines, variants = LINES[record["experiment"]], variants_of(record)
    cells = [[cell(record, variant, line) for variant in variants] for line in lines]
    rows = [["", REFERENCE, "goal", *variants]]
    rows += [[line.what, line.reference, line.goal, *found] for line, found in zip(lines, cells, strict=True)]
    return [list(column) for column in zip(*rows, strict=True)] if record["experiment"] in WIDE else rows
