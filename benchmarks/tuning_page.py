"""Puts the tables of agents/tune.py into docs/environments/tuning.md.

    python benchmarks/tuning_page.py

A record with whole episodes gives all tables. Older ones hold scores only: of these, the comparison in pairs is made
anew, and the score columns of the tables that stand on the page can be checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.common import markdown, records
from benchmarks.common.records import Record
from sleepgym.evaluation import (
    Column,
    EpisodeResult,
    ScoreMatrix,
    Sheet,
    compare,
    comparison_sheet,
    episodes_sheet,
    statistics,
    stratified_bootstrap,
)


@dataclass
class Args:
    record: Path = Path("docs/environments/tuning.json")
    """JSON that agents/tune.py wrote"""
    page: Path = Path("docs/environments/tuning.md")
    """Markdown with the markers"""


def sheets(record: Record) -> tuple[Sheet | None, list[Sheet]]:
    """Winners in pairs, where there are several, and a table for every scheduler and round.

    Intervals are drawn in the order in which agents/tune.py draws them, so that they are the same.
    """
    rng, tables = np.random.default_rng(record["seed"]), []
    scores = {row["scheduler"]: matrix(row["scheduler"], row["scores"]) for row in record["rows"]}
    found: dict[str, dict[str, ScoreMatrix]] = {}
    for name, one in scores.items():
        found.setdefault(name.partition(":")[0], {})[name] = one
    episodes = {row["scheduler"]: row["episodes"] for row in record["rows"] if "episodes" in row}
    for scheduler, played in found.items():
        for count in sorted({len(one.streams) for one in played.values()}, reverse=True):
            some = {name: one for name, one in played.items() if len(one.streams) == count}
            title = f"{scheduler}: {len(some)} combinations on {count} streams"
            if some.keys() <= episodes.keys():
                whole = {name: [EpisodeResult(**episode) for episode in episodes[name]] for name in some}
                tables.append(episodes_sheet(whole, rng, title))
            else:
                tables.append(scores_sheet(some, rng, title))
    champions = [max(of.values(), key=lambda one: (len(one.streams), one.scores.mean())) for of in found.values()]
    if len(champions) < 2:
        return None, tables
    best = max(champions, key=lambda one: one.scores.mean())
    beside = {one.name: compare(one, best, rng) for one in champions if one is not best}
    return comparison_sheet(beside, best.name, "The best of each scheduler, in pairs"), tables


def matrix(name: str, scores: list[float]) -> ScoreMatrix:
    """Scores on streams that are numbered from 0 on."""
    return ScoreMatrix(name, tuple(range(len(scores))), np.array([scores]))


def scores_sheet(scores: Mapping[str, ScoreMatrix], rng: np.random.Generator, title: str) -> Sheet:
    """Combinations by mean score with its interval, as the first columns of whole episodes' tables."""
    means = {name: stratified_bootstrap(statistics.mean, one, rng=rng) for name, one in scores.items()}
    best_first = sorted(means.items(), key=lambda item: -item[1].point)
    return Sheet(title, (Column("scheduler", "scheduler"), Column("score", "score", ".2f")), best_first)


def sim_sheet(name: str, sim_scores: Mapping[str, float], record: Record) -> Sheet:
    """Combinations of a scheduler by simulated score."""
    title = f"{name}, in the sim: {len(sim_scores)} combinations on {record['sim_streams']} simulated streams"
    columns = (Column("scheduler", "scheduler"), Column("sim_score", "sim score", ".3f"))
    rows = sorted(sim_scores.items(), key=lambda item: -item[1])
    return Sheet(title, columns, rows)


def contents(record: Record) -> dict[str, str]:
    """Blocks of the page that the record has data for."""
    pairs, tables = sheets(record)
    blocks = {} if pairs is None else {"pairs": pairs.markdown()}
    if "sim_scores" in record:
        blocks["sim"] = "\n".join(sim_sheet(name, of, record).markdown() for name, of in record["sim_scores"].items())
    if all("episodes" in row for row in record["rows"]):
        blocks["rounds"] = "\n".join(sheet.markdown() for sheet in tables)
    return blocks


def main(args: Args) -> None:
    markdown.write(args.page, contents(records.read(args.record)), "Tuning", "benchmarks/tuning_page.py")


if __name__ == "__main__":
    main(tyro.cli(Args))
