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

from sleepgym.training.rllib import load_rllib_policy

sys.path.insert(0, str(Path(__file__).parents[2] / "agents"))
import rllib_ppo as script

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}

Weights = dict[str, Any]


def distance(one: Weights, other: Weights) -> float:
    """The largest difference of weights that both have; env runners have no critic."""
    both = one.keys() & other.keys()
    return max(float(np.abs(np.asarray(one[name]) - np.asarray(other[name])).max()) for name in both)


def weights_of(algo: Any) -> Weights:
    return {name: weight.copy() for name, weight in algo.learner_group.get_weights()["default_policy"].items()}


def invalid(groups: list[list[Any]]) -> int:
    return sum(int(info["invalid_action"]) for group in groups for episode in group for info in episode.get_infos())


def watched(config: Any, checkpoint: Weights, found: dict[str, Any]) -> Any:
    """A configuration whose algorithm is looked at when it is built, and after each update."""
    fresh: Weights = {}

    # No methods: RLlib copies configurations, and with a method its object.
    def built(algorithm: Any, **kwargs: Any) -> None:
        fresh.update(weights_of(algorithm))

    def updated(algorithm: Any, **kwargs: Any) -> None:
        def everywhere(function: Any) -> list[Any]:
            return algorithm.env_runner_group.foreach_env_runner(function, local_env_runner=False)

        learned, played = weights_of(algorithm), everywhere(lambda runner: runner.module.get_state())
        found["nodes"] = len(set(everywhere(lambda _: ray.get_runtime_context().get_node_id())))
        found["processes"] = len(set(everywhere(lambda _: os.getpid())))
        found["finite"] = all(bool(np.isfinite(weight).all()) for weight in learned.values())
        found["from_fresh"], found["from_checkpoint"] = distance(fresh, learned), distance(checkpoint, learned)
        found["from_runners"] = max(distance(learned, weights) for weights in played)
        chosen = everywhere(lambda runner: runner.sample())
        found["steps_sampled"] = sum(len(episode) for group in chosen for episode in group)
        found["invalid"] = invalid(chosen)
        # Last, and in new episodes: random steps lack what the module says of its own.
        at_random = everywhere(lambda runner: runner.sample(random_actions=True, force_reset=True))
        found["invalid_at_random"] = invalid(at_random)

    return config.callbacks(on_algorithm_init=built, on_train_result=updated)


def main() -> None:
    args = replace(tyro.cli(script.Args), resume=True)
    path, steps = script.last_checkpoint(args)
    assert path is not None
    before = load_rllib_policy(path).module.get_state()
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    found: dict[str, Any] = {}
    configure = script.configure
    script.configure = lambda args, seed: watched(configure(args, seed), before, found)
    # One step more than there are makes one update.
    script.main(replace(args, address=cluster.address, total_steps=steps + 1))
    cluster.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
