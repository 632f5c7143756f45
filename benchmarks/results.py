"""Collects what trained policies scored, how they learned and when they sleep: raw data of docs/results.md.

    python benchmarks/results.py
    python benchmarks/results.py --parts scores planner    # these only, and the page of all that is recorded

Reads what was played (`sleepgym leaderboard ... --out runs/leaderboard/ENV`, the planner's few streams in
`runs/leaderboard/planner`) and what was logged in training (`runs/result/ppo-1` and so on), lets the policies play some
validation streams to see when they sleep, and writes scores, curves and habits as JSON. benchmarks/results_page.py,
which is called last, makes tables and pictures of them. docs/results.md says which commands come before.

Who has not played anew keeps the recorded scores if this machine scores like the one on which they were played,
which is tried with the first recorded stream. Otherwise a table would compare machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import tyro
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks import results_page
from benchmarks.common import records
from benchmarks.results_data import ELSEWHERE, OFFLINE, PLANNER, PPO, Way, best_rule, recorded
from benchmarks.results_habits import side_by_side, watch
from benchmarks.sim_players import is_trained
from sleepgym.episode.actions import Action
from sleepgym.evaluation import ScoreError, ScoreMatrix, run_episode, simulate
from sleepgym.evaluation.plots import LearningCurve
from sleepgym.leaderboard.players import player_named
from sleepgym.leaderboard.playing import FIRST_SEED, make_test_env
from sleepgym.leaderboard.submission import POLICY, SCORES, TOLERANCE, folder_name
from sleepgym.schedulers.named import RULES
from sleepgym.sim.maker import setting_and_response
from sleepgym.training import PolicyCard

VALIDATION = range(1000, 1256)
"""Seeds of the simulated streams on which agents/ppo.py validates."""

Part = Literal["scores", "planner", "elsewhere", "ways", "learning", "habits"]


@dataclass
class Args:
    played: Path = Path("runs/leaderboard")
    """folder of folders that `sleepgym leaderboard --out` wrote, one per environment, called by its id"""
    planner: Path = Path("runs/leaderboard/planner")
    """the same, of the planner and its few streams of the first environment, and of whom it is compared with"""
    ways: Path = Path("runs/leaderboard/ways")
    """the same, of policies that were trained in other ways, a folder per way and called by it"""
    trained: Path = Path("runs/result")
    """folder of the training runs' folders"""
    policies: Path = Path("agents/pretrained")
    """folder of the policies"""
    env_id: str = "SleepLLM-v0"
    """the environment that they were trained in"""
    transfer: tuple[str, ...] = ELSEWHERE
    """environments that a policy plays untouched"""
    parts: tuple[Part, ...] = get_args(Part)
    """what is recorded anew"""
    watched: int = 3
    """validation streams on which each policy's choices are looked at"""
    watch_seed: int = 1000
    """seed of the first of them"""
    shown: int = FIRST_SEED
    """seed of the test stream on which an episode of the first policy is shown beside one of the best rule"""
    out: Path = Path("docs/results")
    """folder of raw data and pictures; the page lies beside it"""


# ------------------------------------------------------------------- what was played


def matrices(folder: Path) -> dict[str, ScoreMatrix]:
    """Scores by scheduler; all policies that learned in one way are runs of one."""
    found: dict[str, ScoreMatrix] = {}
    learned: dict[str, list[ScoreMatrix]] = {}
    for path in sorted(folder.glob(f"*/{SCORES}")):
        one = ScoreMatrix.load(path)
        if is_trained(one.name):
            learned.setdefault(learner_of(path.with_name(POLICY)), []).append(one)
        else:
            found[one.name] = one
    for name, policies in learned.items():
        if len({one.streams for one in policies}) > 1:
            raise ScoreError(f"expected policies on the same streams in {folder}; play those that differ again")
        found[name] = ScoreMatrix(name, policies[0].streams, np.concatenate([one.scores for one in policies]))
    return found


def learner_of(card: Path) -> str:
    """How an entry's policy learned, from its card: as agents/offline.py says, or else by PPO."""
    algorithm = PolicyCard.read(card).arguments.get("algorithm")
    return OFFLINE.get(str(algorithm), PPO)


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


def scored_elsewhere(scores: Mapping[str, ScoreMatrix], env_id: str) -> str:
    """What tells that this machine scores otherwise than the one on which a hand-written scheduler played; else empty.

    Args:
        scores: Recorded scores by scheduler.
        env_id: Environment.
    """
    name = next((name for name in scores if name in RULES), None)
    if name is None:
        return "no hand-written scheduler is recorded to play again"
    seed, before = scores[name].streams[0], float(scores[name].scores[0, 0])
    env = make_test_env(env_id)
    player = player_named(name, env)
    now = run_episode(player.wrap(env), player.scheduler, int(seed))
    if abs(now.score - before) <= TOLERANCE:
        return ""
    return f"{name} on stream {seed}: {now.score:.4f}, recorded {before:.4f}"


def record_scores(args: Args, env_id: str) -> None:
    """Writes what was played in an environment, and its table, beside what is recorded of it."""
    folder = args.out / env_id
    new = played(args.played / env_id)
    before = recorded(folder)
    kept = [name for name in before if name not in new]
    if kept and (found := scored_elsewhere(before, env_id)):
        raise SystemExit(
            f"expected scores of one machine in {folder}, found others here ({found}); "
            f"play {', '.join(kept)} anew, or delete {'its' if len(kept) == 1 else 'their'} records"
        )
    table = (args.played / env_id / "leaderboard.md").read_text(encoding="utf-8")
    for name, one in new.items():
        one.save(folder / f"{folder_name(name)}.json")
    if env_id == args.env_id:
        shown = args.out / "leaderboard.md"
        old = shown.read_text(encoding="utf-8") if kept and shown.exists() else ""
        shown.write_text(f"# {env_id}\n\n{ranked(table, old)}", encoding="utf-8")


def record_planner(args: Args) -> None:
    """Writes the scores of the planner, which are compared with those of the environment that was trained on.

    What lies beside them is of an earlier planner, and goes.
    """
    new, folder = played(args.planner), args.out / "planner"
    if others := [name for name in new if not name.startswith(PLANNER)]:
        raise SystemExit(
            f"expected entries of {PLANNER} in {args.planner}, found {others[0]}; play it into a folder apart"
        )
    for path in folder.glob("*.json"):
        path.unlink()
    for name, one in new.items():
        one.save(folder / f"{folder_name(name)}.json")


def record_ways(args: Args) -> None:
    """Writes scores, steps and minutes of policies that were trained in other ways."""
    ways: dict[str, Way] = {}
    for folder in sorted(path for path in args.ways.iterdir() if path.is_dir()):
        scores = played(folder).get(PPO)
        if scores is None:
            raise SystemExit(f"expected entries of policies in {folder}, found none; play policies there")
        cards = [PolicyCard.read(path) for path in sorted(folder.glob(f"*/{POLICY}"))]
        name = folder.name.replace("_", " ")
        ways[name] = Way.of_cards(ScoreMatrix(name, scores.streams, scores.scores), cards)
    record = records.circumstances() | {"ways": {name: way.record() for name, way in ways.items()}}
    records.write(args.out / "ways.json", record, indent=None)


def record_learning(args: Args) -> None:
    """Writes what the training runs logged."""
    learned = curve(sorted(args.trained.glob("ppo-*")), "eval/simulated_score")
    rounded = {"steps": learned.steps.tolist(), "scores": np.round(learned.scores, 5).tolist()}
    rounded["minutes"] = np.round(np.asarray(learned.minutes), 2).tolist()
    rules = sorted(name for name in recorded(args.out / args.env_id) if name in RULES)
    rounded["references"] = {name: simulated(args.env_id, name) for name in rules}
    records.write(args.out / "learning.json", rounded, indent=None)


def record_habits(args: Args) -> None:
    """Writes what policies do, and one episode beside one of the best rule."""
    paths = sorted(args.policies.glob("*.zip"))
    seeds = range(args.watch_seed, args.watch_seed + args.watched)
    moments = [moment.row() for moment in watch(paths, args.env_id, seeds)]
    habits = {"env_id": args.env_id, "streams": list(seeds), "policies": [path.name for path in paths]}
    columns = ["hour", "load", "degraded", *(action.name for action in Action)]
    record = records.circumstances() | habits | {"columns": columns, "moments": moments}
    records.write(args.out / "habits.json", record, indent=None)
    rule = best_rule(recorded(args.out / args.env_id))
    beside = side_by_side([str(paths[0]), rule], args.env_id, args.shown)
    records.write(args.out / "episode.json", records.circumstances() | beside, indent=None)


def main(args: Args) -> None:
    torch.set_num_threads(1)
    if "scores" in args.parts:
        record_scores(args, args.env_id)
    if "planner" in args.parts and args.planner.is_dir():
        record_planner(args)
    if "elsewhere" in args.parts:
        for env_id in args.transfer:
            if (args.played / env_id).is_dir():
                record_scores(args, env_id)
    if "ways" in args.parts and args.ways.is_dir():
        record_ways(args)
    if "learning" in args.parts:
        record_learning(args)
    if "habits" in args.parts:
        record_habits(args)
    results_page.main(results_page.Args(args.out, args.out.with_suffix(".md"), args.policies, args.env_id))


if __name__ == "__main__":
    main(tyro.cli(Args))
