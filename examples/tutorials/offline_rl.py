# %% [markdown]
# # Offline RL from Minari
#
# Learning from recorded episodes alone, without playing. [Minari](https://minari.farama.org) keeps datasets in a
# standard form; it comes with the extra `minari`.

# %%
import os
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import torch
from minari.data_collector import EpisodeBuffer
from sb3_contrib import MaskablePPO

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.evaluation import run_episode
from sleepgym.schedulers import NightOwl
from sleepgym.training import LedgerExtractor

EPISODES = 6
UPDATES = 600
os.environ.setdefault("MINARI_DATASETS_PATH", os.path.abspath("minari"))

# %% [markdown]
# Record a rule: observations, actions, rewards, and the masks, which cloning needs.

# %%
env, rule = gym.make("SleepLLM-Mini-v0"), NightOwl()
buffers = []
for seed in range(EPISODES):
    observation, info = env.reset(seed=seed)
    seen, masks, actions, rewards, over = [observation], [info["action_mask"]], [], [], False
    while not over:
        action, _ = rule.predict(observation, action_masks=info["action_mask"])
        observation, reward, terminated, truncated, info = env.step(int(action))
        seen.append(observation)
        masks.append(info["action_mask"])
        actions.append(int(action))
        rewards.append(float(reward))
        over = terminated or truncated
    ends = np.arange(1, len(actions) + 1) == len(actions)
    buffers.append(
        EpisodeBuffer(
            id=seed,
            observations={name: np.stack([each[name] for each in seen]) for name in seen[0]},
            actions=np.array(actions),
            rewards=np.array(rewards),
            terminations=ends & terminated,
            truncations=ends & truncated,
            infos={"action_mask": np.stack(masks)},
        )
    )
name = "sleepgym/mini/night-owl-v0"
if name in minari.list_local_datasets():
    minari.delete_dataset(name)
dataset = minari.create_dataset_from_buffers(name, buffers, env=env, eval_env=env, algorithm_name="night-owl")
print(dataset.total_episodes, "episodes,", dataset.total_steps, "steps")

# %% [markdown]
# Behaviour cloning: make what was done likely, among what was allowed.

# %%
episodes = list(dataset.iterate_episodes())
observations = {
    name: torch.as_tensor(np.concatenate([episode.observations[name][:-1] for episode in episodes]))
    for name in ("ledger", "stats")
}
allowed = torch.as_tensor(np.concatenate([episode.infos["action_mask"][:-1] for episode in episodes])).bool()
taken = torch.as_tensor(np.concatenate([episode.actions for episode in episodes])).long()

model = MaskablePPO(
    "MultiInputPolicy",
    dataset.recover_environment(),
    policy_kwargs={"features_extractor_class": LedgerExtractor, "net_arch": [64, 64]},
    seed=0,
    device="cpu",
)
policy: Any = model.policy
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
for _ in range(UPDATES):
    rows = torch.randint(len(taken), (64,))
    batch = {name: part[rows] for name, part in observations.items()}
    _, log_probability, _ = policy.evaluate_actions(batch, taken[rows], action_masks=allowed[rows])
    loss = -log_probability.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"last loss: {loss.item():.3f} nats")

# %% [markdown]
# Does it play like its teacher, on a stream that neither of them was recorded on?

# %%
env = gym.make("SleepLLM-Mini-v0", split="validation")
print(f"teacher: score {run_episode(env, rule, seed=1000).score:.2f}")
print(f"clone: score {run_episode(env, model, seed=1000).score:.2f}")

# %% [markdown]
# `agents/offline.py` does the same at full size, and learns better than its teachers by implicit Q-learning where the
# data has more than one; `scripts/make_datasets.py` records such data
# ([agents](../agents.md#from-recorded-episodes-alone)).
