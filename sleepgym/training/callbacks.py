"""Callbacks of Stable-Baselines3: validation with early stopping or in the sim, checkpoints, and the dashboard."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat

from sleepgym.evaluation import evaluate, simulate
from sleepgym.training.dashboard import Dashboard, Spectator, figures_of_info, means_of
from sleepgym.training.policy_card import PolicyCard
from sleepgym.training.sim_vector import is_sim


class DashboardCallback(BaseCallback):
    """Logs every training episode with the tags of :mod:`sleepgym.training.dashboard`.

    Values are means over the episodes that end between two dumps of the logger, as for ``rollout/ep_rew_mean``.

    Args:
        card: Policy card, logged with its arguments.

    Attributes:
        dashboard: Dashboard, set when training starts; None if the logger does not write for tensorboard.
    """

    def __init__(self, card: PolicyCard) -> None:
        super().__init__()
        self.card = card
        self.dashboard: Dashboard | None = None

    def _on_training_start(self) -> None:
        formats = [f for f in self.logger.output_formats if isinstance(f, TensorBoardOutputFormat)]
        if formats:
            # The logger's own writer, since tensorboard follows only one growing file per folder.
            self.dashboard = Dashboard(formats[0].writer)
            self.dashboard.card(self.training_env.get_attr("card", indices=[0])[0])
            self.dashboard.policy(self.card.about(), self.num_timesteps)
            metrics = ("eval/mean_score", "sleepgym/score", "rollout/ep_rew_mean")
            self.dashboard.arguments(self.card.arguments, metrics)

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "relative_return" in info:
                self.logger.record_mean("rollout/relative_return", info["relative_return"])
            if "sleep" in info:
                for name, value in figures_of_info(info).items():
                    self.logger.record_mean(f"sleepgym/{name}", value, exclude="stdout")
        return True


class BestCallback(BaseCallback):
    """Scores the policy at intervals, and saves the best one.

    Args:
        card: Policy card, which names the environment.
        seeds: Seeds of the validation streams.
        every: Steps between validations.
        folder: Folder of ``best.zip`` and ``best.json``. Where training is resumed, the best policy of the same
            environment and algorithm that is there is kept until one scores higher.
        patience: Number of validations without a higher score after which training stops; 0 for no early stopping.

    Attributes:
        FIELD: Field of the policy card that has the score.
        best: Best mean score so far; minus infinity before the first validation.
        without_gain: Number of validations since the best one.
        scores: Mean score by step.
    """

    FIELD: ClassVar[str]

    def __init__(self, card: PolicyCard, seeds: Sequence[int], every: int, folder: Path, patience: int = 0) -> None:
        super().__init__()
        self.card, self.seeds, self.every, self.path = card, seeds, every, folder / "best.zip"
        self.patience, self.without_gain = patience, 0
        self.best = -np.inf
        self.scores: dict[int, float] = {}

    def _on_training_start(self) -> None:
        # A new run owes nothing to the one that was in its folder before.
        if self.num_timesteps and self.path.is_file():
            before = PolicyCard.read(self.path)
            if (before.algorithm, before.spec) == (self.card.algorithm, self.card.spec):
                self.best = getattr(before, self.FIELD) or self.best
        self._next = self.num_timesteps + self.every

    def _on_step(self) -> bool:
        if self.num_timesteps < self._next:
            return True
        self._next = self.num_timesteps + self.every
        self.validate()
        return not (self.patience and self.without_gain >= self.patience)

    @abstractmethod
    def validate(self) -> None:
        """Runs a validation."""

    def keep(self, score: float) -> PolicyCard | None:
        """Notes a score, and saves the policy if it is the best.

        Returns:
            The policy's card if it was saved, else None.
        """
        self.scores[self.num_timesteps] = score
        if score <= self.best:
            self.without_gain += 1
            return None
        self.best, self.without_gain = score, 0
        card = self.card.after(self.model).model_copy(update={self.FIELD: score})
        card.save(self.model, self.path)
        return card


class ValidationCallback(BestCallback):
    """Evaluates the policy on validation streams at intervals, saves the best one, and stops training early.

    It logs ``eval/mean_score``, ``eval/mean_reward`` and the means of all other tags of
    :mod:`sleepgym.training.dashboard`, ``eval/best_score``, ``eval/seconds``, and a picture of the first stream.
    Policies act deterministically, and are given action masks if their algorithm supports them.

    Stable-Baselines3's ``EvalCallback`` compares rewards and runs environments one by one; this callback compares
    scores, and episodes share forward passes.

    Args:
        card: Policy card, which names the environment.
        seeds: Seeds of the validation streams.
        every: Steps between validations.
        folder: See :class:`BestCallback`.
        patience: See :class:`BestCallback`.
        slots: Maximum number of parallel episodes.
        dashboard: Callback whose dashboard shows pictures; None for no pictures.
    """

    FIELD = "validation_score"

    def __init__(
        self,
        card: PolicyCard,
        seeds: Sequence[int],
        every: int,
        folder: Path,
        patience: int = 0,
        slots: int = 16,
        dashboard: DashboardCallback | None = None,
    ) -> None:
        super().__init__(card, seeds, every, folder, patience)
        self.slots, self.shows = slots, dashboard

    def validate(self) -> None:
        """Runs a validation."""
        start = time.perf_counter()
        spectator = Spectator(lambda: self.card.spec.make("validation", "rgb_array"), self.seeds[0])
        shown = self.shows.dashboard if self.shows is not None else None
        if shown is None:
            results = evaluate(spectator.make, self.model, self.seeds, self.slots)
        else:
            results = evaluate(spectator.make, self.model, self.seeds, self.slots, spectator)
            if spectator.picture is not None:
                shown.picture(spectator.picture, self.num_timesteps, "eval/hypnogram")
        means = means_of(results)
        saved = self.keep(means["score"])
        if saved is not None and shown is not None:
            shown.policy(saved.about(), self.num_timesteps)
        for name, value in means.items():
            self.logger.record(f"eval/mean_{name}", value)
        self.logger.record("eval/best_score", self.best)
        self.logger.record("eval/seconds", time.perf_counter() - start)
        self.logger.dump(self.num_timesteps)


class SimValidationCallback(BestCallback):
    """Plays validation streams in the sim at intervals, and saves the policy with the best simulated score.

    It logs ``eval/simulated_score`` and ``eval/best_simulated_score``, which are not scores of the real environment.

    Args:
        card: Policy card.
        seeds: Seeds of the streams.
        every: Steps between validations.
        folder: See :class:`BestCallback`.
        patience: See :class:`BestCallback`.
    """

    FIELD = "simulated_score"

    def _on_training_end(self) -> None:
        if self.num_timesteps not in self.scores:
            self.validate()

    def validate(self) -> None:
        """Plays the streams once."""
        setting, response = (self.training_env.get_attr(name, [0])[0] for name in ("setting", "response"))
        results = simulate(setting, response, self.model, self.seeds)
        score = float(np.mean([result.score for result in results]))
        self.keep(score)
        self.logger.record("eval/simulated_score", score)
        self.logger.record("eval/best_simulated_score", self.best)
        self.logger.dump(self.num_timesteps)


class CheckpointCallback(BaseCallback):
    """Saves the current policy at intervals and at the end of training, so that training can be resumed.

    Args:
        card: Policy card.
        every: Steps between checkpoints.
        folder: Folder of ``last.zip`` and ``last.json``, which are replaced each time.
    """

    def __init__(self, card: PolicyCard, every: int, folder: Path) -> None:
        super().__init__()
        self.card, self.every, self.path = card, every, folder / "last.zip"

    def _on_training_start(self) -> None:
        self._next = self.num_timesteps + self.every

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._next:
            self._next = self.num_timesteps + self.every
            self._save()
        return True

    def _on_training_end(self) -> None:
        self._save()

    def _save(self) -> None:
        self.card.after(self.model).save(self.model, self.path)


def training_callbacks(
    card: PolicyCard,
    folder: Path,
    *,
    save_every: int,
    eval_every: int,
    eval_episodes: int,
    eval_seed: int,
    patience: int,
) -> list[BaseCallback]:
    """Makes the callbacks that every training script passes to ``learn``: dashboard, checkpoints and validation.

    Args:
        card: Policy card.
        folder: Folder of the best and the last policy.
        save_every: Steps between checkpoints.
        eval_every: Steps between validations.
        eval_episodes: Number of validation streams; 0 for no validation.
        eval_seed: Seed of the first validation stream; the others follow it.
        patience: See :class:`BestCallback`.
    """
    dashboard = DashboardCallback(card)
    callbacks: list[BaseCallback] = [dashboard, CheckpointCallback(card, save_every, folder)]
    seeds = range(eval_seed, eval_seed + eval_episodes)
    if eval_episodes and is_sim(card.env_id):
        callbacks.append(SimValidationCallback(card, seeds, eval_every, folder, patience))
    elif eval_episodes:
        callbacks.append(ValidationCallback(card, seeds, eval_every, folder, patience, dashboard=dashboard))
    return callbacks
