"""Makes tables and pictures of docs/results.md, and agents/pretrained/README.md, of raw data in docs/results.

python benchmarks/results_page.py
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

from benchmarks.common import markdown, plots
from benchmarks.results_data import GOAL, PPO, SIM_ONLY, THRESHOLDS, Data, Findings, noise
from benchmarks.results_habits import episode_figure, episode_table, habit_figure, habits
from sleepgym.episode.card import load_card
from sleepgym.evaluation import Estimate, comparison_sheet, summary_sheet
from sleepgym.evaluation.plots import interval_figure, learning_figure, profile_figure
from sleepgym.training import PolicyCard

SCRIPT = "benchmarks/results_page.py"


@dataclass
class Args:
    folder: Path = Path("docs/results")
    """raw data; pictures are written here too"""
    page: Path = Path("docs/results.md")
    """Markdown with the markers"""
    policies: Path = Path("agents/pretrained")
    """folder of the policies, with a page of their own"""
    env_id: str = "SleepLLM-v0"
    """the environment that they were trained in"""


def contents(args: Args) -> dict[str, str]:
    """Blocks of docs/results.md."""
    data, env_id = Data.read(args.folder, args.policies, args.env_id), args.env_id
    found, rule = Findings.of(data), data.rule
    title = (
        f"{env_id}, {len(data.scores[rule].streams)} test streams, {len(data.scores[PPO].scores)} training runs of PPO"
    )
    blocks = {
        "scores": markdown.table(["scheduler", "score"], _means(found)),
        "pairs": comparison_sheet(found.pairs, rule, title).markdown(),
        "runs": comparison_sheet(found.runs, rule, "Training runs, one by one").markdown(),
        "noise": noise_table(data),
        "learning": learning_table(data),
    }
    if found.above is not None:
        streams = min((one.streams for one in data.planned.values()), key=len)
        few = f"First {len(streams)} test streams"
        blocks["summary"] = summary_sheet(found.above.summaries, few).markdown()
        blocks["planner"] = comparison_sheet(found.above.pairs, rule, "The same, in pairs").markdown()
        gap = [[f"`{rule}` and the planner", f"{found.above.closed:.0%}"]]
        blocks["gap"] = markdown.table(["gap between", "share closed by PPO"], gap)
    if data.elsewhere:
        blocks["transfer"] = "\n".join(transfer(data, found, elsewhere) for elsewhere in data.elsewhere)
    if data.ways:
        blocks["ways"] = ways_table(data, found)
    if data.moments:
        night = load_card(env_id).stream.night_ticks[0]
        blocks["habits"] = habits(data.moments, night)
    if data.beside:
        blocks["episode"] = episode_table(data.beside)
    return blocks


def _means(found: Findings) -> list[list[str]]:
    """Mean scores with their intervals, the best first."""
    order = sorted(found.means, key=lambda name: -found.means[name].point)
    return [[name, f"{found.means[name]:.3f}"] for name in order]


def noise_table(data: Data) -> str:
    """Differences on single streams, beside the gain that a goal takes."""
    rule = data.rule
    spread = noise(data.scores[PPO].scores, data.scores[rule].scores)
    rows = [
        ["differences between two training runs of PPO on a stream, standard deviation", f"{spread['between']:.3f}"],
        [f"differences between a training run and `{rule}` on a stream, standard deviation", f"{spread['beyond']:.3f}"],
        [f"mean gain for a P(better) of {GOAL}, were differences normally distributed", f"{spread['needed']:.3f}"],
    ]
    return markdown.table(["", "score"], rows)


def transfer(data: Data, found: Findings, env_id: str) -> str:
    """Table of an environment that was not trained on."""
    scores, rule = data.elsewhere[env_id], data.rule
    means = ", ".join(f"{name} {one.scores.mean():.3f}" for name, one in scores.items())
    title = f"{env_id}, {len(scores[rule].streams)} test streams, training runs of PPO: {len(scores[PPO].scores)}"
    return comparison_sheet(found.elsewhere[env_id], rule, title).markdown() + f"\nMean scores: {means}.\n"


def ways_table(data: Data, found: Findings) -> str:
    """Policies by what they were trained on, all on the same streams."""
    rule, streams = data.rule, next(iter(data.ways.values())).scores.streams
    rows = [
        [
            name,
            str(len(way.scores.scores)),
            f"{np.median(way.steps):,.0f}",
            f"{np.median(way.minutes):.0f}",
            f"{way.scores.scores.mean():.3f}",
            f"{beside_rule.difference:+.3f}",
            f"{beside_rule.probability:.2f}",
            "-" if name == SIM_ONLY else f"{beside_sim.difference:+.3f}",
        ]
        for (name, way), (beside_rule, beside_sim) in zip(data.ways.items(), found.ways.values(), strict=True)
    ]
    title = f"First {len(streams)} test streams; `{rule}` has {data.scores[rule].on(streams).scores.mean():.3f} there"
    head = ["trained on", "runs", "steps", "minutes", "score", f"score - {rule}", f"P(better than {rule})"]
    return f"**{title}**\n\n" + markdown.table([*head, f"score - {SIM_ONLY}"], rows)


def learning_table(data: Data) -> str:
    """Simulated scores on validation streams during training: median over runs, and the quartiles."""
    curve = data.learning
    low, middle, high = np.percentile(curve.scores, (25, 50, 75), axis=0)
    minutes = np.asarray(curve.minutes)
    rows = [
        [f"{step:,}", f"{minute:.1f}", f"{of:.3f} [{first:.3f}, {third:.3f}]"]
        for step, minute, of, first, third in zip(curve.steps.tolist(), minutes, middle, low, high, strict=True)
    ]
    return markdown.table(["steps", "minutes", f"simulated score, {len(curve.scores)} runs"], rows)


def policies(args: Args) -> dict[str, str]:
    """Blocks of the page beside the policies: files with their cards and scores."""
    data, rows = Data.read(args.folder, args.policies, args.env_id), []
    # Runs are in the order of the files.
    for path, row in zip(data.policies, data.scores[PPO].scores, strict=True):
        card, digest = PolicyCard.read(path), hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        scores = f"{card.simulated_score:.3f}", f"{row.mean():.3f}"
        rows.append([f"`{path.name}`", str(card.seed), f"{card.steps:,}", *scores, digest])
    head = ["file", "seed", "steps", "simulated score", "test score", "SHA-256"]
    return {"policies": markdown.table(head, rows)}


def pictures(args: Args) -> dict[Path, Figure]:
    """Pictures by file."""
    data = Data.read(args.folder, args.policies, args.env_id)
    found, rhythm = Findings.of(data), load_card(args.env_id).stream
    unchanged = {data.rule: Estimate(0.0, 0.0, 0.0)}
    gains = {name: (unchanged | {n: c.difference for n, c in found.pairs.items()})[name] for name in data.scores}
    learning = learning_figure({PPO: data.learning}, data.references)
    learning.axes[0].set_ylabel("simulated score on validation streams")
    drawn = {
        "intervals": interval_figure({"score": found.means, f"score - {data.rule}": gains}),
        "learning": learning,
    }
    if found.above is not None:
        drawn["profiles"] = profile_figure(THRESHOLDS, found.above.profiles)
    if data.moments:
        drawn["habits"] = habit_figure(data.moments, rhythm.ticks_per_day, rhythm.night_ticks[0])
    if data.beside:
        drawn["episode"] = episode_figure(data.beside)
    return {args.folder / f"{name}.png": figure for name, figure in drawn.items()}


def main(args: Args) -> None:
    for path, figure in pictures(args).items():
        plots.save(figure, path)
    markdown.write(args.page, contents(args), "Results", SCRIPT)
    markdown.write(args.policies / "README.md", policies(args), "Trained policies", SCRIPT)


if __name__ == "__main__":
    main(tyro.cli(Args))
