"""Registers the Gymnasium ids of all cards: of a language model's two each, of fast weights one.

It reads file names only, so that importing sleepgym stays cheap.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from sleepgym.files import card_paths


def register_cards() -> None:
    """Makes every card's ids known to ``gymnasium.make``; doing it twice changes nothing."""
    for card_id in card_paths():
        register(card_id, "sleep_env:SleepEnv", "vector:SleepVectorEnv", card=card_id)
        register(flat_id(card_id), "sleep_env:SleepEnv", "vector:SleepVectorEnv", card=card_id, flat=True)
    for card_id in card_paths("fastweights"):
        register(card_id, "fastweights.env:FastWeightsEnv", "fastweights.vector:FastWeightsVectorEnv", card=card_id)


def flat_id(card_id: str) -> str:
    """The id of a card's environment with ``flat=True``, for scripts that take an id and nothing else.

    ``SleepLLM-Mini-v0`` has ``SleepLLM-Mini-Flat-v0``.
    """
    name, _, version = card_id.rpartition("-v")
    return f"{name}-Flat-v{version}"


def registered(env_id: str) -> str:
    """The id without the module that ``gymnasium.make`` takes before it, as in ``sleepgym:SleepLLM-v0``."""
    return env_id.rpartition(":")[2]


def register(env_id: str, single: str, vector: str, **arguments: Any) -> None:
    """Makes an id known to ``gymnasium.make`` and ``make_vec``; doing it twice changes nothing.

    Args:
        env_id: Id.
        single: Module and class of the environment, below ``sleepgym.env``.
        vector: Module and class of the vector.
        **arguments: What both are given.
    """
    if env_id not in gym.registry:
        gym.register(
            id=env_id,
            # Strings: torch is loaded when the first environment is made, not when sleepgym is imported.
            entry_point=f"sleepgym.env.{single}",
            vector_entry_point=f"sleepgym.env.{vector}",
            kwargs=arguments,
            # The environment truncates by ticks, of which an action may take several.
            max_episode_steps=None,
        )
