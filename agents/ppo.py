"""Trains a policy with PPO, with or without invalid action masking: from scratch in the sim, or on the real model."""

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
from sleepgym.training.sim_vector import is_sim

RESUMED = ("n_envs", "reward_scale", "warm_start", "warm_episodes", "relative", "fit")
"""Arguments that are not in a policy file and must be the same on resuming."""


@dataclass
class Args:
    env_id: str = "SleepSim-v0"
    """id of the training environment, simulated or real"""
    card: str = ""
    """path of a card that replaces the environment's own"""
    fit: str = ""
    """path of a fit of the sim, for cards that none is shipped for (sleepgym fit-sim)"""
    seed: int = 1
    """seed of the policy and of its training streams"""
    total_steps: int = 3_000_000
    """total environment steps over all environments, including those before a resume"""
    out: Path = Path("runs/ppo")
    """folder of the run: best.zip, last.zip, their cards, tensorboard logs"""
    resume: Path | None = None
    """policy to resume, such as runs/ppo/last.zip, with its own settings and seed, and the same number of environments;
    a policy file is code: resume only one that you trust"""
    init: Path | None = None
    """policy to begin with, of the same network, such as one that was trained in the sim; a policy file is code"""
    device: str = "cpu"
    """device of the policy's network, which is small and fastest on a CPU"""
    threads: int = 1
    """number of torch threads; passes of the bundled model are too small to benefit from many"""

    algorithm: Literal["maskable", "plain"] = "maskable"
    """maskable for MaskablePPO, which never takes invalid actions; plain for PPO, which pays the penalty for them"""
    extractor: Literal["set", "flat"] = "set"
    """set encodes the ledger as a set of facts; flat as one vector"""
    n_envs: int = 256
    """number of parallel episodes; real ones share forward passes, and 16 are enough of them"""
    n_steps: int = 64
    """rollout length: steps per environment between updates; the batch has n_envs times as many"""
    batch_size: int = 1024
    """steps per minibatch"""
    epochs: int = 3
    """epochs per update"""
    learning_rate: float = 2e-3
    """step size of Adam; decays linearly to 0 at total_steps"""
    anneal: bool = True
    """whether the learning rate decays"""
    gamma: float = 1.0
    """discount per step; steps differ in duration, and the score is undiscounted"""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation"""
    clip: float = 0.2
    """clip range of the probability ratio"""
    entropy: float = 0.002
    """weight of the entropy bonus"""
    value: float = 0.5
    """weight of the value loss"""
    target_kl: float | None = None
    """KL divergence; an update stops early beyond 1.5 times this value"""
    reward_scale: float = 0.2
    """factor of rewards in training: returns are some dozens; relative ones are of order 1"""
    units: int = 128
    """width of each of the two hidden layers of policy and value"""

    warm_start: tuple[str, ...] = ()
    """schedulers to clone before reinforcement learning; several of them give a policy that mixes their actions; none
    for random initialisation"""
    warm_episodes: int = 40
    """episodes to clone, assigned to the schedulers in turn"""
    warm_epochs: int = 30
    """epochs of cloning"""
    warm_entropy: float = 0.05
    """weight of the entropy bonus in cloning, which keeps exploration"""
    relative: bool = False
    """after a warm start, train on the cloned episodes with rewards relative to those of their scheduler; use it with a
    gamma of 1"""

    eval_every: int = 250_000
    """steps between validations"""
    eval_episodes: int = 256
    """number of validation streams, which the sim plays at once; 0 for no validation"""
    eval_seed: int = 1000
    """seed of the first validation stream; the others follow it"""
    patience: int = 0
    """validations without a higher score after which training stops; 0 for no early stopping"""
    save_every: int = 500_000
    """steps between checkpoints"""


def require_possible(args: Args, seed: int) -> None:
    """Checks arguments that would otherwise fail late, or not be heeded.

    Raises:
        SystemExit: Some cannot be had together.
    """
    if args.init is not None and args.resume is not None:
        raise SystemExit("expected --init or --resume, found both; a resumed policy has its own weights")
    if args.relative and not args.warm_start:
        raise SystemExit(
            "expected a --warm-start with --relative, found none; rewards are relative to those of a scheduler"
        )
    if not args.warm_start:
        return
    if is_sim(args.env_id):
        raise SystemExit(
            f"expected a real environment for a --warm-start, found {args.env_id}; give --env-id SleepLLM-v0, and a "
            "policy of the sim by --init"
        )
    if args.warm_episodes < len(args.warm_start):
        raise SystemExit(
            f"expected an episode for each of {len(args.warm_start)} schedulers, found {args.warm_episodes}; "
            "give more --warm-episodes"
        )
    if seed * 10_000 + args.warm_episodes > FIRST_SEED:
        raise SystemExit(
            f"expected a seed below {FIRST_SEED // 10_000}, found {seed}: its warm start would play streams with the "
            "seeds of the test streams"
        )


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    masked = args.algorithm == "maskable"
    spec = EnvSpec(args.env_id, args.card, fit=args.fit)
    name: Literal["MaskablePPO", "PPO"] = "MaskablePPO" if masked else "PPO"
    card = PolicyCard(
        algorithm=name, env_id=args.env_id, card=args.card, seed=args.seed, steps=0, arguments=asdict(args)
    )
    if args.resume is not None:
        card = card.resuming(args.resume, RESUMED)

    require_possible(args, card.seed)
    lessons = None
    if args.warm_start and (args.resume is None or args.relative):
        # Disjoint streams for different seeds.
        streams = range(card.seed * 10_000, card.seed * 10_000 + args.warm_episodes)
        dealt = [(name, streams[i :: len(args.warm_start)]) for i, name in enumerate(args.warm_start)]
        lessons = joined([demonstrate(spec, scheduler_named(name), seeds, 4) for name, seeds in dealt])
    baselines = lessons.baselines if lessons is not None and args.relative else None

    if args.resume is None:
        envs = spec.training(args.n_envs, args.seed, args.reward_scale, baselines=baselines)
        model: Any = (MaskablePPO if masked else PPO)(
            "MultiInputPolicy",
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
                # The library's default of orthogonal weights, with gain 0.01 for the policy head, makes allowed
                # actions about equally likely at first.
                "features_extractor_class": LedgerExtractor if args.extractor == "set" else CombinedExtractor,
                "net_arch": {"pi": [args.units] * 2, "vf": [args.units] * 2},
            },
            seed=args.seed,
            device=args.device,
        )
        if args.init is not None:
            model.policy.load_state_dict(load_policy(args.init)[0].policy.state_dict())
        if lessons is not None:
            rng = np.random.default_rng(args.seed)
            agreed = clone(model, lessons, args.warm_epochs, rng, entropy=args.warm_entropy)
            print(f"warm start: does what {', '.join(args.warm_start)} did in {agreed:.1%} of {len(lessons)} steps")
    else:
        envs = spec.training(args.n_envs, card.seed, args.reward_scale, PolicyCard.read(args.resume).steps, baselines)
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
