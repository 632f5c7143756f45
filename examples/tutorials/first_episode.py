# %% [markdown]
# # First episode
#
# An episode is six days in which a language model is told facts and is asked about them. You decide, tick by tick,
# what it does besides answering. Here are two short days, on the card for first steps.

# %%
import gymnasium as gym
import numpy as np

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env import Action, stat
from sleepgym.evaluation import run_episode
from sleepgym.schedulers import PressureRule

env = gym.make("SleepLLM-Mini-v0", split="validation", render_mode="ansi")
observation, info = env.reset(seed=0)
print({name: part.shape for name, part in observation.items()})
print("allowed:", [action.name for action in Action if info["action_mask"][action]])

# %% [markdown]
# `ledger` has a row per fact, `stats` the time, the traffic, the budget and more; `stat` reads one by name. The mask
# says which of the six actions are allowed; a forbidden one does nothing and costs a penalty. The reward is the share
# of questions that are answered correctly, times the traffic, less a little for damage. Write the first facts, and
# wait:

# %%
observation, reward, terminated, truncated, info = env.step(Action.INJECT)
print("reward:", reward, " at a traffic of", stat(observation, "traffic"))
print("edits spent:", info["edits_used"], " load of the edits:", stat(observation, "load"))
observation, reward, *_ = env.step(Action.WAIT)
print(env.render())

# %% [markdown]
# Anything that maps an observation and a mask to an action plays a whole episode: here chance, and a rule.

# %%
rng = np.random.default_rng(0)


def chance(observation, mask):  # type: ignore[no-untyped-def]
    return rng.choice(np.flatnonzero(mask))


for name, result in {
    "chance": run_episode(env, chance, seed=0),
    "pressure rule": run_episode(env, PressureRule(), seed=0),
}.items():
    print(f"{name}: score {result.score:.2f}, recall {result.recall:.2f}, nights {result.sleeps}")

# %% [markdown]
# The score is the share of all questions that were answered correctly. Chance sleeps when it is asked, and it shows.
# To choose the actions of this episode yourself: `sleepgym play`.
