"""RLlib on SleepEnvs: vector environment, masked PPO module, metrics, and policies from checkpoints.

It uses RLlib's new API stack (``RLModule``, ``EnvRunner``, ``ConnectorV2``) and needs the extra ``rllib``. It is part
of the package since every node of a cluster has to import it. ``agents/rllib_ppo.py`` is the training script.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule

from sleepgym.env.vector import SleepVectorEnv
from sleepgym.env.wrappers import ACTION_MASK, OBSERVATIONS, FlattenLedger, RecordSleepStatistics, RLlibActionMask
from sleepgym.sim.vector import SimVectorEnv
from sleepgym.training.dashboard import figures_of_info
from sleepgym.training.envs import EndAtHorizon, ScaleReward
from sleepgym.training.policy_card import PolicyError
from sleepgym.training.sim_vector import EpisodeSums

FIGURES = "sleepgym"
"""Key of the metrics of :class:`FiguresCallback` in the env runners' results."""


class RLlibVectorEnv(SleepVectorEnv):
    """Vector environment of one env runner, with flat observations and action masks; episodes share forward passes.

    Each environment is wrapped in :class:`RecordSleepStatistics`, :class:`EndAtHorizon`, :class:`ScaleReward`,
    :class:`FlattenLedger` and, outermost, :class:`RLlibActionMask`.

    Args:
        num_envs: Number of episodes.
        reward_scale: Factor of rewards; infos have unscaled ones.
        **arguments: Arguments of every environment; see :class:`~sleepgym.env.sleep_env.SleepEnv`.
    """

    def __init__(self, num_envs: int = 1, reward_scale: float = 1.0, **arguments: Any) -> None:
        scale = partial(ScaleReward, scale=reward_scale)
        wrappers = (RecordSleepStatistics, EndAtHorizon, scale, FlattenLedger, RLlibActionMask)
        super().__init__(num_envs, wrappers=wrappers, **arguments)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in each environment.

        Args:
            seed: Seed from which those of the environments are hashed, or one seed per environment. RLlib gives env
                runners consecutive seeds; with consecutive seeds of environments, runners would share episodes.
            options: See :meth:`SleepEnv.reset`.
        """
        return super().reset(seed=_hashed(seed, self.num_envs), options=options)


class RLlibSimVectorEnv(SimVectorEnv):
    """Vector environment of one env runner in the sim, which looks like :class:`RLlibVectorEnv` of the same card.

    Infos are empty but for the last one of an episode, since RLlib takes them apart one by one.

    Args:
        num_envs: Number of episodes.
        reward_scale: Factor of rewards; infos have unscaled ones.
        **arguments: Card and the like; see :class:`~sleepgym.sim.vector.SimVectorEnv`.
    """

    def __init__(self, num_envs: int = 1, reward_scale: float = 1.0, **arguments: Any) -> None:
        super().__init__(num_envs, flat=True, **arguments)
        self.reward_scale = reward_scale
        mask = spaces.Box(0, 1, (int(spaces.flatdim(self.single_action_space)),), np.float32)
        self.single_observation_space = spaces.Dict({OBSERVATIONS: self.single_observation_space, ACTION_MASK: mask})
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._sums = EpisodeSums(num_envs, len(self.card.operators))

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in each environment.

        Args:
            seed: See :meth:`RLlibVectorEnv.reset`.
            options: See :meth:`SimVectorEnv.reset`.
        """
        observations, infos = super().reset(seed=_hashed(seed, self.num_envs), options=options)
        self._sums.forget(infos["_tick"])
        return observations, {}

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Performs an action in each environment; the horizon terminates an episode.

        Raises:
            ActionError: Actions are not in the action space; no environment has moved.
        """
        started, begun = time.perf_counter(), self._ended
        observations, rewards, terminated, truncated, infos = super().step(actions)
        operators = np.asarray(actions).reshape(self.num_envs, -1)[:, 0]
        self._sums.add(operators, rewards, infos, time.perf_counter() - started)
        # Where an episode has just begun, the action was none of its own.
        self._sums.forget(begun)
        ended, last = terminated | truncated, dict[str, Any]()
        for row in np.flatnonzero(ended).tolist():
            last = self._add_info(last, self._sums.last_info(infos, row), row)
        return observations, rewards * self.reward_scale, ended, np.zeros_like(ended), last

    def _observed(self) -> dict[str, NDArray[np.float32]]:
        return {OBSERVATIONS: super()._observed(), ACTION_MASK: self.action_masks().astype(np.float32)}


def _hashed(seed: int | Sequence[int | None] | None, count: int) -> list[int | None] | None:
    """Returns a seed per environment, hashed from one if one is given."""
    if isinstance(seed, int):
        return list(np.random.SeedSequence(seed).generate_state(count).tolist())
    return None if seed is None else list(seed)


def flat_and_masked(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Wraps an environment as RLlib's policies expect: flat observations with an action mask."""
    return RLlibActionMask(FlattenLedger(env))


def make_vector(context: Mapping[str, Any]) -> RLlibVectorEnv:
    """Makes the vector environment of an env runner; for ``ray.tune.register_env``.

    Args:
        context: The ``env_config``, with arguments of :class:`RLlibVectorEnv`; RLlib adds ``num_envs`` if
            ``gym_env_vectorize_mode`` is ``VECTOR_ENTRY_POINT``.
    """
    return RLlibVectorEnv(**context)


def make_sim_vector(context: Mapping[str, Any]) -> RLlibSimVectorEnv:
    """Makes the vector environment of an env runner in the sim, as :func:`make_vector` that of the card itself.

    Args:
        context: The ``env_config``, with arguments of :class:`RLlibSimVectorEnv`.
    """
    return RLlibSimVectorEnv(**context)


class MaskedPPOModule(DefaultPPOTorchRLModule):
    """PPO's actor and critic with invalid action masking, on ``{"observations": ..., "action_mask": ...}``.

    The networks are those of RLlib's default module for the observations alone, with all of its settings; logits of
    invalid actions are set to the lowest finite number. Sampling, log-probabilities, entropy and gradients are those of
    the distribution over allowed actions (Huang and Ontañón 2022, arXiv:2006.14171).

    Args:
        *args: Arguments of RLlib's default module.
        observation_space: Space of :class:`~sleepgym.env.wrappers.RLlibActionMask`.
        **kwargs: Keyword arguments of RLlib's default module.

    Raises:
        TypeError: The observations have no mask.
    """

    def __init__(self, *args: Any, observation_space: gym.Space[Any], **kwargs: Any) -> None:
        if not isinstance(observation_space, spaces.Dict) or set(observation_space) != {OBSERVATIONS, ACTION_MASK}:
            raise TypeError(
                f"expected observations of {{{OBSERVATIONS!r}, {ACTION_MASK!r}}}, found {observation_space}; "
                "wrap the environment as RLlibActionMask(FlattenLedger(env))"
            )
        super().__init__(*args, observation_space=observation_space[OBSERVATIONS], **kwargs)
        # Networks take the observations alone, but RLlib rebuilds the module from its full space.
        self.observation_space = observation_space

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return _mask(super()._forward(_without_mask(batch), **kwargs), batch)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return _mask(super()._forward_train(_without_mask(batch), **kwargs), batch)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Returns the values of the observations, ``[rows]``, independent of the mask."""
        return super().compute_values(_without_mask(batch), embeddings)


def _without_mask(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of the batch without masks; RLlib reuses the batch, so that it is not changed."""
    return {**batch, Columns.OBS: batch[Columns.OBS][OBSERVATIONS]}


def _mask(outputs: dict[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
    logits, allowed = outputs[Columns.ACTION_DIST_INPUTS], batch[Columns.OBS][ACTION_MASK]
    # Not minus infinity, with which entropies and gradients would be 0 * inf = NaN.
    outputs[Columns.ACTION_DIST_INPUTS] = logits.masked_fill(allowed == 0, torch.finfo(logits.dtype).min)
    return outputs


class MeasuredPPOLearner(PPOTorchLearner):
    """RLlib's PPO learner that also reports ``approx_kl`` and ``clip_fraction``, as Stable-Baselines3 does.

    They are means over the minibatches of an update, in a module's results. RLlib itself measures the divergence only
    if it is a term of the loss.
    """

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """Returns RLlib's loss, and logs the metrics."""
        kind = self.module[module_id].unwrapped().get_train_action_dist_cls()
        with torch.no_grad():
            policy = kind.from_logits(fwd_out[Columns.ACTION_DIST_INPUTS])
            log_ratio = policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
            if Columns.LOSS_MASK in batch:
                log_ratio = log_ratio[batch[Columns.LOSS_MASK]]
            change = log_ratio.exp() - 1
            figures = {
                # Schulman 2020, http://joschu.net/blog/kl-approx.html
                "approx_kl": (change - log_ratio).mean(),
                "clip_fraction": (change.abs() > config.clip_param).float().mean(),
            }
        self.metrics.log_dict(figures, key=module_id, reduce="mean")
        return super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)


class FiguresCallback(RLlibCallback):
    """Reports metrics of episodes: ``result["env_runners"]["sleepgym"]`` has a list per metric, one number per episode.

    The metrics are those of :func:`sleepgym.training.dashboard.figures_of_info`. They are lists, since RLlib's own
    means are means over runners of means.
    """

    def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
        """Logs the metrics in the info of an episode's last step."""
        for name, value in figures_of_info(episode.get_infos(-1)).items():
            metrics_logger.log_value((FIGURES, name), float(value), reduce="item_series")


def figures_of_update(result: Mapping[str, Any]) -> dict[str, float]:
    """Returns the means of the metrics over the episodes that ended during an update; empty if none did.

    Args:
        result: Result of ``Algorithm.train``.
    """
    reported = result["env_runners"].get(FIGURES, {})
    return {name: float(np.mean(values)) for name, values in reported.items() if np.size(values)}


class RLlibPolicy:
    """Adapter of an RLlib module for :func:`~sleepgym.evaluation.evaluate`, in environments of :func:`flat_and_masked`.

    It plays flat observations as well, if it is given masks, as :func:`~sleepgym.evaluation.simulate` does.

    Args:
        module: Module such as ``Algorithm.get_module()``, which later training changes in place.
        sha256: SHA-256 of the file of its weights, for a leaderboard.

    Attributes:
        observation_space: Space of an observation without its mask.
    """

    def __init__(self, module: RLModule, sha256: str = "") -> None:
        self.module, self.sha256 = module, sha256
        self.observation_space = module.observation_space[OBSERVATIONS]

    def predict(
        self,
        observation: Mapping[str, NDArray[Any]] | NDArray[Any],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], Any]:
        """Chooses an action for each row of a batch.

        Args:
            observation: ``{"observations": [rows, numbers], "action_mask": [rows, actions]}``, or the former alone.
            state: Returned unchanged, since the module has no recurrent state.
            episode_start: Ignored, for the same reason.
            deterministic: Whether to take the likeliest action instead of sampling.
            action_masks: Masks ``[rows, actions]`` that replace those in the observation.

        Returns:
            Actions ``[rows, ...]``, and the state.

        Raises:
            ValueError: There are no masks.
        """
        inputs = dict(observation) if isinstance(observation, Mapping) else {OBSERVATIONS: observation}
        if action_masks is not None:
            inputs[ACTION_MASK] = action_masks
        if ACTION_MASK not in inputs:
            raise ValueError("expected a mask for each row, found flat observations alone; pass action_masks")
        tensors = {name: torch.as_tensor(values, dtype=torch.float32) for name, values in inputs.items()}
        outputs = self.module.forward_inference({Columns.OBS: tensors})
        actions = self.module.get_inference_action_dist_cls().from_logits(outputs[Columns.ACTION_DIST_INPUTS])
        return (actions.to_deterministic() if deterministic else actions).sample().numpy(), state


def load_rllib_policy(checkpoint: Path | str) -> RLlibPolicy:
    """Loads the policy of a checkpoint of ``agents/rllib_ppo.py``; Ray need not run.

    A checkpoint is code: RLlib unpickles parts of it, which can execute anything. Load only checkpoints from people
    that you trust.

    Args:
        checkpoint: Folder of the checkpoint, such as ``runs/rllib_ppo/checkpoints/15360``.

    Raises:
        PolicyError: The folder has no policy.
    """
    parts = (COMPONENT_LEARNER_GROUP, COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID)
    folder = Path(checkpoint).resolve().joinpath(*parts)
    weights = folder / "module_state.pkl"
    if not weights.is_file():
        raise PolicyError(
            f"expected a checkpoint of RLlib in {checkpoint}, found no file {'/'.join(parts)}/{weights.name} in it; "
            "agents/rllib_ppo.py keeps them in checkpoints/ of its --out"
        )
    return RLlibPolicy(RLModule.from_checkpoint(folder), hashlib.sha256(weights.read_bytes()).hexdigest())
