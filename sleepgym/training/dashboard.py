"""Dashboard: tensorboard logs of episodes, with the same tags for schedulers and policies of all libraries."""

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
from sleepgym.episode.actions import OPERATORS, Action
from sleepgym.episode.card import Card
from sleepgym.evaluation import EpisodeResult

EPISODE_TAGS = (
    "score",
    "recall",
    "edits_used",
    "sleeps",
    "naps",
    "ppl_ratio",
    "degraded",
    "invalid",
    "gpu_or_cpu_seconds",
)
"""Scalars of an episode, logged as ``sleepgym/score`` and so on. Seconds are the measured time of the environment on
its device; time of shared passes is divided evenly."""

LAYOUT: Mapping[str, Any] = {
    "sleepgym": {
        "questions answered": ["Multiline", ["sleepgym/score", "eval/mean_score"]],
        "facts kept": ["Multiline", ["sleepgym/recall", "eval/mean_recall"]],
        "what is done": ["Multiline", [f"sleepgym/action_frac/{action.name}" for action in Action]],
        "nights and naps": ["Multiline", ["sleepgym/sleeps", "sleepgym/naps"]],
        "forbidden or failed steps": ["Multiline", ["sleepgym/invalid", "eval/mean_invalid"]],
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
"""Layout of tensorboard's "custom scalars" page: charts with their tags, by section."""


class Dashboard:
    """Writes logs of episodes for tensorboard.

    | Tag | Content |
    |-----|---------|
    | ``sleepgym/...`` | a finished episode: :data:`EPISODE_TAGS`, and ``action_frac/WAIT`` and so on |
    | ``eval/mean_...`` | means over evaluated episodes, by the same names, and ``reward`` and ``ep_length`` |
    | ``eval/seconds`` | duration of the evaluation |
    | ``hypnogram`` | pictures of episodes |
    | ``card``, ``policy``, ``arguments`` | texts: environment card, policy card or rule, arguments of the run |

    It is independent of learning libraries: hand-written schedulers are logged with it as well.

    Args:
        writer: Folder, for which a writer is made, or an existing writer; tensorboard expects one writer per folder.
    """

    def __init__(self, writer: SummaryWriter | str | Path) -> None:
        self.writer = writer if isinstance(writer, SummaryWriter) else SummaryWriter(str(writer))
        self.writer.add_custom_scalars(LAYOUT)

    def episode(self, figures: Mapping[str, float], step: int) -> None:
        """Logs a finished episode.

        Args:
            figures: Scalars by tag, see :func:`figures_of_info` and :func:`figures_of_result`.
            step: Step on the horizontal axis.
        """
        for name, value in figures.items():
            self.writer.add_scalar(f"sleepgym/{name}", value, step)

    def evaluation(self, results: list[EpisodeResult], seconds: float, step: int) -> None:
        """Logs means over evaluated episodes.

        Args:
            results: Results, at least one.
            seconds: Duration of the evaluation.
            step: Step on the horizontal axis.
        """
        for name, value in means_of(results).items():
            self.writer.add_scalar(f"eval/mean_{name}", value, step)
        self.writer.add_scalar("eval/seconds", seconds, step)

    def picture(self, picture: NDArray[np.uint8], step: int, tag: str = "hypnogram") -> None:
        """Logs a picture, uint8 ``[height, width, 3]``."""
        self.writer.add_image(tag, picture, step, dataformats="HWC")

    def card(self, card: Card) -> None:
        """Logs the environment card."""
        self.text("card", card.model_dump_json(indent=1, exclude_none=True))

    def policy(self, about: str, step: int = 0) -> None:
        """Logs the description of the policy: a policy card, or the rule of a scheduler."""
        self.text("policy", about, step)

    def text(self, tag: str, words: str, step: int = 0) -> None:
        """Logs a text verbatim, such as JSON."""
        # Tensorboard renders Markdown: indented lines are code and stay verbatim.
        self.writer.add_text(tag, "\n".join(f"    {line}" for line in words.splitlines()), step)

    def arguments(self, values: Mapping[str, Any], metrics: tuple[str, ...]) -> None:
        """Logs the arguments of a run as a text and on tensorboard's "hparams" page.

        Args:
            values: Arguments by name; values other than numbers, strings and booleans are logged as strings.
            metrics: Tags of the scalars by which runs are compared.
        """
        self.text("arguments", json.dumps(dict(values), indent=1, default=str))
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values.items()}
        # Not `writer.add_hparams`, which opens a separate run in a subfolder.
        for summary in hparams(plain, dict.fromkeys(metrics, 0.0)):
            self.writer._get_file_writer().add_summary(summary)

    def close(self) -> None:
        """Flushes and closes the writer."""
        self.writer.close()


class Spectator:
    """Captures a picture of one episode during an evaluation.

    ::

        spectator = Spectator(lambda: gym.make("SleepLLM-v0", render_mode="rgb_array"), seed=1000)
        evaluate(spectator.make, scheduler, range(1000, 1008), on_episode=spectator)
        dashboard.picture(spectator.picture, step=0)

    Args:
        make_env: Factory of environments with render mode ``"rgb_array"``.
        seed: Seed of the episode to capture.

    Attributes:
        picture: uint8 ``[height, width, 3]`` of the finished episode; None before its end.
    """

    def __init__(self, make_env: Callable[[], gym.Env[Any, Any]], seed: int) -> None:
        self.make_env, self.seed = make_env, seed
        self.picture: NDArray[np.uint8] | None = None
        self._envs: list[gym.Env[Any, Any]] = []

    def make(self) -> gym.Env[Any, Any]:
        """Makes an environment and keeps a reference to it; for :func:`~sleepgym.evaluation.evaluate`."""
        self._envs.append(self.make_env())
        return self._envs[-1]

    def __call__(self, result: EpisodeResult) -> None:
        """Captures the picture if this is the episode; its environment has not been reset yet."""
        if result.seed == self.seed:
            env = next(env for env in self._envs if env.unwrapped.np_random_seed == self.seed)
            self.picture = np.asarray(env.render(), np.uint8)


def figures_of_info(info: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scalars of an episode by tag, from the info of its last step; for :meth:`Dashboard.episode`.

    Args:
        info: Info of an environment wrapped in :class:`~sleepgym.env.wrappers.RecordSleepStatistics`.
    """
    summary = info["sleep"]
    shares = {f"action_frac/{name.upper()}": float(share) for name, share in summary["actions"].items()}
    # Measured seconds and counts over the episode are the wrapper's; infos are of single moments, and reproducible.
    known = {**info, **summary}
    return {name: float(known[_NAMES.get(name, name)]) for name in EPISODE_TAGS} | shares


def figures_of_result(result: EpisodeResult) -> dict[str, float]:
    """Returns the scalars of an evaluated episode by tag, as :func:`figures_of_info`."""
    # On a card with parameters, actions are triples.
    operators = [operator_of(action) for action in result.actions]
    shares = np.bincount(operators, minlength=len(OPERATORS)) / len(operators)
    figures = {name: float(getattr(result, _NAMES.get(name, name))) for name in EPISODE_TAGS}
    # Those of cards with notes only where they were chosen.
    chosen = [action for action in OPERATORS if isinstance(action, Action) or shares[action]]
    return figures | {f"action_frac/{action.name}": float(shares[action]) for action in chosen}


def means_of(results: list[EpisodeResult]) -> dict[str, float]:
    """Returns the means of :func:`figures_of_result`, of ``reward`` (the undiscounted return) and of ``ep_length``.

    Args:
        results: Results, at least one.
    """
    more = ({"reward": result.episode_return, "ep_length": len(result.actions)} for result in results)
    figures = [figures_of_result(result) | others for result, others in zip(results, more, strict=True)]
    names = dict.fromkeys(name for scalars in figures for name in scalars)
    return {name: float(np.mean([scalars.get(name, 0.0) for scalars in figures])) for name in names}


_NAMES = {"gpu_or_cpu_seconds": "seconds"}
