# %% [markdown]
# # Your own model
#
# Any dense causal language model of transformers: a name, a folder, a GGUF file, a hub id. Here is the bundled one as
# a folder, as yours might be.

# %%
import shutil
from importlib import resources

import gymnasium as gym
import numpy as np

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym import SleepingLM, World
from sleepgym.cli.inspect import facts_of
from sleepgym.editing import EditSpec, calibrate
from sleepgym.evaluation import run_episode
from sleepgym.lm import load
from sleepgym.memory.overlay import Overlay
from sleepgym.schedulers import NightOwl

FACTS = 10
shutil.copytree(str(resources.files("sleepgym.lm") / "tiny"), "my-model", dirs_exist_ok=True)

# %% [markdown]
# First look: which blocks are found, and what would be edited? This is `sleepgym inspect my-model`.

# %%
lm = load("my-model")
for name, value in facts_of(lm).items():
    print(f"{name}: {value}")

# %% [markdown]
# How strongly edits are written depends on the model. `sleepgym calibrate my-model` tries settings and keeps the best
# ones where `SleepingLM.from_pretrained` finds them. Here is the search with one block and one clamp, to be quick.
# Facts should be such that the model does not know; for a pretrained model, `sleepgym.lm.facts_for` draws changed
# facts of the real world.

# %%
facts = World().new_facts(np.random.default_rng(0), FACTS)
found = calibrate(Overlay(lm), facts, EditSpec(layers=(0,)), [(0,)], clamps=(1.5,), covariance_weights=(300.0,))
print(found.spec)

# %%
model = SleepingLM.from_pretrained("my-model", edit=found.spec)
print(f"recalled {model.inject(facts).recall:.0%} of {len(facts)}")
report = model.sleep()
print(
    f"after a night {report.recall_after:.0%}, perplexity {report.perplexity_after / report.perplexity_before - 1:+.1%}"
)

# %% [markdown]
# And as an environment: any card can have another model. With a model of another size, its `[edit]` and `[sleep]`
# have to fit as well, and the budget to what it can hold ([your own card](own_card.md)).

# %%
env = gym.make("SleepLLM-Mini-v0", model={"name": "my-model"}, split="validation")
print(f"score {run_episode(env, NightOwl(), seed=1000).score:.2f}")
