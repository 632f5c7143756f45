"""Trains a policy with DQN on a SleepLLM environment, without action masks: invalid actions cost a penalty."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from stable_baselines3 import DQN
from stable_baselines3.common.logger import configure

from sleepgym.training import EnvSpec, PolicyCard, load_policy, training_callbacks


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """id of the training environment"""
    card: str = ""
    """path of a card that replaces the environment's own"""
    fit: str = ""
    """path of a fit of the sim, for cards that none is shipped for"""
    seed: int = 1
    """seed of the policy and of its training streams"""
    total_steps: int = 60_000
    """total environment steps over all environments, including those before a resume"""
    out: Path = Path("runs/dqn")
    """folder of the run: best.zip, last.zip, their cards, tensorboard logs"""
    resume: Path | None = None
    """policy to resume, such as runs/dqn/last.zip, with its own settings, the same number of environments and an empty
    replay buffer; a policy file is code: resume only one that you trust"""
    device: str = "cpu"
    """device of the policy's network, which is small and fastest on a CPU"""
    threads: int = 1
    """number of torch threads; passes of the bundled model are too small to benefit from many"""

    n_envs: int = 16
    """number of parallel episodes, which share forward passes"""
    buffer_size: int = 20_000
    """size of the replay buffer in steps; a step of SleepLLM-v0 takes 5.4 kB"""
    learning_starts: int = 1_000
    """random steps before learning starts"""
    batch_size: int = 128
    """steps per minibatch"""
    gradient_steps: int = 8
    """gradient steps after each step of all environments"""
    learning_rate: float = 5e-4
    """step size of Adam"""
    gamma: float = 1.0
    """discount per step"""
    returns: int = 3
    """number n of n-step returns"""
    target_every: int = 1_000
    """steps between updates of the target network"""
    exploration_fraction: float = 0.3
    """share of all steps over which the probability of a random action falls"""
    exploration_final: float = 0.05
    """final probability of a random action"""
    reward_scale: float = 0.05
    """factor of rewards in training, which scales returns from some dozens to order 1"""
    units: int = 64
    """width of each of the two hidden layers"""

    eval_every: int = 5_000
    """steps between validations"""
    eval_episodes: int = 8
    """number of validation streams; 0 for no validation"""
    eval_seed: int = 1000
    """seed of the first validation stream; the others follow it"""
    patience: int = 0
    """validations without a higher score after which training stops; 0 for no early stopping"""
    save_every: int = 5_000
    """steps between checkpoints"""


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    spec = EnvSpec(args.env_id, args.card, flat=True, fit=args.fit)
    card = PolicyCard(
        algorithm="DQN", env_id=args.env_id, card=args.card, flat=True, seed=args.seed, steps=0, arguments=asdict(args)
    )

    if args.resume is None:
        envs = spec.training(args.n_envs, args.seed, args.reward_scale)
        model: Any = DQN(
            "MlpPolicy",
            envs,
            learning_rate=args.learning_rate,
            buffer_size=args.buffer_size,
            learning_starts=args.learning_starts,
            batch_size=args.batch_size,
            gamma=args.gamma,
            train_freq=1,
            gradient_steps=args.gradient_steps,
            n_steps=args.returns,
            target_update_interval=args.target_every,
            exploration_fraction=args.exploration_fraction,
            exploration_final_eps=args.exploration_final,
            policy_kwargs={"net_arch": [args.units] * 2},
            seed=args.seed,
            device=args.device,
        )
    else:
        card = card.resuming(args.resume, ("n_envs", "reward_scale", "fit"))
        envs = spec.training(args.n_envs, card.seed, args.reward_scale, PolicyCard.read(args.resume).steps)
        model, _ = load_policy(args.resume, envs, args.device)
        # The replay buffer is not saved: learning waits for new steps, so as not to overfit to the first few.
        model.learning_starts += model.num_timesteps

    model.set_logger(configure(str(args.out), ["stdout", "tensorboard"]))
    callbacks = training_callbacks(
        card,
        args.out,
        save_every=args.save_every,
        eval_every=args.eval_every,
        eval_episodes=args.eval_episodes,
        eval_seed=args.eval_seed,
        patience=args.patience,
    )
    model.learn(
        args.total_steps - model.num_timesteps,
        callbacks,
        log_interval=args.n_envs,  # in episodes
        reset_num_timesteps=args.resume is None,
    )
    envs.close()
    print(f"policies: {args.out}/best.zip, {args.out}/last.zip   logs: tensorboard --logdir {args.out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
