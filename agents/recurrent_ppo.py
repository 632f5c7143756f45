"""Trains a scheduler that remembers with PPO on a SleepLLM environment; what is not allowed costs a penalty."""

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
    """the environment to train on"""
    card: str = ""
    """path of a card of your own to play instead of the environment's"""
    seed: int = 1
    """seed of the policy and of its streams"""
    total_steps: int = 60_000
    """steps to train for, over all environments and, when resumed, from the very beginning"""
    out: Path = Path("runs/recurrent_ppo")
    """folder of the run: best.zip, last.zip, their cards, tensorboard logs"""
    resume: Path | None = None
    """a policy to go on with, such as runs/recurrent_ppo/last.zip, with its own settings and as many environments; a
    policy file is code, so take only one that you trust"""
    device: str = "cpu"
    """where the policy's network is; it is small, and a CPU is fastest"""
    threads: int = 1
    """threads of torch; the passes of the bundled model are too small to gain from many"""

    n_envs: int = 16
    """episodes at once; they share the model's passes"""
    n_steps: int = 64
    """steps of each environment between updates; times n_envs, this is the batch that is learned from"""
    batch_size: int = 128
    """steps in a minibatch"""
    epochs: int = 10
    """passes over what was collected"""
    learning_rate: float = 1e-3
    """step size of Adam; falls linearly to 0 at total_steps"""
    anneal: bool = True
    """whether the learning rate falls"""
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
    target_kl: float | None = 0.03
    """divergence from the policy that collected, beyond 1.5 times which an update ends early"""
    reward_scale: float = 0.05
    """what rewards are multiplied by for learning: brings returns, some dozens, to a few units"""
    memory: int = 64
    """units of the LSTM, of which policy and value have one each"""
    units: int = 64
    """units of the hidden layer of policy and value behind it"""

    eval_every: int = 5_000
    """steps between validations"""
    eval_episodes: int = 8
    """validation streams; 0 does not validate"""
    eval_seed: int = 1000
    """seed of the first of them"""
    patience: int = 0
    """validations without a better score after which training stops; 0 never stops"""
    save_every: int = 5_000
    """steps between checkpoints"""


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    spec = EnvSpec(args.env_id, args.card)
    card = PolicyCard(
        algorithm="RecurrentPPO", env_id=args.env_id, card=args.card, seed=args.seed, steps=0, arguments=asdict(args)
    )

    if args.resume is None:
        envs = spec.training(args.n_envs, args.seed, args.reward_scale)
        model: Any = RecurrentPPO(
            "MultiInputLstmPolicy",
            envs,
            # No lambda: a policy file would hold its bytecode, which other versions of Python cannot read.
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
        card.check_resumed(args.resume, ("n_envs", "reward_scale"))
        envs = spec.training(args.n_envs, args.seed, args.reward_scale, PolicyCard.read(args.resume).steps)
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
