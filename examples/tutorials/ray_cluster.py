# %% [markdown]
# # A Ray cluster
#
# RLlib plays in several processes, on one machine or on many: each has a base model and several episodes, which share
# its passes. Ray comes with the extra `rllib`, in [an environment of its own](../rllib.md).

# %%
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune import register_env

from sleepgym.training.rllib import MaskedPPOModule, make_vector

RUNNERS = 2
UPDATES = 2

# %% [markdown]
# This starts a cluster of this machine alone. On many, start Ray on each (`ray start --head --port=6379`, then `ray
# start --address=HEAD:6379`), keep its ports inside a network that you trust, and connect with
# `ray.init(address="auto")`. Nothing below changes.

# %%
ray.init(num_cpus=RUNNERS + 1, include_dashboard=False, object_store_memory=100 * 2**20)
print(ray.cluster_resources().get("CPU"), "CPUs")

# %% [markdown]
# Two runners with two episodes each. The module never draws an action that the mask forbids.

# %%
register_env("sleep", make_vector)
config = PPOConfig().environment("sleep", env_config={"card": "SleepLLM-Mini-v0"})
config = config.env_runners(
    num_env_runners=RUNNERS,
    num_envs_per_env_runner=2,
    gym_env_vectorize_mode="vector_entry_point",
    sample_timeout_s=None,
)
config = config.fault_tolerance(restart_failed_env_runners=True, env_runner_health_probe_timeout_s=600)
config = config.rl_module(rl_module_spec=RLModuleSpec(module_class=MaskedPPOModule))
config = config.training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=1)
algorithm = config.build_algo()

# %%
for update in range(1, UPDATES + 1):
    result = algorithm.train()["env_runners"]
    print(f"update {update}: mean return {result.get('episode_return_mean')}")
algorithm.stop()
ray.shutdown()

# %% [markdown]
# `agents/rllib_ppo.py` is the full script: validation, checkpoints, resuming, the sim instead of the model (`--env-id
# SleepSim-v0`), and `--address auto` for a cluster.
