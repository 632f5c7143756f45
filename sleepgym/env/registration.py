"""Registers two Gymnasium ids per card: with observations as dictionaries, and as vectors.

It reads file names only, so that importing sleepgym stays cheap.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from sleepgym.files import card_paths


def register_cards() -> None:
    """Makes every card's ids known to ``gymnasium.make``; doing it twice changes nothing."""
    for card_id in card_paths():
        _register(card_id, card=card_id)
        _register(flat_id(card_id), card=card_id, flat=True)


def flat_id(card_id: str) -> str:
    """The id of a card's environment with ``flat=True``, for scripts that take an id and nothing else.

    ``SleepLLM-Mini-v0`` has ``SleepLLM-Mini-Flat-v0``.
    """
    name, _, version = card_id.rpartition("-v")
    return f"{name}-Flat-v{version}"


def _register(env_id: str, **arguments: Any) -> None:
    if env_id not in gym.registry:
        gym.register(
            id=env_id,
            # A string: torch is loaded when the first environment is made, not when sleepgym is imported.
            entry_point="sleepgym.env.sleep_env:SleepEnv",
            vector_entry_point="sleepgym.env.vector:SleepVectorEnv",
            kwargs=arguments,
            # The environment truncates by ticks, of which an action may take several.
            max_episode_steps=None,
        )
