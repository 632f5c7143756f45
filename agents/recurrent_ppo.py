"""Trains an LSTM policy with PPO on a SleepLLM environment, without action masks: invalid actions cost a penalty."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule

from sleepgym.training import EnvSpec, LedgerExtractor, PolicyCard, load_policy, training_callbacks


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
    out: Path = Path("runs/recurrent_ppo")
    """folder of the run: best.zip, last.zip, their cards, tensorboard logs"""
    resume: Path | None = None
    """policy to resume, such as runs/recurrent_ppo/last.zip, with its own settings and the same number of environments;
    a policy file is code: resume only one that you trust"""
    device: str = "cpu"
    """device of the policy's network, which is small and fastest on a CPU"""
    threads: int = 1
    """number of torch threads; passes of the bundled model are too small to benefit from many"""

    n_envs: int = 16
    """number of parallel episodes, which share forward passes"""
    n_steps: int = 64
    """rollout length: steps per environment between updates; the batch has n_envs times as many"""
    batch_size: int = 128
    """steps per minibatch"""
    epochs: int = 10
    """epochs per update"""
    learning_rate: float = 1e-3
    """step size of Adam; decays linearly to 0 at total_steps"""
    anneal: bool = True
    """whether the learning rate decays"""
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
    target_kl: float | None = 0.03
    """KL divergence; an update stops early beyond 1.5 times this value"""
    reward_scale: float = 0.05
    """factor of rewards in training, which scales returns from some dozens to order 1"""
    memory: int = 64
    """width of the LSTMs, one each for policy and value"""
    units: int = 64
    """width of the hidden layer after each LSTM"""

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
    spec = EnvSpec(args.env_id, args.card, fit=args.fit)
    card = PolicyCard(
        algorithm="RecurrentPPO", env_id=args.env_id, card=args.card, seed=args.seed, steps=0, arguments=asdict(args)
    )

    if args.resume is None:
        envs = spec.training(args.n_envs, args.seed, args.reward_scale)
        model: Any = RecurrentPPO(
            "MultiInputLstmPolicy",
            envs,
            # No lambda: the policy file would contain its bytecode, which other versions of Python cannot read.
            learning_rate=LinearSchedule(args.learning_rate, 0.0, 1.0) if args.anneal else args.learning_rate,
            n_steps=args.n_steps,
            batch_size=args.batch_size,
            n_epochs=args.epochs,
            gamma=args.gamma,
            gae_lambda=args.gae_lambda,
            clip_range=args.clip,
            ent_coef=args.entropy,
            vf_coef=args.value,
            target_kl=args.target_kl,
            policy_kwargs={
                "features_extractor_class": LedgerExtractor,
                "lstm_hidden_size": args.memory,
                "net_arch": {"pi": [args.units], "vf": [args.units]},
            },
            seed=args.seed,
            device=args.device,
        )
    else:
        card = card.resuming(args.resume, ("n_envs", "reward_scale", "fit"))
        envs = spec.training(args.n_envs, card.seed, args.reward_scale, PolicyCard.read(args.resume).steps)
        model, _ = load_policy(args.resume, envs, args.device)

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
    model.learn(args.total_steps - model.num_timesteps, callbacks, reset_num_timesteps=args.resume is None)
    envs.close()
    print(f"policies: {args.out}/best.zip, {args.out}/last.zip   logs: tensorboard --logdir {args.out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
