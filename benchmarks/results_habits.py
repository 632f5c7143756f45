"""What trained policies do: how likely each action is by time and load, and one episode beside that of a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.common import markdown, plots
from sleepgym.env.observation import stats_column
from sleepgym.env.render.picture import figure, to_array
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.episode.history import History, Standing
from sleepgym.episode.stream import Rhythm
from sleepgym.evaluation import evaluate, run_episode
from sleepgym.leaderboard.players import player_named
from sleepgym.leaderboard.playing import make_test_env
from sleepgym.training import load_policy

EDGES = {"load": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "degraded": (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)}
"""Lower edges of the rows of the maps, shares of the ledger's capacity."""


@dataclass(frozen=True)
class Moment:
    """A step of a policy.

    Attributes:
        hour: Ticks since the night began, below a day.
        load: Sum of the scales of all edits, relative to the ledger's capacity.
        degraded: Facts known to be degraded, relative to the ledger's capacity.
        chances: Probability of each action, in the order of :class:`Action`.
    """

    hour: int
    load: float
    degraded: float
    chances: tuple[float, ...]

    def row(self) -> list[float]:
        """Returns the numbers as a row of JSON."""
        return [self.hour, *(round(number, 4) for number in (self.load, self.degraded, *self.chances))]

    @classmethod
    def of_row(cls, row: Sequence[float]) -> Moment:
        """Reads a row that :meth:`row` has returned."""
        hour, load, degraded, *chances = row
        return cls(int(hour), load, degraded, tuple(chances))


class _Watched:
    """A policy in one episode that records how likely each action is."""

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
        with torch.no_grad():
            tensors, _ = self.policy.policy.obs_to_tensor(observation)
            law = self.policy.policy.get_distribution(tensors, action_masks=action_masks).distribution
        load, degraded = (float(stats_column(observation, name)[0]) for name in EDGES)
        hour = self.env.episode.stream.rhythm.since_nightfall(self.env.episode.tick)
        self.moments.append(Moment(hour, load, degraded, tuple(law.probs[0].tolist())))
        return self.policy.predict(observation, state, deterministic=deterministic, action_masks=action_masks)


def watch(paths: Sequence[Path], env_id: str, seeds: Sequence[int]) -> list[Moment]:
    """Lets policies play validation streams of the real environment.

    Args:
        paths: Files of the policies.
        env_id: Id of the environment.
        seeds: Seeds of the streams.
    """
    moments: list[Moment] = []
    for path in paths:
        policy, _ = load_policy(path)

        def begin(env: SleepEnv, seed: int, policy: Any = policy) -> _Watched:
            return _Watched(policy, env, moments)

        evaluate(partial(SleepEnv, env_id, "validation"), begin, seeds, slots=1)
    return moments


def habits(moments: Sequence[Moment], night: int) -> str:
    """Tabulates the mean probability of every action by time and load, with the number of steps.

    Args:
        moments: Steps of policies.
        night: Ticks of the shortest night.
    """
    lots = ((0.0, 0.2, "a load below 0.2"), (0.2, 0.4, "0.2 to 0.4"), (0.4, 9.0, "0.4 and more"))
    rows = []
    for when, dark in (("at night", True), ("by day", False)):
        for low, high, load in lots:
            of = [m for m in moments if (m.hour < night) is dark and low <= m.load < high]
            chances = np.mean([m.chances for m in of], 0) if of else []
            rows.append([f"{when}, {load}", *(f"{chance:.2f}" for chance in chances), str(len(of))])
    return markdown.table(["", *(action.name for action in Action), "steps"], [row for row in rows if len(row) > 2])


def habit_figure(moments: Sequence[Moment], day: int, night: int) -> Figure:
    """Draws the mean probability of every action but WAIT by the time since nightfall, and by load or known damage.

    Args:
        moments: Steps of policies.
        day: Ticks of a day.
        night: Ticks of the shortest night.
    """
    actions = [action for action in Action if action != Action.WAIT]
    drawn, axes = plots.panels(2 * len(actions), len(actions), (12.0, 5.2), sharey=False)
    for number, (name, edges) in enumerate(EDGES.items()):
        rows = np.searchsorted(edges, [getattr(m, name) for m in moments], side="right") - 1
        hours = np.array([m.hour for m in moments])
        for place, action in enumerate(actions):
            sums, counts = np.zeros((2, len(edges), day))
            np.add.at(sums, (rows, hours), [m.chances[action] for m in moments])
            np.add.at(counts, (rows, hours), 1)
            panel = axes[number * len(actions) + place]
            with np.errstate(invalid="ignore"):
                image = panel.imshow(sums / counts, origin="lower", aspect="auto", vmin=0, vmax=1, cmap="viridis")
            panel.set_yticks(range(len(edges)), [f"{edge:.2f}" for edge in edges] if not place else [])
            panel.axvspan(-0.5, night - 0.5, ymin=0, ymax=0.03, color="black")
            if not number:
                panel.set_title(action.name)
            else:
                panel.set_xlabel("ticks since nightfall")
            if not place:
                panel.set_ylabel(f"{name} from ... on")
    drawn.colorbar(image, ax=axes, label="probability")
    return drawn


# ------------------------------------------------------------------- one episode, twice


def side_by_side(names: Sequence[str], env_id: str, seed: int) -> dict[str, Any]:
    """Lets players live through one test stream, and returns what happened as JSON.

    Args:
        names: Players.
        env_id: Id of the environment.
        seed: Seed of the stream.
    """
    episodes = {}
    for name in names:
        env = make_test_env(env_id)
        player = player_named(name, env)
        result = run_episode(player.wrap(env), player.scheduler, seed)
        history = env.episode.history
        columns = {
            column: [round(value, 4) if isinstance(value, float) else value for value in values]
            for column, values in history.columns().items()
        }
        episodes[name] = {"score": result.score, "rhythm": asdict(history.rhythm), **columns}
    return {"env_id": env_id, "seed": seed, "horizon": env.card.horizon, "episodes": episodes}


def _history(episode: Mapping[str, Any]) -> History:
    columns = {name: values for name, values in episode.items() if name not in ("score", "rhythm")}
    return History(Rhythm(**episode["rhythm"]), **columns)


def episode_figure(record: Mapping[str, Any]) -> Figure:
    """Draws the episodes of :func:`side_by_side` beside each other, each as the environment renders it."""
    pictures = [to_array(figure(_history(of), record["horizon"])) for of in record["episodes"].values()]
    pixels = np.concatenate(pictures, 1)
    height, width, _ = pixels.shape
    # One pixel of the figure for each of theirs.
    both = Figure(figsize=(width / 100, height / 100), dpi=100)
    both.figimage(pixels, origin="upper")
    return both


def episode_table(record: Mapping[str, Any]) -> str:
    """Tabulates what differs between the episodes of :func:`side_by_side`."""
    columns = {name: _measures(_history(of), of["score"]) for name, of in record["episodes"].items()}
    first = next(iter(columns.values()))
    return markdown.table(
        ["", *(f"`{name}`" for name in columns)], [[row, *(of[row] for of in columns.values())] for row in first]
    )


def _measures(history: History, score: float) -> dict[str, str]:
    """Numbers of one episode in words."""
    ticks, doing = range(len(history)), history.doing
    begun = [tick for tick in ticks if doing[tick] == "SLEEP" and not (tick and doing[tick - 1] == "SLEEP")]
    by_night = sum(history.rhythm.is_night(tick) for tick in begun)
    before = [history.standings[max(0, tick - 1)] for tick in begun]

    def share(standing: Standing) -> str:
        return f"{np.mean([of.count(standing) / len(of) for of in history.standings if of]):.2f}"

    return {
        "score": f"{score:.3f}",
        "falls asleep, of which at night": f"{len(begun)}, {by_night}",
        "ticks offline": str(sum(history.offline)),
        "facts answered wrongly when a night begins": f"{np.mean([of.count(Standing.WRONG) for of in before]):.1f}"
        if before
        else "no night",
        "refreshes": str(doing.count("REFRESH")),
        "naps": str(doing.count("NAP")),
        "share of facts right, mean over ticks": share(Standing.RIGHT),
        "wrong": share(Standing.WRONG),
        "waiting": share(Standing.WAITING),
        "lost": share(Standing.LOST),
        "edit budget left at the end": f"{history.budget_left[-1]:.2f}",
    }
