"""PPO in one file, with action masks and observations in two parts, in the sim or on the real model.

Proximal policy optimisation (Schulman et al. 2017) with generalised advantages (Schulman et al. 2016), in the manner of
CleanRL (Huang et al. 2022): from here on nothing is hidden in a library. Forbidden actions have probability 0 (Huang
and Ontanon 2022). Returns are undiscounted, and end with the episode. A policy is written as safetensors and JSON,
which are no code, and :class:`Player` plays it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.utils.tensorboard import SummaryWriter

import sleepgym  # noqa: F401  (registers the environments)


@dataclass
class Args:
    env_id: str = "SleepSim-v0"
    """environment, simulated or real"""
    out: Path = Path("runs/ppo_single_file")
    """folder of the policy and of the tensorboard logs"""
    load: Path | None = None
    """folder of a policy to go on with; none for random weights"""
    seed: int = 1
    """seed of weights, actions and streams"""
    threads: int = 1
    """threads of torch"""
    total_steps: int = 3_000_000
    """steps, counted over all environments"""
    num_envs: int = 256
    """episodes at a time"""
    num_steps: int = 64
    """steps of each between updates"""
    learning_rate: float = 2e-3
    """step size of Adam; it decays linearly to 0"""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation"""
    minibatches: int = 16
    """minibatches per epoch"""
    epochs: int = 3
    """passes over the steps per update"""
    clip: float = 0.2
    """clip range of the probability ratio"""
    entropy: float = 0.002
    """weight of the entropy bonus"""
    value: float = 0.5
    """weight of the value loss"""
    max_grad_norm: float = 0.5
    """maximum norm of the gradient"""
    reward_scale: float = 0.2
    """factor of rewards, so that returns are of order 1 to 10"""
    units: int = 128
    """width of the hidden layers"""


class Agent(nn.Module):
    """Policy and value, which read the ledger as a set of facts ("Deep Sets", Zaheer et al. 2017)."""

    def __init__(self, features: int, stats: int, actions: int, units: int) -> None:
        super().__init__()
        self.row = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.actor = _mlp(4 * 32 + stats, units, actions, gain=0.01)
        self.critic = _mlp(4 * 32 + stats, units, 1, gain=1.0)

    def features(self, ledger: Tensor, stats: Tensor) -> Tensor:
        """Pools written facts and, apart from them, those that wait, by mean and by maximum."""
        present, pending = ledger[..., 0], ledger[..., 1]
        rows, pooled = self.row(ledger), [stats]
        for weight in (present * (1 - pending), present * pending):
            masked = rows * weight[..., None]
            pooled += [masked.sum(1) / weight.sum(1, keepdim=True).clamp(min=1), masked.amax(1)]
        return torch.cat(pooled, -1)

    def forward(self, ledger: Tensor, stats: Tensor, mask: Tensor) -> tuple[Categorical, Tensor]:
        """Returns the distribution of actions and the value, ``[rows]``."""
        features = self.features(ledger, stats)
        logits = self.actor(features).masked_fill(~mask, -1e8)
        return Categorical(logits=logits), self.critic(features).squeeze(-1)


def _mlp(inputs: int, units: int, outputs: int, gain: float) -> nn.Sequential:
    layers = [nn.Linear(inputs, units), nn.Linear(units, units), nn.Linear(units, outputs)]
    for layer, size in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, size)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def tensors(observation: Mapping[str, Any], mask: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Ledger, stats and mask of a batch as tensors."""
    ledger, stats = (torch.as_tensor(np.asarray(observation[name], np.float32)) for name in ("ledger", "stats"))
    return ledger, stats, torch.as_tensor(np.asarray(mask, bool))


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    envs = gym.make_vec(args.env_id, num_envs=args.num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    observation, infos = envs.reset(seed=args.seed * 100_000)
    now = tensors(observation, infos["action_mask"])
    agent = Agent(now[0].shape[-1], now[1].shape[-1], now[2].shape[-1], args.units)
    if args.load is not None:
        agent.load_state_dict(load_file(args.load / "policy.safetensors"))
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    writer = SummaryWriter(str(args.out))
    writer.add_text("arguments", json.dumps(asdict(args), default=str, indent=1))

    shape = (args.num_steps, args.num_envs)
    seen = [torch.zeros(shape + part.shape[1:], dtype=part.dtype) for part in now]
    actions = torch.zeros(shape, dtype=torch.long)
    log_probs, rewards, dones, values = (torch.zeros(shape) for _ in range(4))
    batch, start = args.num_steps * args.num_envs, time.perf_counter()
    scores: list[float] = []
    updates = max(1, args.total_steps // batch)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - update / updates)

        # Plays.
        for step in range(args.num_steps):
            for kept, part in zip(seen, now, strict=True):
                kept[step] = part
            with torch.no_grad():
                policy, values[step] = agent(*now)
            actions[step] = policy.sample()
            log_probs[step] = policy.log_prob(actions[step])
            observation, reward, terminated, truncated, infos = envs.step(actions[step].numpy())
            ended = terminated | truncated
            rewards[step] = torch.as_tensor(reward, dtype=torch.float32) * args.reward_scale
            # The horizon is part of the task: what comes after it counts nothing, so that it ends like any episode.
            dones[step] = torch.as_tensor(ended, dtype=torch.float32)
            if ended.any():
                scores += np.asarray(infos["final_info"]["score"])[ended].tolist()
            now = tensors(observation, infos["action_mask"])

        # Computes advantages, backwards in time.
        with torch.no_grad():
            following = agent(*now)[1]
            advantages, carried = torch.zeros(shape), torch.zeros(args.num_envs)
            for step in reversed(range(args.num_steps)):
                error = rewards[step] + following * (1 - dones[step]) - values[step]
                carried = error + args.gae_lambda * (1 - dones[step]) * carried
                advantages[step], following = carried, values[step]
            returns = advantages + values

        # Learns.
        flat = [part.flatten(0, 1) for part in (*seen, actions, log_probs, advantages, returns)]
        for _ in range(args.epochs):
            for rows in torch.randperm(batch).chunk(args.minibatches):
                ledger, stats, mask, action, before, advantage, target = (part[rows] for part in flat)
                policy, value = agent(ledger, stats, mask)
                log_ratio = policy.log_prob(action) - before
                ratio = log_ratio.exp()
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                clipped = ratio.clamp(1 - args.clip, 1 + args.clip)
                policy_loss = -torch.min(advantage * ratio, advantage * clipped).mean()
                value_loss = 0.5 * (value - target).pow(2).mean()
                entropy = policy.entropy().mean()
                optimizer.zero_grad()
                (policy_loss + args.value * value_loss - args.entropy * entropy).backward()
                nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
                optimizer.step()

        steps = (update + 1) * batch
        figures = {
            "rollout/score": float(np.mean(scores)) if scores else float("nan"),
            "train/entropy": entropy.item(),
            "train/value_loss": value_loss.item(),
            "train/kl": (ratio - 1 - log_ratio).mean().item(),
            "train/explained_variance": 1 - ((returns - values).var() / returns.var()).item(),
            "time/steps_per_second": steps / (time.perf_counter() - start),
        }
        for name, number in figures.items():
            writer.add_scalar(name, number, steps)
        if update % 10 == 9 or update == updates - 1:
            print(
                f"{steps:>9} steps  "
                + "  ".join(f"{name.split('/')[1]} {number:.3f}" for name, number in figures.items()),
                flush=True,
            )
            save(agent, args, steps)
            scores = []
    writer.close()
    envs.close()


def save(agent: Agent, args: Args, steps: int) -> None:
    """Writes the policy: weights as safetensors, what it was trained with as JSON."""
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(agent.state_dict(), args.out / "policy.safetensors")
    about = {"steps": steps, "arguments": asdict(args)}
    (args.out / "policy.json").write_text(json.dumps(about, default=str, indent=1))


class Player:
    """A saved policy, for ``sleepgym.evaluation.evaluate``."""

    def __init__(self, folder: str | Path) -> None:
        weights = load_file(Path(folder) / "policy.safetensors")
        features, (units, inputs), actions = (
            weights[f"{name}.weight"].shape for name in ("row.0", "actor.0", "actor.4")
        )
        self.agent = Agent(features[1], inputs - 4 * 32, actions[0], units)
        self.agent.load_state_dict(weights)

    def predict(
        self,
        observation: Mapping[str, Any],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[np.ndarray[Any, Any], Any]:
        """Chooses for each of a batch of observations the likeliest action, or draws one."""
        if action_masks is None:
            raise ValueError("expected action_masks, as env.action_masks() gives them, found none")
        with torch.no_grad():
            policy, _ = self.agent(*tensors(observation, action_masks))
        chosen = policy.logits.argmax(-1) if deterministic else policy.sample()
        return chosen.numpy(), state


if __name__ == "__main__":
    main(tyro.cli(Args))
