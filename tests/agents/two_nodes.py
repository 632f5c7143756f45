"""Goes on with a run of agents/rllib_ppo.py on a cluster of two nodes on this machine; prints what it found as JSON.

A script and not part of a test: Ray reads its settings when it is imported, and keeps them for the process.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import tyro
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).parents[2] / "agents"))
import rllib_ppo as script

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the weights that both have are equal; env runners have no critic."""
    return all(np.array_equal(np.asarray(one[name]), np.asarray(other[name])) for name in one.keys() & other.keys())


def invalid(groups: list[list[Any]]) -> int:
    return sum(int(info["invalid_action"]) for group in groups for episode in group for info in episode.get_infos())


def main() -> None:
    args = replace(tyro.cli(script.Args), resume=True)
    path, _ = script.last_checkpoint(args)
    assert path is not None
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    script.register_env("sleepgym", script.make_vector)
    algo = script.configure(args, seed=5).build_algo()
    runners, found = algo.env_runner_group, {}

    def everywhere(function: Any) -> list[Any]:
        return runners.foreach_env_runner(function, local_env_runner=False)

    def weights() -> dict[str, Any]:
        return {k: v.copy() for k, v in algo.learner_group.get_weights()["default_policy"].items()}

    found["nodes"] = len(set(everywhere(lambda _: ray.get_runtime_context().get_node_id())))
    found["processes"] = len(set(everywhere(lambda _: os.getpid())))
    fresh = weights()
    algo.restore_from_path(path.resolve())
    restored = weights()
    found["restored"] = not same(fresh, restored)
    found["broadcast"] = all(same(played, restored) for played in everywhere(lambda runner: runner.module.get_state()))
    chosen = everywhere(lambda runner: runner.sample())
    found["steps_sampled"] = sum(len(episode) for group in chosen for episode in group)
    found["invalid"] = invalid(chosen)
    result = algo.train()
    found["steps"] = int(result["env_runners"]["num_env_steps_sampled_lifetime"])
    learned = weights()
    finite = all(bool(np.isfinite(weight).all()) for weight in learned.values())
    found["learned"] = finite and not same(restored, learned)
    # Last, and in new episodes: random steps lack what the module says of its own.
    at_random = everywhere(lambda runner: runner.sample(random_actions=True, force_reset=True))
    found["invalid_at_random"] = invalid(at_random)
    algo.stop()
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
