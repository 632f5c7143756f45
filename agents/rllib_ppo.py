"""Trains a scheduler with RLlib's PPO, on one machine or on a Ray cluster; see docs/rllib.md.

Each env runner is a process with a base model of its own, whose episodes share its passes. The learner never sees the
base model. Needs the extra `rllib`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import tyro
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune import register_env

from sleepgym.dashboard import Dashboard
from sleepgym.env.card import load_card
from sleepgym.learning.rllib import FiguresCallback, MaskedPPOModule, figures_of_update, make_vector


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """the environment to train on"""
    card: str = ""
    """path of a card of your own to play instead of the environment's; on a cluster, every node needs it there"""
    seed: int = 1
    """seed of networks, actions and episodes"""
    total_steps: int = 60_000
    """steps to train for, over all environments and, when resumed, from the very beginning"""
    out: Path = Path("runs/rllib_ppo")
    """folder of the run, with tensorboard logs and checkpoints; on a cluster, on the driver's machine"""
    resume: bool = False
    """go on from the last checkpoint in out; a checkpoint is code, so take only one that you trust"""
    checkpoint_every: int = 10
    """updates between checkpoints; the last update leaves one in any case"""

    address: str = ""
    """a Ray cluster to train on, such as auto or 10.0.0.1:6379; left out, Ray starts here and ends with the run"""
    num_env_runners: int = 2
    """processes that play, each with a base model of its own; 0 plays in the learner's process"""
    num_envs_per_env_runner: int = 8
    """episodes at once in each of them; they share its model's passes"""
    num_gpus_per_env_runner: float = 0
    """GPUs that a base model needs; 0.25 puts four of them on one"""
    object_store_mb: int = 256
    """shared memory of a Ray that starts here; episodes and weights of the policy pass through it"""

    num_steps: int = 96
    """steps of each environment between updates; times all environments, this is the batch that is learned from"""
    minibatch_size: int = 256
    """steps in a minibatch"""
    update_epochs: int = 8
    """passes over what was collected"""
    learning_rate: float = 5e-4
    """step size of Adam"""
    gamma: float = 0.99
    """discount per step"""
    gae_lambda: float = 0.95
    """decay of generalised advantage estimation"""
    clip: float = 0.2
    """how far the policy may move from the one that collected, as a ratio of probabilities"""
    entropy: float = 0.01
    """weight of the entropy bonus"""
    value: float = 0.5
    """weight of the value loss"""
    max_grad_norm: float = 0.5
    """norm at which gradients are clipped"""
    reward_scale: float = 0.05
    """what rewards are multiplied by for learning: brings returns, some dozens, to a few units"""
    units: int = 64
    """units of each of the two hidden layers of policy and value"""


def configure(args: Args, seed: int) -> PPOConfig:
    episodes_at_once = max(args.num_env_runners, 1) * args.num_envs_per_env_runner
    played = {"card": args.card or args.env_id, "split": "train", "reward_scale": args.reward_scale}
    return (
        PPOConfig()
        .environment("sleepgym", env_config=played)
        .env_runners(
            num_env_runners=args.num_env_runners,
            num_envs_per_env_runner=args.num_envs_per_env_runner,
            num_gpus_per_env_runner=args.num_gpus_per_env_runner,
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
            rollout_fragment_length=args.num_steps,
            # By default, what takes longer than a minute is thrown away, and nights do.
            sample_timeout_s=None,
        )
        # Loading a base model and measuring it can take longer than the 30 seconds after which a runner counts as dead.
        .fault_tolerance(restart_failed_env_runners=True, env_runner_health_probe_timeout_s=600)
        .callbacks(FiguresCallback)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=MaskedPPOModule,
                model_config=DefaultModelConfig(fcnet_hiddens=[args.units] * 2, fcnet_activation="tanh"),
            )
        )
        .training(
            train_batch_size_per_learner=args.num_steps * episodes_at_once,
            minibatch_size=args.minibatch_size,
            num_epochs=args.update_epochs,
            lr=args.learning_rate,
            gamma=args.gamma,
            lambda_=args.gae_lambda,
            clip_param=args.clip,
            entropy_coeff=args.entropy,
            vf_loss_coeff=args.value,
            grad_clip=args.max_grad_norm,
            use_kl_loss=False,
            # It would clip the squared error itself: no gradient where the critic is far off.
            vf_clip_param=float("inf"),
        )
        .debugging(seed=seed)
    )


def last_checkpoint(args: Args) -> tuple[Path | None, int]:
    """Where to go on from, and how many steps were done by then; nothing and 0 for a new run."""
    folder = args.out / "checkpoints"
    found = {int(path.name): path for path in folder.glob("*") if path.name.isdigit()}
    if bool(found) != args.resume:
        there, advice = ("some", "pass --resume or another --out") if found else ("none", "leave out --resume")
        expected = "a checkpoint" if args.resume else "no checkpoints"
        raise FileExistsError(f"expected {expected} in {folder}, found {there}; {advice}")
    if not found:
        return None, 0
    steps = max(found)
    before = json.loads((found[steps] / "args.json").read_text())
    for name in ("env_id", "card", "units"):
        now = getattr(args, name)
        if before[name] != now:
            raise ValueError(
                f"expected --{name.replace('_', '-')} {before[name]!r} as in the run in {folder}, found {now!r}; "
                "give the same, or another --out"
            )
    return found[steps], steps


def save(algo: Algorithm, args: Args, steps: int) -> Path:
    """Writes a checkpoint under another name first, so that an interrupted one is never taken for a checkpoint."""
    partial = (args.out / "checkpoints" / "partial").resolve()
    shutil.rmtree(partial, ignore_errors=True)
    algo.save_to_path(partial)
    (partial / "args.json").write_text(json.dumps(asdict(args), indent=2, default=str))
    return partial.rename(partial.with_name(str(steps)))


def losses_of(result: dict[str, Any]) -> dict[str, float]:
    """Under Stable-Baselines3's names, so that runs of both stand in the same charts."""
    learner = result["learners"]["default_policy"]
    return {
        "train/policy_gradient_loss": learner["policy_loss"],
        "train/value_loss": learner["vf_loss"],
        "train/entropy_loss": -learner["entropy"],
        "train/explained_variance": learner["vf_explained_var"],
    }


def main(args: Args) -> None:
    path, first = last_checkpoint(args)
    # Ray would otherwise report to its makers that it is used.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": args.object_store_mb * 2**20}
    ray.init(**({"address": args.address} if args.address else here))
    register_env("sleepgym", make_vector)
    # What is resumed plays new episodes: with the seeds of the beginning, it would play the first ones again.
    seed = int(np.random.SeedSequence([args.seed, first]).generate_state(1)[0] // 2)
    algo = configure(args, seed).build_algo()
    dashboard = Dashboard(args.out)
    dashboard.card(load_card(args.card or args.env_id))
    dashboard.hyperparameters(asdict(args), ("sleepgym/score", "rollout/ep_rew_mean"))
    try:
        if path is not None:
            algo.restore_from_path(path.resolve())
            print(f"goes on from {path}")
        steps, updates, started = first, 0, time.perf_counter()
        while steps < args.total_steps:
            result = algo.train()
            runners = result["env_runners"]
            steps, updates = int(runners["num_env_steps_sampled_lifetime"]), updates + 1
            values = losses_of(result) | {"time/fps": (steps - first) / (time.perf_counter() - started)}
            if "episode_return_mean" in runners:
                values["rollout/ep_rew_mean"] = runners["episode_return_mean"] / args.reward_scale
                values["rollout/ep_len_mean"] = runners["episode_len_mean"]
            for name, value in values.items():
                dashboard.writer.add_scalar(name, value, steps)
            figures = figures_of_update(result)
            dashboard.episode(figures, steps)
            shown = {name: figures[name] for name in ("score", "recall", "sleeps", "naps") if name in figures}
            print(f"{steps} steps", *(f"{name} {value:.2f}" for name, value in shown.items()), sep="   ", flush=True)
            if updates % args.checkpoint_every == 0 or steps >= args.total_steps:
                path = save(algo, args, steps)
    finally:
        dashboard.close()
        algo.stop()
        ray.shutdown()
    print(f"checkpoint: {path}   logs: tensorboard --logdir {args.out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
