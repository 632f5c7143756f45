"""Tunes the fields of hand-written schedulers by grid search on streams of the training split.

Grid search in two rounds (successive halving, Jamieson and Talwalkar 2016, with one halving): each combination is
evaluated on a few streams, the best ones of each scheduler on further streams, and the best mean score over all of
these is chosen. The choice is to be confirmed on other streams (agents/evaluate.py --split validation), since the
maximum over many combinations is biased upwards.

With --fit, the first round is played in the sim, where streams are cheap, and only the second on the real model.
"""

from __future__ import annotations

import itertools
import json
import platform
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, track

from sleepgym import __version__
from sleepgym.evaluation import (
    EpisodeResult,
    ScoreMatrix,
    Sheet,
    chunks,
    compare,
    comparison_sheet,
    episodes_sheet,
    evaluate,
    in_processes,
    simulate,
)
from sleepgym.evaluation.search import search_rule
from sleepgym.leaderboard.players import player_named
from sleepgym.schedulers import scheduler_named
from sleepgym.schedulers.named import RULES, written
from sleepgym.sim.maker import setting_and_response
from sleepgym.training import EnvSpec

MACHINE = f"{platform.machine()}, torch {torch.__version__}"

# Values by scheduler and field; units are those of the schedulers' docstrings.
GRIDS: Mapping[str, Mapping[str, Sequence[float | str | None]]] = {
    "night-owl": {"traffic_at": [0.2, 0.3, 0.4], "load_at": [0.25, 0.35, 0.45, 0.55], "anyway_at": [0.8, 1.2, 2.0]},
    "pressure-rule": {
        "nap_at": [0.3, 2.0],
        "sleep_at": [0.75, 0.9, 1.05, 1.2],
        "night_relief": [0.0, 0.15, 0.3, 0.45, 0.6],
    },
    "budget-aware": {
        "traffic_at": [0.2, 0.4],
        "load_at": [0.25, 0.4, 0.55],
        "nap_days": [0.5, 1.0, 2.0],
        "reserve": [0.5, 0.8, 1.1],
    },
    "drowsiness": {"degraded_at": [0.2, 0.3, 0.5, 0.7], "nap_days": [0.5, 1.0, 2.0]},
    "rounds": {
        "nap_days": [0.5, 1.0, 2.0],
        "nap_traffic": [0.3, 1.0],
        "reserve": [0.3, 0.8],
        "traffic_at": [0.3, 0.45],
        "load_at": [0.25, 0.4, 0.55],
    },
    "mender": {
        "unseen_at": [0.15, 0.3, 0.5],
        "degraded_at": [0.15, 0.3, 0.5],
        "fill_at": [0.6, 0.8],
        "traffic_at": [0.3, 0.45],
        "reserve": [0.3, 0.8],
    },
    "fixed-period": {"days": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]},
    "never-sleep": {"nap_days": [None, 0.25, 0.5, 1.0, 2.0]},
    "look-ahead": {"depth": [16, 64], "width": [2, 4], "every": [1, 2], "rule": ["night-owl"]},
}
SEARCHED = "caretaker"
"""Scheduler with too many fields for a grid, which is searched for in the sim."""


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """id of the environment"""
    card: str = ""
    """path of a card that replaces the environment's own"""
    schedulers: tuple[str, ...] = field(default_factory=lambda: tuple(name for name in GRIDS if name in RULES))
    """schedulers to tune: night-owl, pressure-rule, budget-aware, drowsiness, rounds, mender, fixed-period,
    never-sleep, look-ahead, and with a fit caretaker; look-ahead takes hours and is not a default"""
    fit: Path | None = None
    """file of a fit to the card, as `sleepgym fit-sim` makes it: the first round is simulated then"""
    sim_streams: int = 64
    """number of simulated streams per combination in the first round, with a fit"""
    episodes: int = 4
    """number of streams per combination in the first round"""
    finalists: int = 4
    """number of combinations per scheduler in the second round"""
    final_episodes: int = 12
    """number of further streams per combination in the second round"""
    seed: int = 0
    """seed of the first stream; the others follow it"""
    slots: int = 16
    """maximum number of parallel episodes per process"""
    processes: int = 1
    """number of processes, each with an equal share of the cores"""
    out: Path = Path("runs/tune.json")
    """JSON file of the results; a Markdown page of tables is written beside it"""

    @property
    def rounds(self) -> tuple[range, range]:
        """Seeds of the first round, and of the second round's further streams."""
        first = range(self.seed, self.seed + self.episodes)
        return first, range(first.stop, first.stop + self.final_episodes)


Played = dict[str, list[EpisodeResult]]
"""Results by combination."""


def combinations(name: str) -> list[str]:
    """Returns all combinations of a grid in text form, as night-owl:traffic_at=0.15,load_at=0.05,anyway_at=0.3."""
    grid = GRIDS[name]
    texts = [[f"{field}={'none' if value is None else value}" for value in grid[field]] for field in grid]
    return [f"{name}:{','.join(values)}" for values in itertools.product(*texts)]


def ranked(played: Played) -> list[str]:
    """Sorts combinations by number of streams, then by mean score, both descending."""
    return sorted(played, key=lambda text: (len(played[text]), mean_score(played[text])), reverse=True)


def finalists(played: Played) -> list[str]:
    """Sorts combinations by mean score, without those whose scores equal an earlier one's on every stream."""
    return unlike({text: tuple(episode.score for episode in played[text]) for text in ranked(played)})


def distinct(scores: Mapping[str, float]) -> list[str]:
    """Sorts combinations by simulated score, without those that score as an earlier one: they do the same there."""
    return unlike({text: scores[text] for text in sorted(scores, key=lambda text: -scores[text])})


def unlike(scored: Mapping[str, Hashable]) -> list[str]:
    """Combinations in their order, without those that score as an earlier one."""
    first: dict[Hashable, str] = {}
    for text, scores in scored.items():
        first.setdefault(scores, text)
    return list(first.values())


def mean_score(episodes: Sequence[EpisodeResult]) -> float:
    return float(np.mean([episode.score for episode in episodes]))


class Job(NamedTuple):
    """Combination with streams to evaluate it on."""

    spec: EnvSpec
    scheduler: str
    seeds: Sequence[int]


def jobs(args: Args, schedulers: Sequence[str], seeds: range) -> list[Job]:
    """Divides the work into jobs of as many streams as there are slots, so that processes end at similar times."""
    spec = EnvSpec(args.env_id, args.card)
    return [Job(spec, text, lot) for text in schedulers for lot in chunks(seeds, args.slots)]


def play(job: Job) -> tuple[str, list[EpisodeResult]]:
    start = time.perf_counter()
    player = player_named(job.scheduler, job.spec.make("train"))
    episodes = evaluate(lambda: player.wrap(job.spec.make("train")), player.scheduler, job.seeds, len(job.seeds))
    # Includes the time of the scheduler, which is most of it for look-ahead.
    share = (time.perf_counter() - start) / len(episodes)
    return job.scheduler, [replace(episode, seconds=share) for episode in episodes]


def main(args: Args) -> None:
    known = [*GRIDS, SEARCHED] if args.fit else list(GRIDS)
    if unknown := sorted(set(args.schedulers) - set(known)):
        raise SystemExit(f"expected schedulers out of {', '.join(known)}, found {', '.join(unknown)}")
    console = Console()
    found: dict[str, Played]
    if args.fit is not None:
        sim_scores = simulated_round(args, console)
        first = {name: distinct(of)[: args.finalists] for name, of in sim_scores.items()}
        found = {name: {text: [] for text in texts} for name, texts in first.items()}
        selected = [text for texts in first.values() for text in texts]
        play_round(args, found, jobs(args, selected, args.rounds[1]), console)
        write(args, found, sim_scores)
    else:
        found = {name: {text: [] for text in combinations(name)} for name in args.schedulers}
        for number, seeds in enumerate(args.rounds):
            # The second round evaluates the best combinations of the first on new streams.
            chosen = [finalists(played)[: args.finalists] if number else list(played) for played in found.values()]
            play_round(args, found, jobs(args, [text for names in chosen for text in names], seeds), console)

    tables = sheets(args, found)
    args.out.with_suffix(".md").write_text(page(args, tables), encoding="utf-8")
    for sheet in tables:
        console.print(sheet.rich())
    for name, played in found.items():
        best = ranked(played)[0]
        console.print(f"best {name}: {mean_score(played[best]):.3f} with {best}", soft_wrap=True, highlight=False)
    console.print(f"results: {args.out}, {args.out.with_suffix('.md')}", soft_wrap=True, highlight=False)


def simulated_round(args: Args, console: Console) -> dict[str, dict[str, float]]:
    """Plays all combinations in the sim; returns the simulated score of each, by scheduler."""
    setting, response = setting_and_response(args.card or args.env_id, args.fit, {})
    seeds, found = range(args.seed, args.seed + args.sim_streams), dict[str, dict[str, float]]()
    for name in track(args.schedulers, "simulating", console=console):
        if name == SEARCHED:
            best = search_rule(setting, response, np.random.default_rng(args.seed))
            found[name] = {written(SEARCHED, best.rule): best.sim_score}
            continue
        found[name] = {}
        for text in combinations(name):
            results = simulate(setting, response, scheduler_named(text), seeds)
            found[name][text] = float(np.mean([episode.score for episode in results]))
    return found


def play_round(args: Args, found: Mapping[str, Played], work: Sequence[Job], console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("episodes", total=sum(len(job.seeds) for job in work))
        for text, episodes in in_processes(play, work, args.processes):
            found[text.partition(":")[0]][text] += episodes
            progress.update(task, advance=len(episodes), description=text)
            # After each job, so that an interrupted sweep keeps its results.
            write(args, found)


def sheets(args: Args, found: Mapping[str, Played]) -> list[Sheet]:
    """Makes the tables: paired differences of the best combinations, then one table per scheduler and round."""
    rng, tables = np.random.default_rng(args.seed), []
    for name, played in found.items():
        for count in sorted({len(episodes) for episodes in played.values()}, reverse=True):
            some = {text: episodes for text, episodes in played.items() if len(episodes) == count}
            title = f"{name}: {len(some)} combinations on {count} streams"
            tables.append(episodes_sheet(some, rng, title))
    champions = {text: played[text] for played in found.values() for text in ranked(played)[:1]}
    if len(champions) < 2:
        return tables
    scores = {text: ScoreMatrix.from_results(text, [episodes]) for text, episodes in champions.items()}
    best = max(scores, key=lambda text: mean_score(champions[text]))
    comparisons = {text: compare(matrix, scores[best], rng) for text, matrix in scores.items() if text != best}
    return [comparison_sheet(comparisons, best, "The best of each scheduler, in pairs"), *tables]


PAGE = """# Hand-written schedulers, tuned on `{env_id}`

Written by `{command}`: {machine}. Streams of the split `train`, seeds: {first}; those of the best {finalists} of each
scheduler, besides: {further}.

{tables}"""


def page(args: Args, tables: Sequence[Sheet]) -> str:
    first, further = (f"{seeds.start} to {seeds.stop - 1}" if seeds else "none" for seeds in args.rounds)
    if args.fit is not None:
        first = f"{args.sim_streams} simulated ones"
    return PAGE.format(
        env_id=args.env_id,
        command=command(args),
        machine=MACHINE,
        first=first,
        further=further,
        finalists=args.finalists,
        tables="\n".join(sheet.markdown() for sheet in tables),
    )


def command(args: Args) -> str:
    """Returns the command line that repeats a sweep."""
    parts, usual = ["sleepgym tune"], vars(Args())
    for name, value in vars(args).items():
        if value != usual[name]:
            values = value if isinstance(value, tuple) else [value]
            parts.append(f"--{name.replace('_', '-')} {' '.join(map(str, values))}")
    return " ".join(parts)


def write(args: Args, found: Mapping[str, Played], sim_scores: Mapping[str, Mapping[str, float]] | None = None) -> None:
    """Writes the results so far, by combination and in the order of the streams."""
    settings = {name: getattr(args, name) for name in ("env_id", "card", "seed", "episodes", "final_episodes")}
    played = {text: episodes for of in found.values() for text, episodes in of.items() if episodes}
    rows = [
        {"scheduler": text, "scores": [episode.score for episode in of], "episodes": [asdict(each) for each in of]}
        for text, of in played.items()
    ]
    provenance = {"split": "train", "machine": MACHINE, "version": __version__, "command": command(args)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    simulated = {} if sim_scores is None else {"sim_streams": args.sim_streams, "sim_scores": sim_scores}
    args.out.write_text(json.dumps(settings | provenance | simulated | {"rows": rows}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))
