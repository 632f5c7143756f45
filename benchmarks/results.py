"""Collects what trained policies scored, how they learned and when they sleep: raw data of docs/results.md.

    python benchmarks/results.py

Who has not played anew keeps the scores and the row of the table that are recorded.

Reads what was played (`sleepgym leaderboard ... --out runs/leaderboard/ENV`, the planner's few streams in
`runs/leaderboard/planner`) and what was logged in training (`runs/result/ppo-1` and so on), lets the policies play some
validation streams to see when they sleep, and writes scores, curves and habits as JSON. benchmarks/results_page.py,
which is called last, makes tables and pictures of them. docs/results.md says which commands come before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks import results_page
from benchmarks.common import records
from benchmarks.results_data import ELSEWHERE, PPO, Data
from benchmarks.results_habits import side_by_side, watch
from benchmarks.sim_players import is_trained
from sleepgym.episode.actions import Action
from sleepgym.evaluation import ScoreError, ScoreMatrix, simulate
from sleepgym.evaluation.plots import LearningCurve
from sleepgym.leaderboard.playing import FIRST_SEED
from sleepgym.leaderboard.submission import SCORES, folder_name
from sleepgym.schedulers.named import RULES
from sleepgym.sim.maker import setting_and_response

VALIDATION = range(1000, 1256)
"""Seeds of the simulated streams on which agents/ppo.py validates."""


@dataclass
class Args:
    played: Path = Path("runs/leaderboard")
    """folder of folders that `sleepgym leaderboard --out` wrote, one per environment, called by its id"""
    planner: Path = Path("runs/leaderboard/planner")
    """the same, of the planner and its few streams of the first environment, and of whom it is compared with"""
    trained: Path = Path("runs/result")
    """folder of the training runs' folders"""
    policies: Path = Path("agents/pretrained")
    """folder of the policies"""
    env_id: str = "SleepLLM-v0"
    """the environment that they were trained in"""
    transfer: tuple[str, ...] = ELSEWHERE
    """environments that a policy plays untouched"""
    only_transfer: bool = False
    """add what was played in these environments, and leave the rest of the page as it is"""
    watched: int = 3
    """validation streams on which each policy's choices are looked at; 0 for none"""
    watch_seed: int = 1000
    """seed of the first of them"""
    shown: int = FIRST_SEED
    """seed of the test stream on which an episode of the first policy is shown beside one of the best rule"""
    out: Path = Path("docs/results")
    """folder of raw data and pictures; the page lies beside it"""


# ------------------------------------------------------------------- what was played


def matrices(folder: Path) -> dict[str, ScoreMatrix]:
    """Scores by scheduler; all policies are runs of one."""
    found: dict[str, ScoreMatrix] = {}
    policies: list[ScoreMatrix] = []
    for path in sorted(folder.glob(f"*/{SCORES}")):
        one = ScoreMatrix.load(path)
        if is_trained(one.name):
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
    """A scalar of every run's tensorboard log, with the median wall time: a run that was interrupted took longer."""
    runs, times = [], []
    for folder in folders:
        log = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        log.Reload()
        begun = log.FirstEventTimestamp()
        events = log.Scalars(tag)
        runs.append({event.step: event.value for event in events})
        times.append({event.step: (event.wall_time - begun) / 60 for event in events})
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    return LearningCurve(
        np.array(steps, np.int64),
        np.array([[run[step] for step in steps] for run in runs]),
        np.median([[run[step] for step in steps] for run in times], axis=0),
    )


def simulated(env_id: str, scheduler: str) -> float:
    """Simulated score of a rule on the streams that training validates on."""
    setting, response = setting_and_response(env_id, None, {})
    results = simulate(setting, response, RULES[scheduler](), VALIDATION)
    return round(float(np.mean([result.score for result in results])), 5)


def played(folder: Path) -> dict[str, ScoreMatrix]:
    """The same as :func:`matrices`; ends the script if there are none."""
    found = matrices(folder)
    if not found:
        raise SystemExit(f"expected entries in {folder}, found none; play them first, as docs/results.md says")
    return found


def ranked(played: str, before: str = "") -> str:
    """A leaderboard with the rows of an earlier one whose entries were not played anew, the best score first."""
    head, _, new = played.partition("| --- |")
    columns, _, new = new.partition("\n")
    old = before.partition("| --- |")[2].partition("\n")[2]
    rows: dict[str, str] = {}
    for row in (new + old).splitlines():
        rows.setdefault(row.split("|")[1].strip(), row)
    best = sorted(rows.values(), key=lambda row: -float(row.split("|")[2].split()[0]))
    return "\n".join([f"{head}| --- |{columns}", *best, ""])


def save(found: Mapping[str, Mapping[str, ScoreMatrix]], out: Path) -> None:
    """Writes scores, by environment and scheduler."""
    for env_id, scores in found.items():
        for name, one in scores.items():
            one.save(out / env_id / f"{folder_name(name)}.json")


def main(args: Args) -> None:
    torch.set_num_threads(1)
    elsewhere = {env: matrices(args.played / env) for env in args.transfer if (args.played / env).is_dir()}
    if args.only_transfer:
        save(elsewhere, args.out)
        results_page.main(results_page.Args(args.out, args.out.with_suffix(".md"), args.policies, args.env_id))
        return
    # All that is needed before anything is written.
    found = {args.env_id: played(args.played / args.env_id)} | elsewhere
    found |= {"planner": matrices(args.planner)} if args.planner.is_dir() else {}
    table = (args.played / args.env_id / "leaderboard.md").read_text(encoding="utf-8")
    shown = args.out / "leaderboard.md"
    before = shown.read_text(encoding="utf-8") if shown.exists() else ""
    paths, folders = sorted(args.policies.glob("*.zip")), sorted(args.trained.glob("ppo-*"))
    learned = curve(folders, "eval/simulated_score")

    args.out.mkdir(parents=True, exist_ok=True)
    save(found, args.out)
    shown.write_text(f"# {args.env_id}\n\n{ranked(table, before)}", encoding="utf-8")
    rounded = {"steps": learned.steps.tolist(), "scores": np.round(learned.scores, 5).tolist()}
    rounded["minutes"] = np.round(np.asarray(learned.minutes), 2).tolist()
    rules = sorted(path.stem for path in (args.out / args.env_id).glob("*.json") if path.stem in RULES)
    rounded["references"] = {name: simulated(args.env_id, name) for name in rules}
    records.write(args.out / "learning.json", rounded, indent=None)
    if args.watched:
        seeds = range(args.watch_seed, args.watch_seed + args.watched)
        moments = [moment.row() for moment in watch(paths, args.env_id, seeds)]
        habits = {"env_id": args.env_id, "streams": list(seeds), "policies": [path.name for path in paths]}
        columns = ["hour", "load", "degraded", *(action.name for action in Action)]
        record = records.circumstances() | habits | {"columns": columns, "moments": moments}
        records.write(args.out / "habits.json", record, indent=None)
        rule = Data.read(args.out, args.policies, args.env_id).rule
        beside = side_by_side([str(paths[0]), rule], args.env_id, args.shown)
        records.write(args.out / "episode.json", records.circumstances() | beside, indent=None)
    results_page.main(results_page.Args(args.out, args.out.with_suffix(".md"), args.policies, args.env_id))


if __name__ == "__main__":
    main(tyro.cli(Args))
