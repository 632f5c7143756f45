"""What schedulers and PPO reach where the number of passes and their moment are chosen.

    python benchmarks/fastweights_play.py --ppo-steps 500000

Rules are tuned on training streams; all figures are of test streams, the same for everybody. Who has played already,
with this card and model, does not play again. It writes its record and its table of docs/fastweights.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from sb3_contrib import MaskablePPO
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks import fastweights_page
from benchmarks.common import markdown, records
from benchmarks.common.records import Record
from sleepgym.env.fastweights.card import FastWeightsCard, load_fast_card
from sleepgym.env.fastweights.env import FastWeightsEnv, model_path
from sleepgym.schedulers.passes import FixedPasses, PassScheduler, Rollouts, UntilSettled, WhileWrong
from sleepgym.training.sb3 import SB3VecEnv

CHANGES = (0.4, 0.6, 0.8, 0.9, 0.93)
LOSSES = (0.05, 0.1)
HOPELESS = (0.7, 1.0)
MOST = 2
PATIENCE = (0.3, 0.6)
"""What rules are tuned over; more than two passes over a window bring the shipped model nothing."""
GAMMA, ENTROPY = 0.995, 0.004
"""Discount, with which a document's last tick counts nearly as much as its first, and weight of the entropy of PPO,
chosen on validation streams."""


@dataclass(frozen=True)
class Args:
    card: str = "FastWeights-v0"
    """id or file of the environment's card"""
    streams: int = 60
    """test streams"""
    tuning_streams: int = 20
    """training streams that rules are tuned on"""
    planner_streams: int = 6
    """test streams that the planner plays, the first ones: it takes minutes for each; 0 for none"""
    ppo_steps: int = 0
    """steps that PPO is trained for; 0 for none"""
    ppo_seeds: int = 3
    """training runs of PPO, with seeds from 1 on"""
    ppo_envs: int = 64
    """environments that it is trained in"""
    out: Path = records.ROOT / "docs" / "fastweights" / "play.json"
    """record"""
    page: Path = records.ROOT / "docs" / "fastweights.md"
    """page"""


@dataclass(frozen=True)
class Played:
    """Scores and sleep of a player, stream by stream.

    Attributes:
        name: Player.
        kind: ``fixed``, ``rule``, ``planner`` or ``learned``.
        scores: Share of all questions that were answered correctly.
        slept: Ticks spent on passes.
        settings: What a rule was tuned to.
    """

    name: str
    kind: str
    scores: list[float]
    slept: list[int]
    settings: dict[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Mean score."""
        return sum(self.scores) / len(self.scores)

    @property
    def sleep(self) -> float:
        """Mean ticks spent on passes."""
        return sum(self.slept) / len(self.slept)


def play(env: FastWeightsEnv, predict: Callable[..., Any], seeds: range, name: str, kind: str) -> Played:
    """Plays an episode for each seed."""
    scores, slept = [], []
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        over = False
        while not over:
            action, _ = predict(observation, action_masks=info["action_mask"], deterministic=True)
            observation, _, _, over, info = env.step(action)
        scores.append(float(info["score"]))
        slept.append(int(info["slept"]))
    return Played(name, kind, scores, slept)


def families(card: FastWeightsCard) -> dict[str, list[PassScheduler]]:
    """Rules with the settings that they are tuned over, by family."""
    passes = card.passes
    wrong = [
        WhileWrong(loss, passes, MOST, unasked, hopeless)
        for unasked in (1, MOST)
        for loss in LOSSES
        for hopeless in HOPELESS
    ]
    quiet = [replace(rule, patience=patience) for rule in wrong for patience in PATIENCE]
    of = lambda rules, unasked: [rule for rule in rules if rule.unasked == unasked]  # noqa: E731
    return {
        "until S settles": [UntilSettled(change, passes) for change in CHANGES],
        "while wrong": of(wrong, MOST),
        "while wrong, once where nothing is asked": of(wrong, 1),
        "while wrong, in quiet times": of(quiet, MOST),
        "while wrong, in quiet times, once where nothing is asked": of(quiet, 1),
    }


def players(args: Args, card: FastWeightsCard) -> dict[str, Callable[[], Played]]:
    """Everybody who is to play, in the order of the table, by name."""
    seeds, tuning = range(args.streams), range(args.tuning_streams)
    test, training = FastWeightsEnv(card, "test"), FastWeightsEnv(card, "train")

    def tuned(name: str, rules: list[PassScheduler]) -> Played:
        scores = [play(training, rule.predict, tuning, name, "rule").score for rule in rules]
        rule = rules[scores.index(max(scores))]
        return replace(play(test, rule.predict, seeds, name, "rule"), settings=settings(rule))

    fixed = {n: FixedPasses(n, card.passes) for n in range(card.passes.most + 1)}
    found: dict[str, Callable[[], Played]] = {}
    for n, rule in fixed.items():
        name = f"fixed N = {n}"
        found[name] = partial(play, test, rule.predict, seeds, name, "fixed")
    for name, rules in families(card).items():
        found[name] = partial(tuned, name, rules)

    def trained(name: str, seed: int) -> Played:
        return play(test, learned(args, card, seed).predict, seeds, name, "learned")

    for seed in range(1, args.ppo_seeds + 1) if args.ppo_steps else ():
        name = f"PPO, {args.ppo_steps:,} steps, seed {seed}"
        found[name] = partial(trained, name, seed)
    if args.planner_streams:
        planner = Rollouts(test, [fixed[n] for n in range(1, MOST + 1)])
        found["planner"] = partial(play, test, planner.predict, seeds[: args.planner_streams], "planner", "planner")
    return found


def settings(rule: PassScheduler) -> dict[str, float]:
    """Fields of a rule that are numbers."""
    return {name: value for name, value in vars(rule).items() if isinstance(value, int | float)}


def learned(args: Args, card: FastWeightsCard, seed: int) -> MaskablePPO:
    """Trains PPO with masks on training streams."""
    envs = SB3VecEnv([lambda: FastWeightsEnv(card, "train")] * args.ppo_envs)
    # Returns are tens of answers: their losses would drown those of the actions.
    scaled = VecNormalize(envs, norm_obs=False, gamma=GAMMA)
    policy = MaskablePPO(
        "MlpPolicy",
        scaled,
        learning_rate=LinearSchedule(1e-3, 0.0, 1.0),
        n_steps=64,
        batch_size=256,
        gamma=GAMMA,
        ent_coef=ENTROPY,
        seed=seed,
    )
    return policy.learn(args.ppo_steps)


def main(args: Args) -> None:
    torch.set_num_threads(1)
    card = load_fast_card(args.card)
    about = {
        "card": card.model_dump(mode="json"),
        "model": hashlib.sha256(model_path(card.model.file).read_bytes()).hexdigest(),
        "streams": args.streams,
        "tuning streams": args.tuning_streams,
    }
    before: Record = records.read(args.out) if args.out.exists() else {}
    same = all(before.get(key) == value for key, value in about.items())
    found = {player["name"]: player for player in before["players"]} if same else {}
    todo = players(args, card)
    for name, lets_play in todo.items():
        if name not in found:
            played = lets_play()
            print(f"{name}: score {played.score:.3f}, {played.sleep:.1f} ticks of sleep", flush=True)
            found[name] = asdict(played)
            there = [found[known] for known in todo if known in found]
            records.write(args.out, records.circumstances() | about | {"players": there})
    markdown.write(args.page, fastweights_page.contents(args.out.parent), "Fast weights", "benchmarks/fastweights.py")


if __name__ == "__main__":
    main(tyro.cli(Args))
