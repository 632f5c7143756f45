"""What trained policies score on the test streams, how they learned, and what they do: docs/results.md.

    python benchmarks/results.py

Reads what was played (`sleepgym leaderboard ... --out runs/leaderboard/ENV`, the planner's few streams in
`runs/leaderboard/planner`) and what was logged in training (`runs/result/ppo-1` and so on), lets the policies play some
validation streams to see when they sleep, and writes the page with its pictures and raw scores. docs/results.md says
which commands come before it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.results_page import COMMANDS, PAGE, POLICIES
from sleepgym.env.actions import Action
from sleepgym.env.card import load_card
from sleepgym.env.history import Standing
from sleepgym.env.observation import load_of
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.evaluation import (
    Estimate,
    ScoreError,
    ScoreMatrix,
    bootstrap_band,
    compare,
    comparison_sheet,
    evaluate,
    statistics,
    stratified_bootstrap,
    summarise,
    summary_sheet,
)
from sleepgym.evaluation.plots import LearningCurve, interval_figure, learning_figure, profile_figure
from sleepgym.evaluation.statistics import Scores
from sleepgym.evaluation.submission import SCORES, folder_name
from sleepgym.learning import PolicyCard, load_policy

PPO, NEVER = "PPO", "never-sleep"
GOAL = 0.8
"""The probability of improvement that was hoped for."""


@dataclass
class Args:
    played: Path = Path("runs/leaderboard")
    """folder of folders that `sleepgym leaderboard --out` wrote, one per environment, called by its id"""
    planner: Path = Path("runs/leaderboard/planner")
    """the same, of the planner and its few streams of the first environment"""
    trained: Path = Path("runs/result")
    """folder of the training runs' folders"""
    policies: Path = Path("agents/pretrained")
    """folder of the policies"""
    env_id: str = "SleepLLM-v0"
    """the environment that they were trained in"""
    rule: str = "night-owl"
    """the hand-written scheduler to compare with: the one that is best by the sweep on training streams"""
    transfer: tuple[str, ...] = ("SleepLLM-Night-v0", "SleepLLM-Tight-v0", "SleepLLM-Churn-v0", "SleepLLM-Gemma-v0")
    """environments that a policy plays untouched"""
    watched: int = 4
    """validation streams on which each policy's choices are looked at"""
    watch_seed: int = 1000
    """seed of the first of them"""
    steps: int = 10_240
    """steps that each was trained for"""
    validation: int = 16
    """validation streams that chose the checkpoint"""
    took: str = "How long training took was not recorded"
    """how long training took, in words"""
    out: Path = Path("docs/results")
    """folder of raw scores and pictures; the page lies beside it"""


# ------------------------------------------------------------------- what was played


def matrices(folder: Path) -> dict[str, ScoreMatrix]:
    """Scores by scheduler; all policies are runs of one."""
    found: dict[str, ScoreMatrix] = {}
    policies: list[ScoreMatrix] = []
    for path in sorted(folder.glob(f"*/{SCORES}")):
        one = ScoreMatrix.load(path)
        if one.name.startswith("maskable-ppo:"):
            policies.append(one)
        else:
            found[one.name] = one
    if policies:
        if len({one.streams for one in policies}) > 1:
            raise ScoreError(f"expected policies on the same streams in {folder}; play those that differ again")
        found[PPO] = ScoreMatrix(PPO, policies[0].streams, np.concatenate([one.scores for one in policies]))
    return found


# ------------------------------------------------------------------- how they learned


def curve(folders: Sequence[Path], tag: str) -> LearningCurve:
    """A scalar of every run's tensorboard log."""
    runs = []
    for folder in folders:
        log = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        log.Reload()
        runs.append({event.step: event.value for event in log.Scalars(tag)})
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    return LearningCurve(np.array(steps, np.int64), np.array([[run[step] for step in steps] for run in runs]))


# ------------------------------------------------------------------- what they do


@dataclass(frozen=True)
class Moment:
    """A step at which a policy could have slept.

    Attributes:
        hour: Ticks since the night began, below a day.
        degraded: Facts that were written and would be answered wrongly.
        load: Sum of the scales of all edits.
        probability: With which the policy sleeps.
    """

    hour: int
    degraded: int
    load: float
    probability: float


class Watched:
    """A policy in one episode, whose doubts are written down."""

    def __init__(self, policy: Any, env: SleepEnv, moments: list[Moment]) -> None:
        self.policy, self.env, self.moments = policy, env, moments

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[Any, Any]:
        assert action_masks is not None
        if action_masks[0, Action.SLEEP]:
            with torch.no_grad():
                tensors, _ = self.policy.policy.obs_to_tensor(observation)
                chances = self.policy.policy.get_distribution(tensors, action_masks=action_masks).distribution.probs
            episode = self.env.episode
            self.moments.append(
                Moment(
                    episode.stream.rhythm.since_nightfall(episode.tick),
                    episode.standings().count(Standing.WRONG),
                    load_of(episode.learner.state),
                    float(chances[0, Action.SLEEP]),
                )
            )
        return self.policy.predict(observation, state, deterministic=deterministic, action_masks=action_masks)


def watch(args: Args, paths: Sequence[Path]) -> list[Moment]:
    """Lets every policy play validation streams."""
    moments: list[Moment] = []
    seeds = range(args.watch_seed, args.watch_seed + args.watched)
    for path in paths:
        policy, card = load_policy(path)

        def begin(env: SleepEnv, seed: int, policy: Any = policy) -> Watched:
            return Watched(policy, env, moments)

        evaluate(partial(card.spec.make, "validation"), begin, seeds, slots=2)
    return moments


def habit_figure(moments: Sequence[Moment], day: int, night: int) -> Figure:
    """Mean probability of sleeping by the time since nightfall, and by degraded facts or load.

    Args:
        moments: When they could have slept.
        day: Ticks of a day.
        night: Ticks of the shortest night.
    """
    figure = Figure(figsize=(9.6, 4.0), dpi=100, layout="constrained")
    panels = {"degraded facts": ("degraded", 2, 10), "load of edits": ("load", 3, 24)}
    for axes, (label, (field, width, most)) in zip(figure.subplots(1, 2, sharex=True), panels.items(), strict=True):
        sums, counts = np.zeros((most // width + 1, day)), np.zeros((most // width + 1, day))
        for moment in moments:
            row = min(int(getattr(moment, field) // width), most // width)
            sums[row, moment.hour] += moment.probability
            counts[row, moment.hour] += 1
        with np.errstate(invalid="ignore"):
            image = axes.imshow(sums / counts, origin="lower", aspect="auto", vmin=0, vmax=1, cmap="viridis")
        names = [f"{row * width}-{(row + 1) * width - 1}" for row in range(most // width)] + [f"{most}+"]
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("ticks since nightfall")
        axes.set_ylabel(label)
        axes.axvspan(-0.5, night - 0.5, ymin=0, ymax=0.015, color="black")
    figure.colorbar(image, ax=figure.axes, label="probability of SLEEP")
    return figure


# ------------------------------------------------------------------- the page


def policies_page(paths: Sequence[Path], env_id: str, scores: ScoreMatrix) -> str:
    """What lies beside the policies; their scores are in the same order."""
    rows = []
    for path, row in zip(paths, scores.scores, strict=True):
        card, digest = PolicyCard.read(path), hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        cells = f"{card.seed} | {card.steps:,} | {card.validation_score:.3f} | {row.mean():.3f} | {digest}"
        rows.append(f"| `{path.name}` | {cells} |")
    return POLICIES.format(env_id=env_id, rows="\n".join(rows))


def habits(moments: Sequence[Moment], night: int) -> str:
    """When they sleep, in a sentence."""

    def share(of: Sequence[Moment]) -> str:
        return f"{np.mean([moment.probability for moment in of]):.2f} ({len(of)} steps)" if of else "never met"

    dark, light = ([m for m in moments if (m.hour < night) is wanted] for wanted in (True, False))
    parts = {
        "in the first ticks of the night with a load of 16 or more": [m for m in dark if m.load >= 16],
        "there with 8 to 16": [m for m in dark if 8 <= m.load < 16],
        "there with less": [m for m in dark if m.load < 8],
        "later and by day": light,
    }
    return "They sleep\n" + ";\n".join(f"{where}: {share(of)}" for where, of in parts.items()) + "."


def played(folder: Path) -> dict[str, ScoreMatrix]:
    """The same as :func:`matrices`; ends the script if there are none."""
    found = matrices(folder)
    if not found:
        raise SystemExit(f"expected entries in {folder}, found none; play them first, as docs/results.md says")
    return found


def transfer(env_id: str, found: Mapping[str, ScoreMatrix], rule: str, rng: np.random.Generator) -> str:
    """The table of an environment that was not trained on."""
    beside = {name: compare(one, found[rule], rng) for name, one in found.items() if name != rule}
    means = ", ".join(f"{name} {one.scores.mean():.3f}" for name, one in found.items())
    title = f"{env_id}, {len(found[rule].streams)} test streams, training runs of PPO: {len(found[PPO].scores)}"
    return comparison_sheet(beside, rule, title).markdown() + f"\nMean scores: {means}.\n"


def against_planner(
    args: Args, found: Mapping[str, ScoreMatrix], high: ScoreMatrix, rng: np.random.Generator
) -> dict[str, object]:
    """What the page says about the planner, on the streams that it has played; draws the profiles."""
    best, planner = args.rule, high.name
    narrow = {name: one.on(high.streams) for name, one in found.items()} | {planner: high}
    summaries = {name: summarise(one, narrow[NEVER], high, rng) for name, one in narrow.items()}
    pairs = {name: compare(narrow[name], narrow[best], rng) for name in (planner, PPO)}

    thresholds = np.linspace(0, 2, 81)
    profiles = {
        label: bootstrap_band(
            partial(statistics.performance_profile, thresholds=thresholds),
            narrow[name].normalised(narrow[NEVER], high),
            rng=rng,
        )
        for label, name in ((best, best), (PPO, PPO), ("planner", planner))
    }
    profile_figure(thresholds, profiles).savefig(args.out / "profiles.png")

    return {
        "planner": planner,
        "few": len(high.streams),
        "summary": summary_sheet(summaries, f"First {len(high.streams)} test streams").markdown(),
        "above": comparison_sheet(pairs, best, "The same, in pairs").markdown(),
        "closed": stratified_bootstrap(gap_closed, narrow[PPO], narrow[best], high, rng=rng),
        "room": pairs[planner].difference.point,
        "room_probability": pairs[planner].probability,
    }


def gap_closed(scores: Scores, rule: Scores, planner: Scores) -> float:
    """How much of the way from a rule to the planner."""
    return float((scores.mean() - rule.mean()) / (planner.mean() - rule.mean()))


def noise(policies: Scores, rule: Scores) -> dict[str, float]:
    """How much two schedulers' scores on one stream differ, and what gain a probability of improvement takes then."""
    beyond = float((policies - rule).std(axis=1, ddof=1).mean())
    pairs = [one - other for one, other in itertools.combinations(policies, 2)]
    between = float(np.mean([pair.std(ddof=1) for pair in pairs]))
    # Of normally distributed differences.
    return {"beyond": beyond, "between": between, "needed": NormalDist().inv_cdf(GOAL) * beyond}


def quarters(relative: LearningCurve) -> str:
    """Means of the quarters of training, in words."""
    means = [float(part.mean()) for part in np.array_split(relative.scores, 4, axis=1)]
    return ", ".join(f"{mean:+.2f}" for mean in means)


def main(args: Args) -> None:
    torch.set_num_threads(1)
    # All that is needed before anything is written.
    found, elsewhere = played(args.played / args.env_id), {env: played(args.played / env) for env in args.transfer}
    [planner] = played(args.planner).values()
    table = (args.played / args.env_id / "leaderboard.md").read_text(encoding="utf-8")
    paths, folders = sorted(args.policies.glob("*.zip")), sorted(args.trained.glob("ppo-*"))
    validation, relative = curve(folders, "eval/mean_score"), curve(folders, "rollout/relative_return")
    rhythm, best, rng = load_card(args.env_id).stream, args.rule, np.random.default_rng(0)

    args.out.mkdir(parents=True, exist_ok=True)
    for env_id, scores in {args.env_id: found | {planner.name: planner}, **elsewhere}.items():
        for name, one in scores.items():
            one.save(args.out / env_id / f"{folder_name(name)}.json")
    (args.out / "leaderboard.md").write_text(f"# {args.env_id}\n\n{table}", encoding="utf-8")
    (args.policies / "README.md").write_text(policies_page(paths, args.env_id, found[PPO]), encoding="utf-8")
    curves = {
        name: {"steps": one.steps.tolist(), "scores": np.round(one.scores, 5).tolist()}
        for name, one in (("validation", validation), ("relative_return", relative))
    }
    (args.out / "curves.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")

    pairs = {name: compare(one, found[best], rng) for name, one in found.items() if name != best}
    runs = {
        f"{PPO}, seed {PolicyCard.read(path).seed}": compare(
            ScoreMatrix(PPO, found[PPO].streams, row[None]), found[best], rng
        )
        for path, row in zip(paths, found[PPO].scores, strict=True)
    }
    means = {name: stratified_bootstrap(statistics.mean, one, rng=rng) for name, one in found.items()}
    gains = {name: pairs[name].difference if name != best else Estimate(0.0, 0.0, 0.0) for name in found}
    interval_figure({"score": means, f"score - {best}": gains}).savefig(args.out / "intervals.png")
    figure = learning_figure({PPO: relative}, {"rule": 0.0})
    figure.axes[0].set_ylabel("return beyond the imitated rule, while exploring")
    figure.savefig(args.out / "learning.png")
    moments = watch(args, paths)
    habit_figure(moments, rhythm.ticks_per_day, rhythm.night_ticks[0]).savefig(args.out / "habits.png")

    title = f"{args.env_id}, {len(found[best].streams)} test streams, {len(found[PPO].scores)} training runs of PPO"
    content = PAGE.format(
        env_id=args.env_id,
        seeds=len(folders),
        steps=args.steps,
        validation=args.validation,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        minutes=args.took,
        pairs=comparison_sheet(pairs, best, title).markdown(),
        runs=comparison_sheet(runs, best, "Training runs, one by one").markdown(),
        goal=GOAL,
        **against_planner(args, found, planner, rng),
        **noise(found[PPO].scores, found[best].scores),
        quarters=quarters(relative),
        best=best,
        transfer="\n".join(transfer(env_id, scores, best, rng) for env_id, scores in elsewhere.items()),
        curve=", ".join(
            f"{mean:.3f} after {step:,} steps"
            for step, mean in zip(validation.steps.tolist(), validation.scores.mean(axis=0).tolist(), strict=True)
        ),
        watched=args.watched,
        habits=habits(moments, rhythm.night_ticks[0]),
        commands=COMMANDS,
    )
    args.out.with_suffix(".md").write_text(content, encoding="utf-8")
    print(content)


if __name__ == "__main__":
    main(tyro.cli(Args))
