"""PPO in one file, in the manner of CleanRL's ppo.py: it takes an id, and makes Gymnasium's vector without masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import nn
from torch.distributions import Categorical


@dataclass
class Args:
    env_id: str = "CartPole-v1"
    """the id of the environment"""
    total_timesteps: int = 500_000
    """total timesteps of the experiments"""
    num_envs: int = 4
    """the number of parallel game environments"""
    num_steps: int = 128
    """the number of steps to run in each environment per policy rollout"""
    cuda: bool = True
    """if toggled, cuda will be enabled by default"""
    seed: int = 1
    """seed of the experiment"""


def make_env(env_id: str) -> Callable[[], gym.Env]:
    return lambda: gym.wrappers.RecordEpisodeStatistics(gym.make(env_id))


def train(args: Args) -> None:
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() and args.cuda else "cpu")
    envs = gym.vector.SyncVectorEnv([make_env(args.env_id) for _ in range(args.num_envs)])
    assert isinstance(envs.single_action_space, gym.spaces.Discrete), "only discrete action space is supported"
    size, shape = int(np.array(envs.single_observation_space.shape).prod()), (args.num_steps, args.num_envs)
    actor = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, int(envs.single_action_space.n))).to(device)
    critic = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 1)).to(device)
    parameters = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=2.5e-4, eps=1e-5)
    obs, actions = torch.zeros((*shape, size), device=device), torch.zeros(shape, device=device)
    logprobs, rewards, dones, values = (torch.zeros(shape, device=device) for _ in range(4))
    seen, _ = envs.reset(seed=args.seed)
    next_obs, next_done = torch.Tensor(seen).to(device), torch.zeros(args.num_envs, device=device)
    for update in range(args.total_timesteps // (args.num_envs * args.num_steps)):
        for step in range(args.num_steps):
            obs[step], dones[step] = next_obs, next_done
            with torch.no_grad():
                policy = Categorical(logits=actor(next_obs))
                actions[step], values[step] = policy.sample(), critic(next_obs).flatten()
                logprobs[step] = policy.log_prob(actions[step])
            seen, reward, terminated, truncated, infos = envs.step(actions[step].long().cpu().numpy())
            rewards[step] = torch.tensor(reward)
            next_obs, next_done = torch.Tensor(seen).to(device), torch.Tensor(terminated | truncated).to(device)
            for i in np.flatnonzero(infos.get("_episode", [])):
                print(f"update={update}, episodic_return={infos['episode']['r'][i]:.3f}")
        with torch.no_grad():
            following, alive, last, advantages = (
                critic(next_obs).flatten(),
                1 - next_done,
                0.0,
                torch.zeros_like(rewards),
            )
            for t in reversed(range(args.num_steps)):
                delta = rewards[t] + 0.99 * following * alive - values[t]
                advantages[t] = last = delta + 0.99 * 0.95 * alive * last
                following, alive = values[t], 1 - dones[t]
        returns, flat_obs, flat_actions = (advantages + values).flatten(), obs.flatten(0, 1), actions.flatten()
        for _ in range(4):
            for batch in torch.randperm(flat_actions.numel()).chunk(4):
                policy = Categorical(logits=actor(flat_obs[batch]))
                ratio = (policy.log_prob(flat_actions[batch]) - logprobs.flatten()[batch]).exp()
                gain = advantages.flatten()[batch]
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                objective = torch.min(gain * ratio, gain * ratio.clamp(0.8, 1.2)).mean()
                error = (critic(flat_obs[batch]).flatten() - returns[batch]).square().mean()
                loss = -objective - 0.01 * policy.entropy().mean() + 0.5 * error
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 0.5)
                optimizer.step()
        print(f"update={update}, loss={loss.item():.4f}")
    envs.close()


if __name__ == "__main__":
    train(tyro.cli(Args))
