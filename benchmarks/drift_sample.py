"""Does perplexity at a sample of tokens say what perplexity at all of them says? Along episodes of several schedulers.

    python benchmarks/drift_sample.py --out docs/environments/drift.json

After every change of a memory, drift is measured at samples of several sizes and on the whole of the same text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro
from rich.console import Console
from rich.markdown import Markdown

import sleepgym  # noqa: F401  (registers the environments)
from benchmarks.common import markdown, records
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.held_out import HeldOut
from sleepgym.schedulers import Scheduler, scheduler_named
from sleepgym.schedulers.own import made


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """the environment"""
    schedulers: tuple[str, ...] = ("night-owl", "never-sleep", "random")
    """who plays"""
    episodes: int = 4
    """episodes of each"""
    seed: int = 3000
    """seed of the first episode"""
    tokens: tuple[int, ...] = (16, 32, 64)
    """sizes of samples"""
    out: Path | None = None
    """JSON with every figure"""


def measured(env: SleepEnv, samples: list[HeldOut]) -> list[float]:
    """Drift of the present memory on the whole text, then at each sample."""
    memory = env.episode.learner.state.memory
    return [samples[0].whole_ratio(memory) - 1, *(sample.ratio(memory) - 1 for sample in samples)]


def along(env: SleepEnv, scheduler: str, seed: int, samples: list[HeldOut]) -> list[list[float]]:
    """Drifts after every change of the memory in one episode."""
    observation, _ = env.reset(seed=seed)
    named = scheduler_named(scheduler)
    player = named if isinstance(named, Scheduler) else made(named, env, seed)
    version, found, over = 0, [], False
    while not over:
        observation, _, terminated, truncated, _ = env.step(int(player.act(observation, env.action_masks())))
        over = terminated or truncated
        if env.episode.learner.state.memory.version != version:
            version = env.episode.learner.state.memory.version
            found.append(measured(env, samples))
    return found


def main(args: Args) -> None:
    env = gym.make(args.env_id, split="validation").unwrapped
    assert isinstance(env, SleepEnv)
    samples = [HeldOut.of(env.base, env.card.episode.model_copy(update={"perplexity_tokens": n})) for n in args.tokens]
    record = records.circumstances() | {"env_id": args.env_id, "schedulers": args.schedulers, "episodes": args.episodes}
    found = [
        row
        for scheduler in args.schedulers
        for episode in range(args.episodes)
        for row in along(env, scheduler, args.seed + episode, samples)
    ]
    whole, *sampled = np.array(found).T
    record["n"], record["whole"] = len(whole), {"mean": float(whole.mean()), "highest": float(whole.max())}
    record["samples"] = [
        {
            "tokens": tokens,
            "correlation": float(np.corrcoef(whole, drift)[0, 1]),
            "mean difference": float((drift - whole).mean()),
            "mean absolute difference": float(np.abs(drift - whole).mean()),
            "largest difference": float(np.abs(drift - whole).max()),
        }
        for tokens, drift in zip(args.tokens, sampled, strict=True)
    ]
    head = list(record["samples"][0])
    rows = [[f"{row[name]:.4g}" for name in head] for row in record["samples"]]
    Console().print(Markdown(markdown.table(head, rows)), f"n = {len(whole)}, mean drift {whole.mean():.4f}")
    if args.out:
        records.write(args.out, record)


if __name__ == "__main__":
    main(tyro.cli(Args))
