# %% [markdown]
# # Train PPO in the sim, and check it on the real model
#
# `SleepSim-v0` is the environment without its model: what would be recalled is drawn from a fit to real episodes,
# thousands of steps a second. A policy that learned there plays the real environment as it is, since both show the
# same.

# %%
from pathlib import Path

import numpy as np
from sb3_contrib import MaskablePPO

from sleepgym.evaluation import episodes_sheet, evaluate
from sleepgym.schedulers import PressureRule
from sleepgym.training import EnvSpec, LedgerExtractor, PolicyCard

STEPS = 500_000  # some minutes; `sleepgym train` goes on to three millions
STREAMS = 8

# %% [markdown]
# 256 episodes at once. The ledger is a set of facts, which `LedgerExtractor` reads as one; nothing is discounted,
# since the score is not; and rewards are scaled, since returns are some dozens.

# %%
envs = EnvSpec("SleepSim-v0").training(256, seed=1, reward_scale=0.2)
model = MaskablePPO(
    "MultiInputPolicy",
    envs,
    n_steps=64,
    batch_size=1024,
    n_epochs=3,
    learning_rate=2e-3,
    gamma=1.0,
    ent_coef=0.002,
    policy_kwargs={"features_extractor_class": LedgerExtractor, "net_arch": {"pi": [128, 128], "vf": [128, 128]}},
    seed=1,
    device="cpu",
)
model.learn(STEPS, progress_bar=False)
print(f"{model.num_timesteps} steps")

# %% [markdown]
# With its card beside it, `sleepgym evaluate`, `demo` and `leaderboard` take the file. (A policy file is code: load
# only those that you trust.)

# %%
card = PolicyCard(algorithm="MaskablePPO", env_id="SleepSim-v0", seed=1, steps=model.num_timesteps)
card.save(model, Path("runs/first/last.zip"))

# %% [markdown]
# Now the real model, which the policy has never seen, on validation streams.

# %%
real, seeds = EnvSpec("SleepLLM-v0"), range(1000, 1000 + STREAMS)
played = {
    "PPO": evaluate(lambda: real.make("validation"), model, seeds),
    "pressure-rule": evaluate(lambda: real.make("validation"), PressureRule(), seeds),
}
print(episodes_sheet(played, np.random.default_rng(0), f"{STREAMS} validation streams of the real model").markdown())

# %% [markdown]
# Few streams say little: the intervals overlap. What five full runs reach on 100 test streams is on [the page of
# results](../results.md).
