"""What RLlib needs to train on SleepEnvs: vectors of episodes, a module that obeys masks, figures, kept policies.

It is written for RLlib's present API (``RLModule``, ``EnvRunner``, ``ConnectorV2``) and needs the extra ``rllib``. It
stands in the package since every node of a cluster imports it. ``agents/rllib_ppo.py`` puts it together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule

from sleepgym.env.vector import SleepVectorEnv
from sleepgym.env.wrappers import ACTION_MASK, OBSERVATIONS, FlattenLedger, RecordSleepStatistics, RLlibActionMask
from sleepgym.training.dashboard import figures_of_info
from sleepgym.training.envs import EndAtHorizon, ScaleReward
from sleepgym.training.policy_card import PolicyError

FIGURES = "sleepgym"
"""Under which key of the env runners' results :class:`FiguresCallback` puts what it reports."""


class RLlibVectorEnv(SleepVectorEnv):
    """The episodes of one env runner: on one base model, in the same passes, flat and with their masks.

    Around each are :class:`RecordSleepStatistics`, :class:`EndAtHorizon`, :class:`ScaleReward`, :class:`FlattenLedger`
    and, outermost, :class:`RLlibActionMask`.

    Args:
        num_envs: Number of episodes.
        reward_scale: What rewards are multiplied by; infos have them as they were.
        arguments: For every environment; see :class:`~sleepgym.env.sleep_env.SleepEnv`.
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
            seed: From one number, seeds are drawn that no other number shares. RLlib gives its env runners numbers that
                follow each other; if environments did so too, runners would play each other's episodes.
            options: As in :meth:`SleepEnv.reset`.
        """
        if isinstance(seed, int):
            seed = [int(drawn) for drawn in np.random.SeedSequence(seed).generate_state(self.num_envs)]
        return super().reset(seed=seed, options=options)


def flat_and_masked(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """An environment as policies of RLlib see it: observations as one vector, and the mask beside them."""
    return RLlibActionMask(FlattenLedger(env))


def make_vector(context: Mapping[str, Any]) -> RLlibVectorEnv:
    """Makes an env runner's environments; for ``ray.tune.register_env``.

    Args:
        context: The ``env_config``, arguments of :class:`RLlibVectorEnv`; RLlib adds ``num_envs`` where
            ``gym_env_vectorize_mode`` is ``VECTOR_ENTRY_POINT``.
    """
    return RLlibVectorEnv(**context)


class MaskedPPOModule(DefaultPPOTorchRLModule):
    """PPO's actor and critic on ``{"observations": ..., "action_mask": ...}``, where forbidden actions are never drawn.

    The networks are those of RLlib's default module for the observations alone, with all of its settings; logits of
    forbidden actions become the lowest number that there is. So sampling, log-probabilities, entropy and gradients are
    those of the distribution over allowed actions (Huang and Ontañón 2022, arXiv:2006.14171).

    Args:
        observation_space: As :class:`~sleepgym.env.wrappers.RLlibActionMask` makes it.

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
        # Networks read the observations alone; the module is given both, and is made again from this space.
        self.observation_space = observation_space

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return _mask(super()._forward(_bare(batch), **kwargs), batch)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return _mask(super()._forward_train(_bare(batch), **kwargs), batch)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Values of the observations, ``[rows]``; a mask says nothing about them."""
        return super().compute_values(_bare(batch), embeddings)


def _bare(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch with the observations alone; RLlib uses the batch again, so it is left as it is."""
    return {**batch, Columns.OBS: batch[Columns.OBS][OBSERVATIONS]}


def _mask(outputs: dict[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
    logits, allowed = outputs[Columns.ACTION_DIST_INPUTS], batch[Columns.OBS][ACTION_MASK]
    # Not minus infinity: a forbidden action would make 0 * inf = nan of entropies and gradients.
    outputs[Columns.ACTION_DIST_INPUTS] = logits.masked_fill(allowed == 0, torch.finfo(logits.dtype).min)
    return outputs


class MeasuredPPOLearner(PPOTorchLearner):
    """RLlib's learner, which also reports how far an update moves the policy, as Stable-Baselines3 does.

    A module's results have ``approx_kl`` and ``clip_fraction``, means over the minibatches of an update. RLlib's own
    divergence is measured only where it is also a term of the loss.
    """

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """RLlib's loss."""
        kind = self.module[module_id].unwrapped().get_train_action_dist_cls()
        with torch.no_grad():
            policy = kind.from_logits(fwd_out[Columns.ACTION_DIST_INPUTS])
            moved = policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
            if Columns.LOSS_MASK in batch:
                moved = moved[batch[Columns.LOSS_MASK]]
            change = moved.exp() - 1
            figures = {
                # Schulman 2020, http://joschu.net/blog/kl-approx.html
                "approx_kl": (change - moved).mean(),
                "clip_fraction": (change.abs() > config.clip_param).float().mean(),
            }
        self.metrics.log_dict(figures, key=module_id, reduce="mean")
        return super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)


class FiguresCallback(RLlibCallback):
    """Reports how episodes went: ``result["env_runners"]["sleepgym"]`` has a list per figure, one number per episode.

    The figures are those of :func:`sleepgym.training.dashboard.figures_of_info`, and ``invalid``, the steps that were
    not
    allowed or failed. They are lists, since RLlib's own means are means of each runner's mean.
    """

    def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
        """Logs what the info of an episode's last step says."""
        info = episode.get_infos(-1)
        for name, value in (figures_of_info(info) | {"invalid": info["sleep"]["invalid"]}).items():
            metrics_logger.log_value((FIGURES, name), float(value), reduce="item_series")


def figures_of_update(result: Mapping[str, Any]) -> dict[str, float]:
    """Means over the episodes that ended in an update; empty if none did.

    Args:
        result: What ``Algorithm.train`` returned.
    """
    reported = result["env_runners"].get(FIGURES, {})
    return {name: float(np.mean(values)) for name, values in reported.items() if np.size(values)}


class RLlibPolicy:
    """A module of RLlib as :func:`~sleepgym.evaluation.evaluate` plays it, in environments of :func:`flat_and_masked`.

    Args:
        module: Such as ``Algorithm.get_module()``, which learning goes on to change.
        sha256: Of the file that its weights are from, for a leaderboard.
    """

    def __init__(self, module: RLModule, sha256: str = "") -> None:
        self.module, self.sha256 = module, sha256

    def predict(
        self,
        observation: Mapping[str, NDArray[Any]],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], Any]:
        """Chooses an action for each row of a batch.

        Args:
            observation: ``{"observations": [rows, numbers], "action_mask": [rows, actions]}``.
            state: Given back as it is; the module remembers nothing.
            episode_start: Not looked at, for the same reason.
            deterministic: Whether to take the likeliest action instead of drawing one.
            action_masks: Instead of those in the observation, ``[rows, actions]``.

        Returns:
            Actions ``[rows, ...]``, and the state.
        """
        masks = observation[ACTION_MASK] if action_masks is None else action_masks
        seen = {OBSERVATIONS: observation[OBSERVATIONS], ACTION_MASK: masks}
        tensors = {name: torch.as_tensor(values, dtype=torch.float32) for name, values in seen.items()}
        outputs = self.module.forward_inference({Columns.OBS: tensors})
        actions = self.module.get_inference_action_dist_cls().from_logits(outputs[Columns.ACTION_DIST_INPUTS])
        return (actions.to_deterministic() if deterministic else actions).sample().numpy(), state


def load_rllib_policy(checkpoint: Path | str) -> RLlibPolicy:
    """Loads the policy of a checkpoint that ``agents/rllib_ppo.py`` kept; Ray need not run.

    A checkpoint is code: RLlib unpickles parts of it, and what is unpickled can do anything. Load only what you or
    people you trust have made.

    Args:
        checkpoint: Its folder, such as ``runs/rllib_ppo/checkpoints/15360``.

    Raises:
        PolicyError: There is no policy in it.
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
