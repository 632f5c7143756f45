"""How do edits of a card wear each other out, and what brings them back? Recall along writes, refreshes and nights.

    python benchmarks/wear.py --out docs/environments/wear.json --page docs/environments/wear.md

A learner lives through five parts: it writes facts, a few at a time; refreshes the worst of them, a batch at a time;
sleeps as often as facts need to settle; prunes what has settled; and then writes as many new facts, with a night now
and then, while the old ones are asked on. Everything is asked in chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track

from benchmarks.common import intervals, markdown, plots, records
from sleepgym.env.shared import held_out, shared_base
from sleepgym.episode.card import Card, load_card
from sleepgym.facts.fact import Fact
from sleepgym.facts.world import World
from sleepgym.memory.asking import chat_probe
from sleepgym.sleeper import SleepingLM


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """id whose card is shown"""
    facts: int = 36
    """facts of the first part, and as many of the last"""
    batch: int = 3
    """facts of a write"""
    refreshes: int = 3
    """refreshes, of as many facts as the card allows each"""
    every: int = 12
    """facts from one night to the next in the last part"""
    known: int = 100
    """pretrained facts that are asked"""
    draws: int = 5
    """draws of the facts"""
    out: Path | None = None
    """JSON with every figure"""
    page: Path | None = None
    """Markdown whose marked table is replaced; its picture lies beside it"""


@dataclass(frozen=True)
class Moment:
    """What is recalled at one moment of one life, as numbers of facts.

    Attributes:
        part: What was just done.
        in_force: Edits in force.
        first: Recalled of the first part's facts.
        first_asked: Number of these.
        later: Recalled of the last part's facts.
        later_asked: Number of these.
        known: Recalled of the pretrained facts.
        known_asked: Number of these.
        drift: Relative rise of perplexity on held-out text.
    """

    part: str
    in_force: int
    first: int
    first_asked: int
    later: int
    later_asked: int
    known: int
    known_asked: int
    drift: float


def life(args: Args, card: Card, seed: int) -> list[Moment]:
    """The moments of one life, in order."""
    base = shared_base(card.model, card.edit)
    learner = SleepingLM(base, card.sleep, card.budget.capacity, seed)
    world, rng = World(0), np.random.default_rng(seed)
    facts = world.new_facts(rng, 2 * args.facts, "train")
    first, later = facts[: args.facts], facts[args.facts :]
    truth = list(world.truth)
    drawn = [world.known_fact(*truth[i]) for i in rng.permutation(len(truth))[: args.known]]
    known = [fact for fact, right in zip(drawn, _recalled(learner, drawn), strict=True) if right]
    text = held_out(card.model, card.edit, card.episode)
    moments: list[Moment] = []

    def look(part: str, written: int) -> None:
        of_first, of_later = first[:written], later[: max(0, written - args.facts)]
        state = learner.state
        in_force = sum(state.scale_of(key) > 0 for key in state.ledger)
        asked = {"first": of_first, "later": of_later, "known": known}
        counts = {name: sum(_recalled(learner, facts)) for name, facts in asked.items()}
        counts |= {f"{name}_asked": len(facts) for name, facts in asked.items()}
        moments.append(Moment(part, in_force, drift=text.whole_ratio(state.memory) - 1, **counts))

    for start in range(0, args.facts, args.batch):
        learner.inject(first[start : start + args.batch])
        look("write", start + args.batch)
    for _ in range(args.refreshes):
        learner.audit()
        learner.refresh(learner.state.ledger.degraded[: card.budget.refresh])
        look("refresh", args.facts)
    for _ in range(card.sleep.last_stage + 1):
        learner.sleep()
        look("sleep", args.facts)
    learner.prune()
    look("prune", args.facts)
    for start in range(0, args.facts, args.batch):
        learner.inject(later[start : start + args.batch])
        look("write more", args.facts + start + args.batch)
        if (start + args.batch) % args.every == 0:
            learner.sleep()
            learner.prune()
            look("sleep and prune", args.facts + start + args.batch)
    return moments


def _recalled(learner: SleepingLM, facts: Sequence[Fact]) -> list[bool]:
    if not facts:
        return []
    found: list[bool] = (learner.score([chat_probe(learner.lm, fact) for fact in facts]).margin > 0).tolist()
    return found


def contents(record: records.Record) -> markdown.Blocks:
    """Tables of the page."""
    lives = record["lives"]
    rows = []
    for number, moment in enumerate(lives[0]):
        if number + 1 < len(lives[0]) and lives[0][number + 1]["part"] == moment["part"]:
            continue  # of each part, the last moment
        at = [one[number] for one in lives]
        shares = [_share(at, name) for name in ("first", "later", "known")]
        drift = np.array([one["drift"] for one in at])
        in_force = f"{np.mean([one['in_force'] for one in at]):.0f}"
        rises = f"{drift.mean():+.1%} [{drift.min():+.1%}, {drift.max():+.1%}]"
        rows.append([moment["part"], in_force, *shares, rises])
    head = ["after", "edits in force", "first facts", "later facts", "known facts", "perplexity"]
    about = f"{record['machine']}; {len(lives)} draws; `{record['command']}`."
    return {"wear": f"{markdown.table(head, rows)}\n\n{about}"}


def _share(moments: Sequence[records.Record], kind: str) -> str:
    """Share that is recalled over all draws, with its interval."""
    hits, n = (sum(moment[name] for moment in moments) for name in (kind, f"{kind}_asked"))
    if not n:
        return ""
    low, high = intervals.wilson(hits, n)
    return f"{hits / n:.2f} [{low:.2f}, {high:.2f}]"


def picture(record: records.Record) -> Figure:
    """Recall and perplexity along the parts of a life: means over draws, and their range."""
    lives = record["lives"]
    figure, (recall, drift) = plots.panels(2, 1, (9, 6))
    kinds = {"first": "first facts", "later": "later facts", "known": "facts it knew before"}
    for (kind, label), colour, dash in zip(kinds.items(), plots.COLOURS, plots.DASHES, strict=False):
        values = {
            float(number): [moment[kind] / moment[f"{kind}_asked"] for moment in at]
            for number, at in enumerate(zip(*lives, strict=True))
            if at[0][f"{kind}_asked"]
        }
        plots.band(recall, values, label, colour, ls=dash)
    rises = {
        float(number): [100 * moment["drift"] for moment in at] for number, at in enumerate(zip(*lives, strict=True))
    }
    plots.band(drift, rises, "perplexity", plots.COLOURS[-1])
    parts = [moment["part"] for moment in lives[0]]
    for ax in (recall, drift):
        _mark(ax, parts, words=ax is recall)
        plots.grid(ax)
    recall.set_ylabel("share answered in chat")
    recall.set_ylim(0, 1.12)
    recall.legend(loc="lower left")
    drift.set_ylabel("rise of perplexity, %")
    drift.set_xlabel("what was done, in order")
    return figure


def pictures(path: Path) -> dict[Path, Figure]:
    """The picture of a page, from the record beside it."""
    return {path.with_suffix(".png"): picture(records.read(path))}


def _mark(ax: Axes, parts: Sequence[str], words: bool) -> None:
    """Shades every other part, and names each."""
    borders = [n for n in range(len(parts) + 1) if n in (0, len(parts)) or _usual(parts[n]) != _usual(parts[n - 1])]
    for number, (left, right) in enumerate(pairwise(borders)):
        if number % 2:
            ax.axvspan(left - 0.5, right - 0.5, color="0.93", zorder=0)
        if words:
            ax.text((left + right - 1) / 2, 1.07, _usual(parts[left]), ha="center", va="center", fontsize=8)
    ax.set_xlim(-0.5, len(parts) - 0.5)
    ax.set_xticks([])


def _usual(part: str) -> str:
    """Name of the part that a moment belongs to in the picture."""
    return "write as many more, sleep and prune" if part in ("write more", "sleep and prune") else part


def main(args: Args) -> None:
    card = load_card(args.env_id)
    lives = [life(args, card, seed) for seed in track(range(args.draws), "lives")]
    record = records.circumstances(args.draws) | {
        "env_id": args.env_id,
        "lives": [[*map(asdict, one)] for one in lives],
    }
    if args.out:
        records.write(args.out, record, indent=None)
    if args.page:
        markdown.write(args.page, contents(record), "How edits wear", "benchmarks/wear.py")
        plots.save(picture(record), args.page.with_suffix(".png"))
    print(contents(record)["wear"])


if __name__ == "__main__":
    main(tyro.cli(Args))
