"""Tables of docs/real_model.md, from the records of benchmarks/keeping.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import markdown, records
from benchmarks.common.intervals import wilson

TAUGHT = {"raw": "as taught", "chat": "in chat", "unseen": "unseen phrasings"}
"""Columns about taught facts, which are others in each draw."""

KEPT = {"kept, same": "kept, same relation", "kept, other": "kept, others", "kept, all": "kept, all"}
"""Columns about known facts, of which nearly the same are asked in each draw."""

HEAD = ("", "", *TAUGHT.values(), *KEPT.values(), "perplexity", "CPU seconds")

Points = Sequence[dict[str, Any]]
"""One moment in each draw."""


def contents(folder: Path) -> markdown.Blocks:
    """Tables of the page: one per number of facts and kind of draw, of which what keeps least comes first."""
    found = [records.read(path) for path in sorted(folder.glob("*.json"))]
    blocks = {}
    for taught, facts in sorted({(each["taught"], each["facts"]) for each in found}):
        group = [each for each in found if (each["taught"], each["facts"]) == (taught, facts)]
        group.sort(key=lambda each: float(np.mean([run["points"][-1]["kept, all"][0] for run in each["runs"]])))
        rows = [row for each in group for row in rows_of(each)]
        about = "\n".join(f"- {each['name']}: {circumstances(each)}" for each in group)
        blocks[f"{taught} {facts}"] = f"{markdown.table(HEAD, rows)}\n\n{ceiling(group)}\n\n{about}"
    return blocks


def rows_of(record: records.Record) -> list[list[str]]:
    """Rows of one variant: after writing, and after each night."""
    runs = [run["points"] for run in record["runs"]]
    rows = []
    for at in range(1, len(runs[0])):
        points = [points[at] for points in runs]
        drift = [point["drift"] for point in points]
        rows.append(
            [
                record["name"] if at == 1 else "",
                points[0]["when"],
                *(pooled(points, name) for name in TAUGHT),
                *(averaged(points, name) for name in KEPT),
                f"{np.mean(drift):+.1%} ({min(drift):+.1%} to {max(drift):+.1%})",
                f"{np.mean([point['seconds'] for point in points]):.0f}" if "seconds" in points[0] else "-",
            ]
        )
    return rows


def pooled(points: Points, name: str) -> str:
    """Share over all draws with its interval."""
    hits, count = (sum(point[name][i] for point in points) for i in (0, 1))
    return shown(hits / count, hits, count) if count else "-"


def averaged(points: Points, name: str) -> str:
    """Mean of the draws' shares, with the interval of as many trials as a single draw has."""
    count = points[0][name][1]
    share = float(np.mean([point[name][0] / point[name][1] for point in points]))
    return shown(share, round(share * count), count)


def shown(share: float, hits: int, count: int) -> str:
    """A share with its 95 % interval."""
    low, high = wilson(hits, count)
    return f"{share:.3f} [{low:.2f}, {high:.2f}]"


def ceiling(group: Sequence[records.Record]) -> str:
    """What the bare model recalls of what it knows in the unseen phrasings of the same relations, if there are any."""
    hits, count = group[0]["runs"][0]["points"][0]["unseen, of known"]
    known, reported = group[0]["known"], group[0]["reported"]
    asked = (
        f"The bare model completes {known} prompts rightly. {reported} of them are never rehearsed, and asked again "
        "but for those about what is taught."
    )
    if not count:
        return asked
    low, high = wilson(hits, count)
    return (
        f"{asked} In the unseen phrasings of the first draw's relations it recalls "
        f"{hits / count:.2f} [{low:.2f}, {high:.2f}] of the {count} things it knows itself."
    )


def circumstances(record: records.Record) -> str:
    """Draws, machine and command of a record."""
    return f"{len(record['runs'])} draws; {record['machine']}; `{record['command']}`"
