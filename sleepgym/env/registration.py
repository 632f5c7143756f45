"""Registers one Gymnasium id per card. Reads file names only, so that importing sleepgym stays cheap."""

from __future__ import annotations

import gymnasium as gym

from sleepgym.files import card_paths


def register_cards() -> None:
    """Makes every card's id known to ``gymnasium.make``; doing it twice changes nothing."""
    for card_id in card_paths():
        if card_id not in gym.registry:
            gym.register(
                id=card_id,
                # A string: torch is loaded when the first environment is made, not when sleepgym is imported.
                entry_point="sleepgym.env.sleep_env:SleepEnv",
                vector_entry_point="sleepgym.env.vector:SleepVectorEnv",
                kwargs={"card": card_id},
                # The environment truncates by ticks, of which an action may take several.
                max_episode_steps=None,
            )
