"""Trains a policy from a Minari dataset alone: behaviour cloning, or implicit Q-learning.

Behaviour cloning does what was done. Implicit Q-learning (IQL; Kostrikov et al. 2022, arXiv:2110.06169) learns what
actions are worth from those that were taken, and does what was done where it was better than usual. Both are masked:
forbidden actions have probability 0. scripts/make_datasets.py writes datasets; needs the extra `minari`.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import minari
import numpy as np
import torch
import tyro
from gymnasium.spaces import Discrete
from rich.progress import track
from sb3_contrib import MaskablePPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.utils import polyak_update
from torch import Tensor, nn

from sleepgym.training import LedgerExtractor, PolicyCard


@dataclass
class Args:
    algorithm: Literal["bc", "iql"] = "iql"
    """bc for behaviour cloning, iql for implicit Q-learning"""
    dataset: str = "sleepgym/SleepLLM-v0/mixed-v0"
    """id of the dataset, whose infos have action masks"""
    seed: int = 1
    """seed of weights and minibatches"""
    updates: int = 10_000
    """gradient steps"""
    out: Path = Path("runs/offline")
    """folder of the run: last.zip, its card, tensorboard logs"""
    device: str = "cpu"
    """device of the networks, which are small and fastest on a CPU"""
    threads: int = 1
    """number of torch threads"""

    batch_size: int = 256
    """steps per minibatch"""
    learning_rate: float = 3e-4
    """step size of Adam"""
    units: int = 128
    """width of each of the two hidden layers of every network"""
    gamma: float = 1.0
    """discount per step; the score is undiscounted"""
    reward_scale: float = 0.2
    """factor of rewards: returns are some dozens"""
    expectile: float = 0.8
    """expectile of the actions' values that a state is said to be worth: 0.5 is the mean, 1 the maximum"""
    temperature: float = 10.0
    """how much more an action is imitated for being better than usual: factor of advantages in an exponent"""
    most: float = 20.0
    """largest weight of a step"""
    target: float = 0.005
    """share by which the target network follows in each update"""
    log_every: int = 200
    """updates between logs"""


class Steps(NamedTuple):
    """Steps of all episodes, one after the other; ``following`` are the observations after each."""

    observations: dict[str, Tensor]
    following: dict[str, Tensor]
    masks: Tensor
    actions: Tensor
    rewards: Tensor
    ended: Tensor

    def rows(self, chosen: Tensor) -> Steps:
        """Some of the steps."""
        return Steps(
            {name: values[chosen] for name, values in self.observations.items()},
            {name: values[chosen] for name, values in self.following.items()},
            *(values[chosen] for values in self[2:]),
        )


def steps_of(dataset: minari.MinariDataset, device: str) -> Steps:
    """Returns all steps of a dataset.

    Args:
        dataset: Dataset with dictionary observations and action masks in its infos.
        device: Device of the tensors.

    Raises:
        SystemExit: The dataset is of another kind.
    """
    episodes = list(dataset.iterate_episodes())
    first = episodes[0]
    if not isinstance(first.observations, dict) or "action_mask" not in (first.infos or {}):
        raise SystemExit(
            "expected observations that are dictionaries and infos with action_mask, found another kind of dataset; "
            "scripts/make_datasets.py writes such"
        )

    def joined(parts: list[np.ndarray], dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.concatenate(parts), dtype=dtype, device=device)

    def seen(after: int) -> dict[str, Tensor]:
        cut = slice(after, None) if after else slice(None, -1)
        return {
            name: joined([episode.observations[name][cut] for episode in episodes], torch.float32)
            for name in first.observations
        }

    return Steps(
        seen(0),
        seen(1),
        joined([episode.infos["action_mask"][:-1] for episode in episodes], torch.bool),
        joined([episode.actions for episode in episodes], torch.long),
        joined([episode.rewards for episode in episodes], torch.float32),
        # The horizon is an end: nothing after it counts.
        joined([episode.terminations | episode.truncations for episode in episodes], torch.float32),
    )


class Critic(nn.Module):
    """Values of actions, or of states: an extractor of the ledger with two hidden layers."""

    def __init__(self, space: object, units: int, outputs: int) -> None:
        super().__init__()
        self.features = LedgerExtractor(space)  # type: ignore[arg-type]  # it checks
        self.head = nn.Sequential(*create_mlp(self.features.features_dim, outputs, [units, units]))

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Returns values ``[rows, outputs]``."""
        return self.head(self.features(observations))


class Iql(nn.Module):
    """Critics of implicit Q-learning: two of actions, their slow copies, and one of states.

    Args:
        space: Space of observations.
        actions: Number of actions.
        args: Numbers of the run.
    """

    def __init__(self, space: object, actions: int, args: Args) -> None:
        super().__init__()
        self.args = args
        self.q, self.slow = (nn.ModuleList(Critic(space, args.units, actions) for _ in range(2)) for _ in range(2))
        self.slow.load_state_dict(self.q.state_dict())
        self.value = Critic(space, args.units, 1)
        self.optimizer = torch.optim.Adam([*self.q.parameters(), *self.value.parameters()], args.learning_rate)

    def update(self, steps: Steps) -> tuple[Tensor, dict[str, float]]:
        """Improves the critics by a minibatch.

        Returns:
            Advantages of the actions that were taken, ``[rows]``, and losses by name.
        """
        args, taken = self.args, steps.actions[:, None]
        with torch.no_grad():
            slow = torch.stack([q(steps.observations).gather(1, taken)[:, 0] for q in self.slow]).amin(0)
            after = self.value(steps.following)[:, 0]
            wanted = args.reward_scale * steps.rewards + args.gamma * (1 - steps.ended) * after
        value = self.value(steps.observations)[:, 0]
        advantage = slow - value
        # Asymmetric squares: a state is worth what the better of its actions are (equation 5 of the paper).
        weight = torch.where(advantage > 0, args.expectile, 1 - args.expectile)
        value_loss = (weight * advantage**2).mean()
        q_loss = sum((q(steps.observations).gather(1, taken)[:, 0] - wanted).pow(2).mean() for q in self.q)
        self.optimizer.zero_grad()
        (value_loss + q_loss).backward()
        self.optimizer.step()
        polyak_update(self.q.parameters(), self.slow.parameters(), args.target)
        return advantage.detach(), {"value_loss": value_loss.item(), "q_loss": q_loss.item()}


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    dataset = minari.load_dataset(args.dataset)
    steps = steps_of(dataset, args.device)
    env_id = dataset.env_spec.id
    if not isinstance(dataset.action_space, Discrete):
        raise SystemExit(f"expected a plain action, found {dataset.action_space}; take a card without parameters")
    # A policy of sb3-contrib, never trained by it: evaluate.py and the leaderboard play such.
    model = MaskablePPO(
        "MultiInputPolicy",
        make_vec_env(dataset.recover_environment),
        policy_kwargs={"features_extractor_class": LedgerExtractor, "net_arch": [args.units] * 2},
        seed=args.seed,
        device=args.device,
    )
    model.start_time = time.time_ns()  # its own learning would begin here
    policy = model.policy
    optimizer = torch.optim.Adam(policy.parameters(), args.learning_rate)
    critics = None
    if args.algorithm == "iql":
        critics = Iql(dataset.observation_space, int(dataset.action_space.n), args).to(args.device)
    logger = configure(str(args.out), ["stdout", "tensorboard"])
    dice = torch.Generator().manual_seed(args.seed)
    policy.set_training_mode(True)
    for update in track(range(1, args.updates + 1), f"{args.algorithm}, {len(steps.actions)} steps"):
        batch = steps.rows(torch.randint(len(steps.actions), (args.batch_size,), generator=dice).to(args.device))
        weights, losses = torch.ones(args.batch_size, device=args.device), dict[str, float]()
        if critics is not None:
            advantage, losses = critics.update(batch)
            weights = (args.temperature * advantage).exp().clamp(max=args.most)
        seen: Any = batch.observations  # sb3-contrib's type hint lacks dictionaries
        _, log_prob, _ = policy.evaluate_actions(seen, batch.actions, action_masks=batch.masks)
        loss = -(weights * log_prob).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update % args.log_every == 0 or update == args.updates:
            for name, number in {"policy_loss": loss.item(), "log_prob": log_prob.mean().item(), **losses}.items():
                logger.record(f"train/{name}", number)
            logger.dump(update)
    policy.set_training_mode(False)
    card = PolicyCard(algorithm="MaskablePPO", env_id=env_id, seed=args.seed, steps=0, arguments=asdict(args))
    card.after(model).save(model, args.out / "last.zip")
    print(f"policy: {args.out}/last.zip   logs: tensorboard --logdir {args.out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
