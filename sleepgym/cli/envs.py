"""``sleepgym envs``: the environments that there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from sleepgym.files import card_paths

if TYPE_CHECKING:
    from sleepgym.episode.card import Card


@dataclass(frozen=True)
class Args:
    """List the environments: the model of each, how long an episode is, and what it allows.

    An example: `sleepgym envs --json`.
    """

    json: bool = False
    """an object per environment, for scripts"""

    def run(self) -> int:
        """Prints a row per environment."""
        from sleepgym.episode.card import load_card
        from sleepgym.sim.registration import sim_id

        found = [{"sim": sim_id(card_id), **_about(card_id, load_card(card_id))} for card_id in card_paths()]
        console = Console(highlight=False, soft_wrap=self.json)
        if self.json:
            console.print_json(json.dumps(found), indent=None)
            return 0
        table = Table(box=box.SIMPLE)
        table.add_column("environment", no_wrap=True)
        for name in ("model", "days x ticks", "ledger + inbox", "edits a fact"):
            table.add_column(name, overflow="fold")
        for each in found:
            days, room = f"{each['days']} x {each['ticks_per_day']}", f"{each['capacity']} + {each['pending']}"
            low, high = each["edits_per_fact"]
            table.add_row(each["id"], each["model"], days, room, f"{low:g} to {high:g}")
        console.print(table)
        console.print("gym.make of an id makes it; docs/environments has a page on each.")
        console.print("SleepSim in place of SleepLLM names the twin without a model; cards with notes have none.")
        return 0


def _about(card_id: str, card: Card) -> Mapping[str, Any]:
    return {
        "id": card_id,
        "model": card.model.name,
        "days": card.episode.days,
        "ticks_per_day": card.stream.ticks_per_day,
        "capacity": card.budget.capacity,
        "pending": card.budget.pending,
        "edits_per_fact": list(card.budget.edits),
    }
