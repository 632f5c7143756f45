"""Dashboard: tensorboard logs of episodes, under the same names whoever acted in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from sleepgym.env.spaces import operator_of
from sleepgym.episode.actions import Action
from sleepgym.episode.card import Card
from sleepgym.evaluation import EpisodeResult

EPISODE_TAGS = ("score", "recall", "edits_used", "sleeps", "naps", "ppl_ratio", "degraded", "gpu_or_cpu_seconds")
"""What is logged of every episode, as ``sleepgym/score`` and so on. Seconds are those that the environment took on
whatever it ran on; what several episodes did in the same passes is divided evenly between them."""

LAYOUT: Mapping[str, Any] = {
    "sleepgym": {
        "questions answered": ["Multiline", ["sleepgym/score", "eval/mean_score"]],
        "facts kept": ["Multiline", ["sleepgym/recall", "eval/mean_recall"]],
        "what is done": ["Multiline", [f"sleepgym/action_frac/{action.name}" for action in Action]],
        "nights and naps": ["Multiline", ["sleepgym/sleeps", "sleepgym/naps"]],
        "edits": ["Multiline", ["sleepgym/edits_used", "sleepgym/degraded"]],
        "damage": ["Multiline", ["sleepgym/ppl_ratio", "eval/mean_ppl_ratio"]],
        "seconds": ["Multiline", ["sleepgym/gpu_or_cpu_seconds", "eval/mean_gpu_or_cpu_seconds"]],
    },
    "learning": {
        "return": ["Multiline", ["rollout/ep_rew_mean", "eval/mean_reward"]],
        "losses": ["Multiline", ["train/policy_gradient_loss", "train/value_loss", "train/entropy_loss", "train/loss"]],
        "update": ["Multiline", ["train/approx_kl", "train/clip_fraction", "train/explained_variance"]],
        "steps per second": ["Multiline", ["time/fps"]],
    },
}
"""Charts of tensorboard's page "custom scalars"."""


class Dashboard:
    """Writes what happens in episodes where tensorboard finds it.

    | Tag | What |
    |-----|------|
    | ``sleepgym/...`` | one episode that ended: :data:`EPISODE_TAGS`, and ``action_frac/WAIT`` and so on |
    | ``eval/mean_...`` | means over evaluated episodes, by the same names, and ``reward`` and ``ep_length`` |
    | ``eval/seconds`` | how long the evaluation took |
    | ``hypnogram`` | pictures of episodes |
    | ``card``, ``policy``, ``arguments`` | texts: what is played, by whom, and with which arguments |

    It knows no learning library: hand-written schedulers log with it as well.

    Args:
        writer: Where it goes: a folder for a writer of its own, or one that somebody else writes to as well.
            Tensorboard expects one writer per folder.
    """

    def __init__(self, writer: SummaryWriter | str | Path) -> None:
        self.writer = writer if isinstance(writer, SummaryWriter) else SummaryWriter(str(writer))
        self.writer.add_custom_scalars(LAYOUT)

    def episode(self, figures: Mapping[str, float], step: int) -> None:
        """Logs an episode that ended.

        Args:
            figures: See :func:`figures_of_info` and :func:`figures_of_result`.
            step: Where on the horizontal axis.
        """
        for name, value in figures.items():
            self.writer.add_scalar(f"sleepgym/{name}", value, step)

    def evaluation(self, results: list[EpisodeResult], seconds: float, step: int) -> None:
        """Logs means over evaluated episodes.

        Args:
            results: At least one.
            seconds: Measured time of all of them.
            step: Where on the horizontal axis.
        """
        for name, value in means_of(results).items():
            self.writer.add_scalar(f"eval/mean_{name}", value, step)
        self.writer.add_scalar("eval/seconds", seconds, step)

    def picture(self, picture: NDArray[np.uint8], step: int, tag: str = "hypnogram") -> None:
        """Shows a picture, uint8 ``[height, width, 3]``."""
        self.writer.add_image(tag, picture, step, dataformats="HWC")

    def card(self, card: Card) -> None:
        """Shows all numbers of the environment."""
        self.text("card", card.model_dump_json(indent=1, exclude_none=True))

    def policy(self, about: str, step: int = 0) -> None:
        """Shows who plays: a policy's card, or a scheduler with its numbers."""
        self.text("policy", about, step)

    def text(self, tag: str, words: str, step: int = 0) -> None:
        """Shows a text as it stands, such as JSON."""
        # Tensorboard reads Markdown: what is indented is left as it is.
        self.writer.add_text(tag, "\n".join(f"    {line}" for line in words.splitlines()), step)

    def arguments(self, values: Mapping[str, Any], metrics: tuple[str, ...]) -> None:
        """Shows the arguments of a run as a text, and lists it on the page "hparams".

        Args:
            values: Of the run; what is no number, string or truth value is shown as a string.
            metrics: Tags of scalars that runs are compared by.
        """
        self.text("arguments", json.dumps(dict(values), indent=1, default=str))
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values.items()}
        # Not `writer.add_hparams`: it opens a run of its own in a folder below.
        for summary in hparams(plain, dict.fromkeys(metrics, 0.0)):
            self.writer._get_file_writer().add_summary(summary)

    def close(self) -> None:
        """Writes what is left, and closes the writer."""
        self.writer.close()


class Spectator:
    """Takes a picture of one episode while many are evaluated.

    ::

        spectator = Spectator(lambda: gym.make("SleepLLM-v0", render_mode="rgb_array"), seed=1000)
        evaluate(spectator.make, scheduler, range(1000, 1008), on_episode=spectator)
        dashboard.picture(spectator.picture, step=0)

    Args:
        make_env: Makes an environment that renders pictures.
        seed: Of the episode that is wanted.

    Attributes:
        picture: uint8 ``[height, width, 3]``, once the episode has ended.
    """

    def __init__(self, make_env: Callable[[], gym.Env[Any, Any]], seed: int) -> None:
        self.make_env, self.seed = make_env, seed
        self.picture: NDArray[np.uint8] | None = None
        self._envs: list[gym.Env[Any, Any]] = []

    def make(self) -> gym.Env[Any, Any]:
        """An environment to be watched."""
        self._envs.append(self.make_env())
        return self._envs[-1]

    def __call__(self, result: EpisodeResult) -> None:
        """Takes the picture if this is the episode: its environment still stands where it ended."""
        if result.seed == self.seed:
            env = next(env for env in self._envs if env.unwrapped.np_random_seed == self.seed)
            self.picture = np.asarray(env.render(), np.uint8)


def figures_of_info(info: Mapping[str, Any]) -> dict[str, float]:
    """What :meth:`Dashboard.episode` logs, from the info of an episode's last step.

    Args:
        info: From an environment inside :class:`~sleepgym.env.wrappers.RecordSleepStatistics`.
    """
    actions = info["sleep"]["actions"]
    shares = {f"action_frac/{action.name}": float(actions[action.name.lower()]) for action in Action}
    return {name: float(info[_NAMES.get(name, name)]) for name in EPISODE_TAGS} | shares


def figures_of_result(result: EpisodeResult) -> dict[str, float]:
    """The same from an evaluated episode."""
    # On a card with parameters an action has further parts.
    operators = [operator_of(action) for action in result.actions]
    shares = np.bincount(operators, minlength=len(Action)) / len(operators)
    figures = {name: float(getattr(result, _NAMES.get(name, name))) for name in EPISODE_TAGS}
    return figures | {f"action_frac/{action.name}": float(shares[action]) for action in Action}


def means_of(results: list[EpisodeResult]) -> dict[str, float]:
    """Means of what :func:`figures_of_result` says, of ``reward``, the undiscounted return, and of ``ep_length``."""
    more = ({"reward": result.episode_return, "ep_length": len(result.actions)} for result in results)
    figures = [figures_of_result(result) | others for result, others in zip(results, more, strict=True)]
    return {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}


_NAMES = {"gpu_or_cpu_seconds": "seconds"}
