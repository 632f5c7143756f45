r"""Where should a fact live? Schedulers of the card with notes on validation streams, and what a token may cost.

    python benchmarks/notes.py --out docs/environments/notes.json --page docs/environments/notes.md
    python benchmarks/notes.py --players agents/pretrained/notes/ppo-1.zip --out docs/environments/notes.json

All episodes are played on the real model, all on the same streams, and schedulers are compared in pairs, stream by
stream. Rules do not see what a token costs, and play alike at every price: each episode says how many answers were read
from notes of how many tokens, and so what it would have scored at other prices. Episodes that ``--out`` holds already
are not played again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import sleepgym  # noqa: F401  (registers the environments)
from benchmarks.common import markdown, plots, records
from benchmarks.common.records import Record
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.evaluation import ScoreMatrix, chunks, compare, evaluate, in_processes, statistics, stratified_bootstrap
from sleepgym.leaderboard.players import player_named
from sleepgym.leaderboard.submission import SCORES
from sleepgym.training import PolicyCard

NOTES = "notes only"
WEIGHTS = "weights only"
HYBRID = "both"
TIERS: Mapping[str, tuple[str, ...]] = {
    NOTES: ("notes-only",),
    WEIGHTS: ("caretaker", "night-owl", "pressure-rule:sleep_at=0.9,night_relief=0.3", "never-sleep"),
    HYBRID: ("note-first", "note-first:popular_at=0.2", "popular-first", "popular-first:popular_at=0.3"),
}
"""Hand-written schedulers by the tiers that they use."""
POLICIES = "agents/pretrained/notes"
"""Folder of the policies that ship."""
PRICES = tuple(i / 1000 for i in range(121))
"""Prices of a token in the sweep."""
SHOWN = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12)
"""Prices in the table."""


@dataclass
class Args:
    env_id: str = "SleepLLM-Notes-v0"
    """the environment"""
    streams: int = 50
    """validation streams"""
    seed: int = 1000
    """seed of the first stream; the others follow it"""
    rules: tuple[str, ...] = tuple(rule for rules in TIERS.values() for rule in rules)
    """hand-written schedulers"""
    planner: str = "benchmarks.planner:planner"
    """planner that tries actions in the sim, and knows what is to come; empty for none"""
    planner_streams: int = 20
    """of the streams, on how many the planner plays"""
    players: tuple[str, ...] = ()
    """learned policies"""
    processes: int = 1
    """processes, with an equal share of the cores each"""
    tested: Path | None = None
    """folder that `sleepgym leaderboard --out` wrote, whose scores on test streams join those of the record"""
    out: Path | None = None
    """JSON with every episode; episodes that it holds already are not played again"""
    page: Path | None = None
    """Markdown whose marked tables are replaced; its picture has the same name"""


class Job(NamedTuple):
    """A few episodes of a player."""

    env_id: str
    name: str
    seeds: tuple[int, ...]


def play(job: Job) -> tuple[str, list[Record]]:
    """Plays episodes, and counts of each what prices it and what it took."""
    env = SleepEnv(job.env_id, split="validation")
    player = player_named(job.name, env)
    return job.name, [episode(env, player.wrap(env), player.scheduler, seed) for seed in job.seeds]


def episode(env: SleepEnv, wrapped: gym.Env, scheduler: object, seed: int) -> Record:
    """Plays an episode.

    Args:
        env: The environment.
        wrapped: The same, with the wrappers that the player needs.
        scheduler: Who plays.
        seed: Seed of the stream.
    """
    (result,) = evaluate(lambda: wrapped, scheduler, [seed], slots=1)  # type: ignore[arg-type]
    state, spec = env.episode.state, env.card.notes
    assert spec is not None
    read = state.notes.read
    paid = sum(amount * worth(tokens, spec.look_up_price, spec.token_price) for tokens, amount in read.items())
    return {
        "seed": seed,
        "score": result.score,
        "asked": state.asked,
        "weights": state.answered - paid,
        "read": sorted(read.items()),
        "look_ups": state.notes.looked_up / state.asked,
        "tokens": state.notes.tokens_read / state.asked,
        "notes": len(state.notes.told),
        "edits": result.edits_used,
        "budget": result.budget,
        "nights": result.sleeps,
        "naps": result.naps,
        "drift": result.ppl_ratio - 1,
        "return": result.episode_return,
        "invalid": result.invalid,
        "seconds": result.seconds,
    }


def worth(tokens: float, look_up_price: float, token_price: float) -> float:
    """What a right answer is worth that was read from a note of so many tokens."""
    return max(0.0, 1 - min(1.0, look_up_price + tokens * token_price))


def score_at(episode: Record, look_up_price: float, token_price: float) -> float:
    """Score of an episode at another price of a token, for the same actions."""
    read = sum(amount * worth(tokens, look_up_price, token_price) for tokens, amount in episode["read"])
    return float((episode["weights"] + read) / episode["asked"])


# --------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Played:
    """Episodes of a record.

    Attributes:
        record: The record.
        of: Episodes of each player by seed.
    """

    record: Record
    of: Mapping[str, Mapping[int, Record]]

    @classmethod
    def from_record(cls, record: Record) -> Played:
        """Sorts the episodes of a record."""
        return cls(record, {name: {e["seed"]: e for e in es} for name, es in record["episodes"].items()})

    def scores(self, name: str, price: float | None = None, like: str | None = None) -> ScoreMatrix:
        """Scores of a player.

        Args:
            name: The player.
            price: Price of a token; None for the card's.
            like: Player on whose streams; None for all that it has played.
        """
        seeds = [seed for seed in sorted(self.of[name]) if like is None or seed in self.of[like]]
        at = self.record["token_price"] if price is None else price
        row = [score_at(self.of[name][seed], self.record["look_up_price"], at) for seed in seeds]
        return ScoreMatrix(name, tuple(seeds), np.array([row]))

    def mean(self, name: str, price: float | None = None) -> float:
        """Mean score of a player."""
        return float(self.scores(name, price).scores.mean())

    def best(self, tier: str, price: float | None = None) -> str:
        """The rule of a tier with the highest mean score, of those that have played the most streams."""
        there = [name for name in TIERS[tier] if name in self.of]
        most = max(len(self.of[name]) for name in there)
        return max((name for name in there if len(self.of[name]) == most), key=lambda name: self.mean(name, price))

    @property
    def others(self) -> list[str]:
        """Players that are no rules of a tier: the planner, and policies."""
        return [name for name in self.of if not any(name in rules for rules in TIERS.values())]


def contents(record: Record) -> markdown.Blocks:
    """Blocks of the page."""
    played = Played.from_record(record)
    blocks = {"schedulers": schedulers(played), "tiers": tiers(played), "price": price_table(played)}
    return blocks | {"test streams": test_table(record.get("test", {}), played.best(HYBRID))}


def schedulers(played: Played) -> str:
    """All players by score, with what they take."""
    rng = np.random.default_rng(0)
    tier_of = {rule: tier for tier, rules in TIERS.items() for rule in rules}
    rows = []
    for name in sorted(played.of, key=lambda name: -played.mean(name)):
        scores, episodes = played.scores(name), list(played.of[name].values())
        mean = {key: float(np.mean([e[key] for e in episodes])) for key in ("look_ups", "tokens", "edits", "nights")}
        mean |= {key: float(np.mean([e[key] for e in episodes])) for key in ("naps", "drift")}
        score = stratified_bootstrap(statistics.mean, scores, rng=rng)
        cells = [f"`{name}`", tier_of.get(name, ""), str(len(episodes)), f"{score:.3f}", f"{mean['look_ups']:.2f}"]
        cells += [f"{mean['tokens']:.1f}", f"{mean['edits']:.0f}", f"{mean['nights']:.1f}", f"{mean['naps']:.1f}"]
        rows.append([*cells, f"{mean['drift']:+.1%}"])
    head = ["scheduler", "tiers", "streams", "score [95 %]", "looked up", "tokens per question", "edits", "nights"]
    source = f"{played.record['machine']}; `{played.record['command']}`"
    return f"{markdown.table([*head, 'naps', 'drift'], rows)}\n\n{source}"


def tiers(played: Played) -> str:
    """The best rules of each tier in pairs, and the planner and policies against the best hybrid rule."""
    best = {tier: played.best(tier) for tier in TIERS}
    pairs = [(best[HYBRID], best[NOTES]), (best[HYBRID], best[WEIGHTS]), (best[NOTES], best[WEIGHTS])]
    pairs += [(name, best[HYBRID]) for name in played.others]
    rows = []
    for upper, lower in pairs:
        one, other = played.scores(upper, like=lower), played.scores(lower, like=upper)
        found = compare(one, other, np.random.default_rng(0))
        difference, probability = f"{found.difference:+.3f}", f"{found.probability:.2f}"
        rows.append([f"`{upper}` - `{lower}`", str(len(one.streams)), difference, probability])
    return markdown.table(["pair", "streams", "difference [95 %]", "P(better)"], rows)


def price_table(played: Played) -> str:
    """Best rule of each tier by the price of a token, and where each tier wins."""
    rows = []
    for price in SHOWN:
        best = {tier: played.best(tier, price) for tier in TIERS}
        cells = [f"{played.mean(name, price):.3f}" for name in best.values()]
        pure = max((best[NOTES], best[WEIGHTS]), key=lambda name: played.mean(name, price))
        one, other = played.scores(best[HYBRID], price, pure), played.scores(pure, price, best[HYBRID])
        found = compare(one, other, np.random.default_rng(0)).difference
        rows.append([f"{price:g}", *cells, f"`{best[HYBRID]}`", f"{found:+.3f}"])
    head = [
        "price of a token",
        *(f"{tier}, best" for tier in TIERS),
        "best rule of both",
        "both - better pure one [95 %]",
    ]
    won = "; ".join(f"{tier}: {spans([p for p in PRICES if winner(played, p) == tier])}" for tier in TIERS)
    return f"{markdown.table(head, rows)}\n\nHighest mean, by price (steps of 0.001): {won}."


def test_table(test: Mapping[str, Record], hybrid: str) -> str:
    """Scores on test streams, and differences to a rule of both tiers that was chosen on others.

    Args:
        test: Streams and scores of each player.
        hybrid: The rule.
    """
    if hybrid not in test:
        return "Not measured yet."
    found = {name: ScoreMatrix(name, tuple(one["streams"]), np.array(one["scores"])) for name, one in test.items()}
    rows = []
    for name, one in sorted(found.items(), key=lambda item: -item[1].scores.mean()):
        rng = np.random.default_rng(0)
        cells = [f"`{name}`", str(len(one.streams)), f"{stratified_bootstrap(statistics.mean, one, rng=rng):.3f}"]
        pair = compare(one, found[hybrid], rng)
        rows.append([*cells, *(("", "") if name == hybrid else (f"{pair.difference:+.3f}", f"{pair.probability:.2f}"))])
    return markdown.table(["scheduler", "streams", "score [95 %]", f"minus `{hybrid}`", "P(better)"], rows)


def tested(folder: Path) -> dict[str, Record]:
    """Streams and scores of the entries in a folder of the leaderboard."""
    entries = [ScoreMatrix.load(path) for path in sorted(folder.glob(f"*/{SCORES}"))]
    return {one.name: {"streams": list(one.streams), "scores": one.scores.tolist()} for one in entries}


def winner(played: Played, price: float) -> str:
    """The tier whose best rule has the highest mean score at a price."""
    return max(TIERS, key=lambda tier: played.mean(played.best(tier, price), price))


def spans(prices: Sequence[float]) -> str:
    """Prices of a grid as ranges."""
    if not prices:
        return "nowhere"
    steps = [round(price * 1000) for price in prices]
    starts = [step for step in steps if step - 1 not in steps]
    ends = [step for step in steps if step + 1 not in steps]
    return ", ".join(f"{a / 1000:g} to {b / 1000:g}" for a, b in zip(starts, ends, strict=True))


def policies(record: Record, root: Path) -> markdown.Blocks:
    """Block of the page beside the policies that ship: files with their cards and scores.

    Args:
        record: Episodes of the policies among others, by the names of their files.
        root: Root of the repository.
    """
    played, rows = Played.from_record(record), []
    for path in sorted((root / POLICIES).glob("*.zip")):
        card, digest = PolicyCard.read(path), hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        scores = played.scores(f"{POLICIES}/{path.name}")
        found = stratified_bootstrap(statistics.mean, scores, rng=np.random.default_rng(0))
        cells = [f"`notes/{path.name}`", str(card.seed), f"{card.steps:,}", f"{card.simulated_score:.3f}"]
        rows.append([*cells, f"{found:.3f}", str(len(scores.streams)), digest])
    head = ["file", "seed", "steps", "simulated score", "validation score [95 %]", "streams", "SHA-256"]
    return {"policies with notes": markdown.table(head, rows)}


def picture(record: Record) -> Figure:
    """Score of the best rule of each tier by the price of a token, with 95 % intervals over streams."""
    played = Played.from_record(record)
    figure, (ax,) = plots.panels(1, 1, (8, 4.5))
    for tier, colour, dash in zip(TIERS, plots.COLOURS, plots.DASHES, strict=False):
        bands: list[NDArray[np.float64]] = []
        for price in PRICES[::4]:
            scores = played.scores(played.best(tier, price), price)
            found = stratified_bootstrap(statistics.mean, scores, rng=np.random.default_rng(0), resamples=500)
            bands.append(np.array([found.point, found.low, found.high]))
        point, low, high = np.array(bands).T
        ax.plot(PRICES[::4], point, label=f"{tier}, best rule", color=colour, ls=dash)
        ax.fill_between(PRICES[::4], low, high, color=colour, alpha=0.15, lw=0)
    ax.axvline(record["token_price"], color="0.5", lw=0.8)
    ax.annotate("the card", (record["token_price"], 0.02), xycoords=("data", "axes fraction"), fontsize=8)
    ax.set_xlabel("price of a token of context, as a share of the worth of an answer")
    ax.set_ylabel("score")
    plots.grid(ax)
    ax.legend()
    return figure


def pictures(path: Path) -> dict[Path, Figure]:
    """The picture of a page, from the record beside it."""
    return {path.with_suffix(".png"): picture(records.read(path))}


# ----------------------------------------------------------------------- play


def jobs(args: Args, done: Mapping[str, Sequence[Record]]) -> list[Job]:
    """What is still to be played."""
    wanted = dict.fromkeys((*args.rules, *args.players), args.streams)
    wanted |= {args.planner: args.planner_streams} if args.planner else {}
    found = []
    for name, count in wanted.items():
        played = {episode["seed"] for episode in done.get(name, ())}
        missing = [seed for seed in range(args.seed, args.seed + count) if seed not in played]
        found += [Job(args.env_id, name, tuple(lot)) for lot in chunks(missing, 2)]
    return found


def known(args: Args, expected: Record) -> dict[str, list[Record]]:
    """Episodes that a record holds.

    Raises:
        SystemExit: They are of another card, or of other prices.
    """
    if args.out is None or not args.out.exists():
        return {}
    record = records.read(args.out)
    if found := [key for key in expected if record[key] != expected[key]]:
        raise SystemExit(f"expected episodes of {args.env_id} as it is in {args.out}, found another {found[0]}")
    return dict(record["episodes"])


def before(path: Path | None) -> dict[str, Record]:
    """What a record holds of test streams."""
    return dict(records.read(path).get("test", {})) if path is not None and path.exists() else {}


def played(args: Args, save: Callable[[str, list[Record]], None], waiting: Sequence[Job]) -> None:
    """Plays what is missing, and saves it as it comes."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(width=160)) as progress:
        task = progress.add_task("episodes", total=sum(len(job.seeds) for job in waiting))
        for name, episodes in in_processes(play, waiting, args.processes):
            save(name, episodes)
            progress.update(task, advance=len(episodes), description=name)


def main(args: Args) -> None:
    console, started = Console(width=160), time.perf_counter()
    card = SleepEnv(args.env_id).card
    assert card.notes is not None, f"expected a card with notes, found {args.env_id}"
    what: Record = {"env_id": args.env_id, "card": card.model_dump(mode="json", exclude_none=True)}
    what |= {"token_price": card.notes.token_price, "look_up_price": card.notes.look_up_price}
    episodes = known(args, what)
    test = before(args.out) | (tested(args.tested) if args.tested else {})
    places = {"TESTED": args.tested}
    record = records.circumstances() | {"command": records.command(places=places)} | what
    record |= {"test": test, "episodes": episodes}

    def save(name: str, found: list[Record]) -> None:
        episodes[name] = sorted([*episodes.get(name, []), *found], key=lambda episode: episode["seed"])
        if args.out is not None:
            records.write(args.out, record, indent=None)

    played(args, save, jobs(args, episodes))
    if args.out is not None:
        records.write(args.out, record, indent=None)  # once more: what was there already may be all of it
    console.print(*(Markdown(block) for block in contents(record).values()))
    console.print(f"{time.perf_counter() - started:.0f} s, {record['machine']}")
    if args.page:
        markdown.write(args.page, contents(record), "SleepLLM-Notes", "benchmarks/notes.py")
        plots.save(picture(record), args.page.with_suffix(".png"))


if __name__ == "__main__":
    main(tyro.cli(Args))
