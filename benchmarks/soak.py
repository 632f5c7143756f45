"""Memory of a process that is used for hours, by a learner that is taught, asked, put to sleep and saved, and players.

    python benchmarks/soak.py --hours 2 --out docs/robustness.json --page docs/robustness.md

Rounds of mixed use follow each other. What is used in them (facts, streams, slots) is drawn from a small stock, so that
what is cached on purpose is cached in the warm-up; what grows afterwards is lost. The last round is played again in a
fresh process from the checkpoint that it began with: it has to end in the same answers, rewards and weights.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import multiprocessing
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from rich.progress import Progress
from scipy.stats import theilslopes

import sleepgym  # noqa: F401  (registers the environments)
from benchmarks.common import markdown, records
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector import SleepVectorEnv
from sleepgym.episode.actions import Action
from sleepgym.facts.world import World
from sleepgym.sleeper import SleepingLM

STOCK, SEEDS = 60, 6
"""Facts that are taught, and seeds of episodes; each again and again."""
SHORT: dict[str, Any] = {
    "sleep": {"steps": 2, "rehearsal_rows": 1},
    "stream": {"known_facts": 8},
    "episode": {"days": 1},
}
"""Little effort in nights, so that there are many rounds: what they leave behind does not depend on it."""
SHOWN = 12
"""Rows of the table of memory over time."""


@dataclass
class Args:
    hours: float = 2.0
    """how long"""
    warm_up: int = 100
    """first rounds that the slope leaves out: in rounds, as caches fill by use and not by time"""
    card: str = "SleepLLM-Mini-v0"
    """card of the environments, of the bundled model"""
    out: Path | None = None
    """JSON with every figure"""
    page: Path | None = None
    """Markdown whose marked table is replaced"""


class Life:
    """All that lives in the process: a learner, an environment, slots of a vector environment, and the sim."""

    def __init__(self, card: str) -> None:
        self.learner = SleepingLM.from_pretrained(sleep=SleepSpec(steps=4, rehearsal_rows=2), capacity=40)
        self.env = SleepEnv(card, **SHORT)
        self.slots = SleepVectorEnv(2, card=card, **SHORT)
        self.sim = gym.make_vec("SleepSim-v0", num_envs=32, vectorization_mode="vector_entry_point")
        self.facts = World().new_facts(np.random.default_rng(0), STOCK)

    def round(self, number: int, folder: Path) -> str:
        """Plays a round, which depends on its number and on the learner as it is.

        Args:
            number: Number of the round.
            folder: Place of a checkpoint.

        Returns:
            Hash of all that came out of it.
        """
        rng, seen = np.random.default_rng(number), hashlib.sha256()

        def note(*found: object) -> None:
            seen.update(repr(found).encode())

        learner = self.learner
        new = [self.facts[i] for i in rng.choice(STOCK, 4, replace=False)]
        if len(learner.state.ledger) > learner.state.ledger.capacity - len(new):
            learner.prune(list(learner.state.ledger)[:12])
        note(learner.inject(new).recall)
        note([str(answer) for answer in learner.ask([fact.questions[0] for fact in new])])
        note(learner.audit().recall)
        if number % 4 == 3:
            learner.refresh()
            note(learner.sleep().recall_after)
        learner.save(folder)
        learner.load(folder)
        for term in learner.state.memory.terms.values():
            for a, b in term.factors.values():
                seen.update(a.numpy().tobytes() + b.numpy().tobytes())
        seed = int(rng.integers(SEEDS))
        note(self._episode(seed, rng), self._vectors(seed))
        return seen.hexdigest()

    def _episode(self, seed: int, rng: np.random.Generator) -> list[float]:
        """Rewards of an episode with a fork and a snapshot on the way."""
        _, info = self.env.reset(seed=seed)
        rewards: list[float] = []
        while not self.env.over:
            action = int(rng.choice(np.flatnonzero(info["action_mask"])))
            if len(rewards) == 3:
                self.env.fork().step(action)
                self.env.restore(self.env.snapshot())
            _, reward, *_, info = self.env.step(action)
            rewards.append(float(reward))
        return rewards

    def _vectors(self, seed: int) -> list[float]:
        """Rewards of a few steps of slots on one model, and of the sim."""
        self.slots.reset(seed=[seed, seed + 1])
        found = []
        for action in (Action.INJECT, Action.NAP, Action.WAIT, Action.INJECT, Action.SLEEP):
            found += self.slots.step(np.array([action, Action.INJECT]))[1].tolist()
        self.sim.reset(seed=seed)
        for action in (Action.INJECT, Action.NAP, Action.SLEEP) * 5:
            found += self.sim.step(np.full(32, action))[1].tolist()
        return found


def resident_mb() -> float:
    """Resident memory of the process in MB, without what the allocator keeps for later; Linux only."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def fresh_round(card: str, number: int, checkpoint: Path) -> str:
    """A round in a process of its own, by a learner from a checkpoint."""
    life = Life(card)
    life.learner.load(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        return life.round(number, Path(folder))


@dataclass(frozen=True)
class Slope:
    """Growth of memory in MB per hour, with its 95 % interval."""

    slope: float
    low: float
    high: float


def slope_of(hours: list[float], mb: list[float], bins: int = 40) -> Slope:
    """Slope of memory over time by Theil's and Sen's estimator, which a few leaps do not move (Sen 1968).

    Neighbouring measurements resemble each other, so that an interval from all of them would be too narrow: it is taken
    from medians of equal spans of time.

    Args:
        hours: When each measurement was taken, at least two.
        mb: Resident memory then.
        bins: Spans of time, at most.
    """
    parts = [part for part in np.array_split(np.arange(len(hours)), min(bins, len(hours))) if len(part)]
    x = [median(hours[i] for i in part) for part in parts]
    y = [median(mb[i] for i in part) for part in parts]
    found = theilslopes(y, x, 0.95)
    return Slope(float(found.slope), float(found.low_slope), float(found.high_slope))


def main(args: Args) -> None:
    record = records.circumstances()
    life, hours, mb = Life(args.card), [], []
    start, number = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder, Progress(transient=True) as progress:
        before, scratch = Path(folder) / "before", Path(folder) / "scratch"
        task = progress.add_task("rounds", total=args.hours)
        while True:
            life.learner.save(before)
            result = life.round(number, scratch)
            hours.append((time.monotonic() - start) / 3600)
            mb.append(resident_mb())
            progress.update(task, completed=hours[-1], description=f"{number + 1} rounds, {mb[-1]:.0f} MB")
            # Not before a night has been played in the round that is compared, and some rounds after the warm-up.
            if hours[-1] >= args.hours and number % 4 == 3 and number > args.warm_up:
                break
            number += 1
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            fresh = pool.apply(fresh_round, (args.card, number, before))
    slope = slope_of(hours[args.warm_up :], mb[args.warm_up :])
    record |= {"warm up": args.warm_up, "MB per hour": vars(slope), "equal": fresh == result}
    record |= {"hours": [round(at, 5) for at in hours], "MB": [round(size, 2) for size in mb]}
    blocks = contents(record)
    records.present(record, blocks["soak"], None)
    if args.out:
        records.write(args.out, record, indent=None)
    if args.page:
        markdown.write(args.page, blocks, "Robustness", "benchmarks/soak.py")
    if fresh != result:
        raise SystemExit(1)


def contents(record: records.Record) -> markdown.Blocks:
    """Memory over time, its slope, and whether a fresh process agreed."""
    hours, mb, warm_up = record["hours"], record["MB"], record["warm up"]
    shown = sorted({round(at) for at in np.linspace(0, len(hours) - 1, SHOWN)})
    rows = [[f"{hours[at]:.2f}", str(at + 1), f"{mb[at]:.1f}"] for at in shown]
    of, compared = record["MB per hour"], "equal" if record["equal"] else "different"
    about = (
        f"{len(hours)} rounds. Growth after the first {warm_up}: {of['slope']:+.2f} MB an hour "
        f"[{of['low']:+.2f}, {of['high']:+.2f}]. The last round in a fresh process: {compared}."
    )
    machine = f"{record['machine']}, {records.load_in_words(record)}; `{record['command']}`."
    return {"soak": f"{markdown.table(['hours', 'rounds', 'MB'], rows)}\n\n{about}\n\n{machine}"}


if __name__ == "__main__":
    main(tyro.cli(Args))
