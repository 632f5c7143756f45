"""Registers the simulated twins of all cards: ``SleepSim-v0`` for ``SleepLLM-v0``, and so on.

It reads file names only, so that importing sleepgym stays cheap.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from sleepgym.files import card_paths


def register_sims() -> None:
    """Makes the ids of every card's sim known to ``gymnasium.make``; doing it twice changes nothing."""
    for card_id in card_paths():
        name, _, version = sim_id(card_id).rpartition("-v")
        _register(f"{name}-v{version}", card=card_id)
        _register(f"{name}-Flat-v{version}", card=card_id, flat=True)


def sim_id(card_id: str) -> str:
    """Returns the id of a card's sim: ``SleepLLM-Mini-v0`` has ``SleepSim-Mini-v0``."""
    return card_id.replace("SleepLLM", "SleepSim", 1)


def _register(env_id: str, **arguments: Any) -> None:
    if env_id not in gym.registry:
        gym.register(
            id=env_id,
            # Strings: what a sim needs is loaded when the first is made, not when sleepgym is imported.
            entry_point="sleepgym.sim.env:SimEnv",
            vector_entry_point="sleepgym.sim.vector:SimVectorEnv",
            kwargs=arguments,
            # The environment truncates by ticks, of which an action may take several.
            max_episode_steps=None,
        )
