"""Trains a policy with RLlib's PPO, on one machine or on a Ray cluster; see docs/rllib.md.

Each env runner is a process with its own base model, whose episodes share forward passes. The learner does not use a
base model; validation, in the learner's process, loads another one. In the sim (`--env-id SleepSim-v0`) there are no
base models. Needs the extra `rllib`.
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
import torch
import tyro
from pydantic import BaseModel
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune import register_env

from sleepgym import files
from sleepgym.episode.card import load_card
from sleepgym.evaluation import evaluate, simulate
from sleepgym.sim.maker import setting_and_response
from sleepgym.training import EnvSpec
from sleepgym.training.dashboard import Dashboard, Spectator, means_of
from sleepgym.training.rllib import (
    FiguresCallback,
    MaskedPPOModule,
    MeasuredPPOLearner,
    RLlibPolicy,
    figures_of_update,
    flat_and_masked,
    make_sim_vector,
    make_vector,
)
from sleepgym.training.sim_vector import is_sim

RESUMED = ("env_id", "card", "units", "reward_scale")
"""Arguments that must be the same on resuming, since they determine the network or the task."""


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """id of the training environment, real or simulated"""
    card: str = ""
    """path of a card that replaces the environment's own; on a cluster, it must exist on every node"""
    seed: int = 1
    """seed of networks, actions and episodes"""
    total_steps: int = 60_000
    """total environment steps over all environments, including those before a resume"""
    out: Path = Path("runs/rllib_ppo")
    """folder of the run: tensorboard logs, checkpoints, and best.json, which names the best of them; on a cluster, on
    the driver's machine"""
    resume: bool = False
    """resume the last checkpoint in out; a checkpoint is code: resume only one that you trust"""
    checkpoint_every: int = 10
    """updates between checkpoints; further ones are saved after the last update and after a best validation"""
    threads: int = 1
    """number of torch threads in this process, which learns and validates; networks and passes are too small to benefit
    from many"""

    address: str = ""
    """address of a Ray cluster, such as auto or 10.0.0.1:6379; empty to start Ray locally for this run"""
    num_env_runners: int = 2
    """number of env runner processes, each with its own base model; 0 to run in the learner's process"""
    num_envs_per_env_runner: int = 8
    """number of parallel episodes per env runner, which share forward passes"""
    num_gpus_per_env_runner: float = 0
    """GPUs per env runner; 0.25 places four of them on one GPU"""
    object_store_mb: int = 256
    """shared memory of a locally started Ray in MiB, for episodes and weights"""

    num_steps: int = 96
    """rollout length: steps per environment between updates; the batch has that of all environments"""
    minibatch_size: int = 256
    """steps per minibatch"""
    update_epochs: int = 8
    """epochs per update"""
    learning_rate: float = 5e-4
    """step size of Adam"""
    gamma: float = 1.0
    """discount per step"""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation"""
    clip: float = 0.2
    """clip range of the probability ratio"""
    entropy: float = 0.01
    """weight of the entropy bonus"""
    value: float = 0.5
    """weight of the value loss"""
    max_grad_norm: float = 0.5
    """norm to which gradients are clipped"""
    reward_scale: float = 0.05
    """factor of rewards in training, which scales returns from some dozens to order 1"""
    units: int = 64
    """width of each of the two hidden layers of policy and value"""

    eval_every: int = 5_000
    """steps between validations; there is also one after the last update"""
    eval_episodes: int = 8
    """number of validation streams; 0 for no validation"""
    eval_seed: int = 1000
    """seed of the first validation stream; the others follow it"""
    patience: int = 0
    """validations without a higher score after which training stops; 0 for no early stopping"""

    @property
    def played_card(self) -> str:
        """Card of the environment: its path, or its id."""
        return EnvSpec(self.env_id, self.card).played_card


class PolicyOfRun(BaseModel):
    """Metadata of a policy; best.json has that of the best checkpoint."""

    algorithm: str = "PPO of RLlib"
    env_id: str
    card: str
    seed: int
    steps: int
    checkpoint: str | None = None
    validation_score: float | None = None
    simulated_score: float | None = None

    def about(self) -> str:
        return self.model_dump_json(indent=1, exclude_none=True)


def configure(args: Args, seed: int) -> PPOConfig:
    episodes_at_once = max(args.num_env_runners, 1) * args.num_envs_per_env_runner
    played = {"card": args.played_card, "split": "train", "reward_scale": args.reward_scale}
    return (
        PPOConfig()
        .environment("sleepgym", env_config=played)
        .env_runners(
            num_env_runners=args.num_env_runners,
            num_envs_per_env_runner=args.num_envs_per_env_runner,
            num_gpus_per_env_runner=args.num_gpus_per_env_runner,
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
            rollout_fragment_length=args.num_steps,
            # By default, samples that take longer than a minute are discarded; nights can.
            sample_timeout_s=None,
        )
        # Loading a base model and its statistics can exceed the default of 30 seconds for a health check.
        .fault_tolerance(restart_failed_env_runners=True, env_runner_health_probe_timeout_s=600)
        .callbacks(FiguresCallback)
        .learners(learner_class=MeasuredPPOLearner)
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
            # RLlib clips the squared error itself, so that large errors would have no gradient.
            vf_clip_param=float("inf"),
        )
        .debugging(seed=seed)
    )


def last_checkpoint(args: Args) -> tuple[Path | None, int]:
    """Returns the last checkpoint with its number of steps; None and 0 for a new run.

    Raises:
        FileExistsError: There are checkpoints without ``--resume``, or none with it.
        ValueError: An argument differs from that of the resumed run.
    """
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
    for name in RESUMED:
        now = getattr(args, name)
        if before[name] != now:
            raise ValueError(
                f"expected --{name.replace('_', '-')} {before[name]!r} as in the run in {folder}, found {now!r}; "
                "give the same, or another --out"
            )
    return found[steps], steps


def save(algo: Algorithm, args: Args, steps: int) -> Path:
    """Saves a checkpoint under a temporary name and renames it, so that interrupted ones are never resumed."""
    path = (args.out / "checkpoints" / str(steps)).resolve()
    if not path.exists():
        partial = path.with_name("partial")
        shutil.rmtree(partial, ignore_errors=True)
        algo.save_to_path(partial)
        (partial / "args.json").write_text(json.dumps(asdict(args), indent=2, default=str))
        partial.rename(path)
    return path


class Validation:
    """Scores the policy at intervals, and records the best checkpoint in best.json.

    On real environments it plays validation streams, with a picture of the first; in the sim, simulated streams.
    """

    def __init__(self, args: Args, dashboard: Dashboard, steps: int) -> None:
        self.args, self.dashboard = args, dashboard
        self.play, self.field, self.best_tag = (
            (self._simulated, "simulated_score", "eval/best_simulated_score")
            if is_sim(args.env_id)
            else (self._played, "validation_score", "eval/best_score")
        )
        self.policy = PolicyOfRun(env_id=args.env_id, card=args.card, seed=args.seed, steps=steps)
        self.path = args.out / "best.json"
        found = None
        if args.resume and self.path.is_file():
            # A resumed run has to exceed the best score so far.
            found = getattr(PolicyOfRun.model_validate_json(self.path.read_bytes()), self.field)
        self.best = -np.inf if found is None else found
        self.next, self.without_gain = steps + args.eval_every, 0
        dashboard.policy(self.policy.about(), steps)

    def due(self, steps: int) -> bool:
        return self.args.eval_episodes > 0 and steps >= min(self.next, self.args.total_steps)

    def run(self, algo: Algorithm, steps: int) -> bool:
        """Runs a validation; returns whether training should continue."""
        self.next = steps + self.args.eval_every
        seeds = range(self.args.eval_seed, self.args.eval_seed + self.args.eval_episodes)
        score = self.play(RLlibPolicy(algo.get_module()), seeds, steps)
        self.without_gain = 0 if score > self.best else self.without_gain + 1
        if score > self.best:
            self.best = score
            kept = save(algo, self.args, steps).relative_to(self.args.out.resolve()).as_posix()
            policy = self.policy.model_copy(update={"steps": steps, "checkpoint": kept, self.field: score})
            files.write_json(self.path, policy)
            self.dashboard.policy(policy.about(), steps)
        self.dashboard.writer.add_scalar(self.best_tag, self.best, steps)
        print(f"{steps} steps   {self.field.replace('_', ' ')} {score:.3f}   best {self.best:.3f}", flush=True)
        return not (self.args.patience and self.without_gain >= self.args.patience)

    def _played(self, policy: RLlibPolicy, seeds: range, steps: int) -> float:
        """Returns the mean score on streams of the real environment."""
        started, spec = time.perf_counter(), EnvSpec(self.args.env_id, self.args.card)
        spectator = Spectator(lambda: flat_and_masked(spec.make("validation", "rgb_array")), seeds[0])
        results = evaluate(spectator.make, policy, seeds, on_episode=spectator)
        self.dashboard.evaluation(results, time.perf_counter() - started, steps)
        if spectator.picture is not None:
            self.dashboard.picture(spectator.picture, steps, "eval/hypnogram")
        return means_of(results)["score"]

    def _simulated(self, policy: RLlibPolicy, seeds: range, steps: int) -> float:
        """Returns the mean simulated score."""
        setting, response = setting_and_response(self.args.played_card, None, {})
        score = float(np.mean([result.score for result in simulate(setting, response, policy, seeds)]))
        self.dashboard.writer.add_scalar("eval/simulated_score", score, steps)
        return score


def losses_of(result: dict[str, Any]) -> dict[str, float]:
    """Returns losses under Stable-Baselines3's tags, so that runs of both libraries share charts."""
    learner = result["learners"]["default_policy"]
    return {
        "train/policy_gradient_loss": learner["policy_loss"],
        "train/value_loss": learner["vf_loss"],
        "train/entropy_loss": -learner["entropy"],
        "train/loss": learner["total_loss"],
        "train/approx_kl": learner["approx_kl"],
        "train/clip_fraction": learner["clip_fraction"],
        "train/explained_variance": learner["vf_explained_var"],
        "train/learning_rate": learner["default_optimizer_learning_rate"],
    }


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    path, first = last_checkpoint(args)
    # Disables Ray's usage reports.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": args.object_store_mb * 2**20}
    ray.init(**({"address": args.address} if args.address else here))
    register_env("sleepgym", make_sim_vector if is_sim(args.env_id) else make_vector)
    # A resumed run gets new seeds, so that it does not repeat its first episodes.
    seed = int(np.random.SeedSequence([args.seed, first]).generate_state(1)[0] // 2)
    algo = configure(args, seed).build_algo()
    dashboard = Dashboard(args.out)
    dashboard.card(load_card(args.played_card))
    dashboard.arguments(asdict(args), ("eval/mean_score", "sleepgym/score", "rollout/ep_rew_mean"))
    validation = Validation(args, dashboard, first)
    try:
        if path is not None:
            algo.restore_from_path(path.resolve())
            print(f"goes on from {path}")
        steps, updates, started = first, 0, time.perf_counter()
        going = steps < args.total_steps
        while going:
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
            going = steps < args.total_steps
            if validation.due(steps):
                going = validation.run(algo, steps) and going
            if updates % args.checkpoint_every == 0 or not going:
                path = save(algo, args, steps)
    finally:
        dashboard.close()
        algo.stop()
        ray.shutdown()
    print(f"last checkpoint: {path}   best: see {args.out}/best.json   logs: tensorboard --logdir {args.out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
