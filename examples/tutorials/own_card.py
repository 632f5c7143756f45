# %% [markdown]
# # Your own card, and its sim
#
# Every number of an environment is in a card. A card of your own is a copy with other numbers; its sim is fitted to
# recorded episodes, and training is in the sim. Here: two short days with more to be told.

# %%
from pathlib import Path

import gymnasium as gym
import numpy as np

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.evaluation import evaluate, simulate
from sleepgym.evaluation.recorded import missing, record_jobs, recorded
from sleepgym.files import card_paths
from sleepgym.schedulers import NeverSleep, NightOwl
from sleepgym.sim import Record, fit_response, save_fit
from sleepgym.sim.fit_files import card_of
from sleepgym.training import EnvSpec

EPISODES = 6
text = card_paths()["SleepLLM-Mini-v0"].read_text(encoding="utf-8")
assert "arrival_rate = [0.4, 0.6]" in text
Path("busy.toml").write_text(text.replace("arrival_rate = [0.4, 0.6]", "arrival_rate = [0.6, 0.9]"), encoding="utf-8")
env = gym.make("SleepLLM-Mini-v0", card="busy.toml")
print(env.unwrapped.card.stream.arrival_rate)  # type: ignore[attr-defined]

# %% [markdown]
# A mistake in a card is an error that names the file, the key, what was expected and what was found.
#
# Record real episodes, played at random and by a rule that is disturbed now and then, so that every action is seen in
# many situations; then fit. `sleepgym fit-sim --env busy.toml` does this with more policies and episodes, and goes on
# where it was interrupted.

# %%
policies = ("mix:1,3,1,1,1,1", "night-owl~0.3")
jobs = record_jobs("busy.toml", policies, range(EPISODES), "train", Path("records"))
for number, _ in enumerate(recorded(missing(jobs), processes=1), start=1):
    print(f"recorded {number} of {len(jobs)}")
records = [Record.load(job.path) for job in jobs]
response, tried = fit_response(records, held_out=0.25)
save_fit(Path("busy.safetensors"), response, card_of("busy", records, tried))

# %% [markdown]
# The sim of the card plays hundreds of episodes at once. Does it rank two rules as the real environment does? With so
# few recorded episodes that is a first impression and no more ([how it is tested](../environments/sim.md)).

# %%
envs = gym.make_vec("SleepSim-Mini-v0", num_envs=8, card="busy.toml", fit="busy.safetensors")
spec, seeds = EnvSpec("SleepLLM-Mini-v0", "busy.toml"), range(1000, 1000 + EPISODES)
for rule in (NightOwl(), NeverSleep()):
    sim = simulate(envs.setting, envs.response, rule, seeds)  # type: ignore[attr-defined]
    real = evaluate(lambda: spec.make("validation"), rule, seeds)
    simulated, true = (np.mean([result.score for result in results]) for results in (sim, real))
    print(f"{rule.name}: simulated {simulated:.2f}, real {true:.2f}")
