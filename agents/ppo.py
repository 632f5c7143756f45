"""Trains a scheduler with PPO on a SleepLLM environment, with invalid actions masked or not.

The defaults are those of the policies in agents/pretrained; docs/results.md says what they score.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.utils import LinearSchedule

from sleepgym.leaderboard.playing import FIRST_SEED
from sleepgym.schedulers import scheduler_named
from sleepgym.training import (
    EnvSpec,
    LedgerExtractor,
    PolicyCard,
    clone,
    demonstrate,
    joined,
    load_policy,
    training_callbacks,
)

RESUMED = ("n_envs", "reward_scale", "warm_start", "warm_episodes", "relative")
"""Arguments that a policy file does not hold: resumed with others, it would learn something else."""


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """the environment to train on"""
    card: str = ""
    """path of a card of your own to play instead of the environment's"""
    seed: int = 1
    """seed of the policy and of its streams"""
    total_steps: int = 10_240
    """steps to train for, over all environments and, when resumed, from the very beginning"""
    out: Path = Path("runs/ppo")
    """folder of the run: best.zip, last.zip, their cards, tensorboard logs"""
    resume: Path | None = None
    """a policy to go on with, such as runs/ppo/last.zip, with its own settings and as many environments; a policy
    file is code, so take only one that you trust"""
    device: str = "cpu"
    """where the policy's network is; it is small, and a CPU is fastest"""
    threads: int = 1
    """threads of torch; the passes of the bundled model are too small to gain from many"""

    algorithm: Literal["maskable", "plain"] = "maskable"
    """maskable never tries what is not allowed; plain pays the penalty and learns not to"""
    extractor: Literal["set", "flat"] = "set"
    """set reads the ledger as a set of facts; flat as one long vector"""
    n_envs: int = 16
    """episodes at once; they share the model's passes"""
    n_steps: int = 32
    """steps of each environment between updates; times n_envs, this is the batch that is learned from"""
    batch_size: int = 64
    """steps in a minibatch"""
    epochs: int = 8
    """passes over what was collected"""
    learning_rate: float = 1e-3
    """step size of Adam; falls linearly to 0 at total_steps"""
    anneal: bool = True
    """whether the learning rate falls"""
    gamma: float = 1.0
    """discount per step; steps differ in how many ticks they take, and the score discounts nothing"""
    gae_lambda: float = 0.95
    """decay of generalised advantage estimation"""
    clip: float = 0.2
    """how far the policy may move from the one that collected, as a ratio of probabilities"""
    entropy: float = 0.0
    """weight of the entropy bonus"""
    value: float = 0.5
    """weight of the value loss"""
    target_kl: float | None = 0.03
    """divergence from the policy that collected, beyond 1.5 times which an update ends early"""
    reward_scale: float = 1.0
    """what rewards are multiplied by for learning: relative returns are a few units, others some dozens, for which
    0.05 is better"""
    units: int = 64
    """units of each of the two hidden layers of policy and value"""

    warm_start: tuple[str, ...] = ("night-owl:load_at=0.08", "night-owl:load_at=0.24")
    """schedulers to imitate before learning; where several of them differ, the policy begins undecided; without a
    value, it begins at random"""
    warm_episodes: int = 40
    """episodes to learn from, dealt to the schedulers in turn"""
    warm_epochs: int = 30
    """passes over them"""
    warm_entropy: float = 0.05
    """weight of an entropy bonus while imitating, so that something is left to be tried"""
    relative: bool = True
    """after a warm start, go on with the imitated episodes, and learn from what is earned beyond the scheduler that
    played them; use it with a gamma of 1"""

    eval_every: int = 5_100
    """steps between validations"""
    eval_episodes: int = 16
    """validation streams; 0 does not validate"""
    eval_seed: int = 1000
    """seed of the first of them"""
    patience: int = 0
    """validations without a better score after which training stops; 0 never stops"""
    save_every: int = 5_000
    """steps between checkpoints"""


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    masked = args.algorithm == "maskable"
    spec = EnvSpec(args.env_id, args.card)
    name: Literal["MaskablePPO", "PPO"] = "MaskablePPO" if masked else "PPO"
    card = PolicyCard(
        algorithm=name, env_id=args.env_id, card=args.card, seed=args.seed, steps=0, arguments=asdict(args)
    )
    if args.resume is not None:
        card.check_resumed(args.resume, RESUMED)

    lessons = None
    if args.warm_episodes < len(args.warm_start):
        raise SystemExit(
            f"expected an episode for each of {len(args.warm_start)} schedulers, found {args.warm_episodes}; "
            "give more --warm-episodes"
        )
    if args.warm_start:
        # Runs have episodes of their own, as they have without a warm start.
        streams = range(args.seed * 10_000, args.seed * 10_000 + args.warm_episodes)
        if streams.stop > FIRST_SEED:
            raise SystemExit(
                f"expected a seed below {FIRST_SEED // 10_000}, found {args.seed}: its warm start would play streams "
                "with the seeds of the test streams"
            )
        dealt = [(name, streams[i :: len(args.warm_start)]) for i, name in enumerate(args.warm_start)]
        lessons = joined([demonstrate(spec, scheduler_named(name), seeds, 4) for name, seeds in dealt])
    baselines = lessons.baselines if lessons is not None and args.relative else None

    if args.resume is None:
        envs = spec.training(args.n_envs, args.seed, args.reward_scale, baselines=baselines)
        model: Any = (MaskablePPO if masked else PPO)(
            "MultiInputPolicy",
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
                # Orthogonal weights, with a policy head of gain 0.01, are the library's default: all that is allowed
                # is about equally likely at first.
                "features_extractor_class": LedgerExtractor if args.extractor == "set" else CombinedExtractor,
                "net_arch": {"pi": [args.units] * 2, "vf": [args.units] * 2},
            },
            seed=args.seed,
            device=args.device,
        )
        if lessons is not None:
            rng = np.random.default_rng(args.seed)
            agreed = clone(model, lessons, args.warm_epochs, rng, entropy=args.warm_entropy)
            print(f"warm start: does what {', '.join(args.warm_start)} did in {agreed:.1%} of {len(lessons)} steps")
    else:
        envs = spec.training(args.n_envs, args.seed, args.reward_scale, PolicyCard.read(args.resume).steps, baselines)
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
