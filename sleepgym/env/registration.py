"""Registers one Gymnasium id per card. Reads file names only, so that importing sleepgym stays cheap."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import gymnasium as gym


def card_paths() -> dict[str, Path]:
    """Every card by its id, which is the name of its file.

    A wheel carries the cards inside the package; an editable checkout has them in its ``envs`` folder.
    """
    package = Path(str(resources.files("sleepgym")))
    shipped, checkout = package / "env" / "cards", package.parent / "envs"
    folder = shipped if shipped.is_dir() else checkout
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def register_cards() -> None:
    """Makes every card's id known to ``gymnasium.make``; doing it twice changes nothing."""
    for card_id in card_paths():
        if card_id not in gym.registry:
            gym.register(
                id=card_id,
                # A string: torch is loaded when the first environment is made, not when sleepgym is imported.
                entry_point="sleepgym.env.sleep_env:SleepEnv",
                vector_entry_point="sleepgym.env.vector_env:SleepVectorEnv",
                kwargs={"card": card_id},
                # The environment truncates by ticks, of which an action may take several.
                max_episode_steps=None,
            )
