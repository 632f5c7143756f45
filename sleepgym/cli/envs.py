"""``sleepgym envs``: the environments that there are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from sleepgym.files import card_paths

if TYPE_CHECKING:
    from sleepgym.env.fastweights.card import FastWeightsCard
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
        from sleepgym.env.fastweights.card import FOLDER, load_fast_card
        from sleepgym.episode.card import load_card
        from sleepgym.sim.registration import sim_id

        found = [{"sim": sim_id(card_id), **_about(card_id, load_card(card_id))} for card_id in card_paths()]
        fast = [_about_fast(card_id, load_fast_card(card_id)) for card_id in card_paths(FOLDER)]
        console = Console(highlight=False, soft_wrap=self.json)
        if self.json:
            console.print_json(json.dumps([*found, *fast]), indent=None)
            return 0
        rows = []
        for each in found:
            days, room = f"{each['days']} x {each['ticks_per_day']}", f"{each['capacity']} + {each['pending']}"
            low, high = each["edits_per_fact"]
            rows.append((each["id"], each["model"], days, room, f"{low:g} to {high:g}"))
        console.print(_table(("model", "days x ticks", "ledger + inbox", "edits a fact"), rows))
        rows = [
            (each["id"], each["model"], *map(str, (each["documents"], each["window_ticks"])), str(each["passes"])[1:-1])
            for each in fast
        ]
        console.print(_table(("model", "documents", "ticks a window", "passes"), rows))
        console.print("gym.make of an id makes it; docs/environments has a page on each.")
        console.print("SleepSim in place of SleepLLM names the twin without a model.")
        return 0


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("environment", no_wrap=True)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


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


def _about_fast(card_id: str, card: FastWeightsCard) -> Mapping[str, Any]:
    return {
        "id": card_id,
        "sim": None,
        "model": card.model.file,
        "documents": card.stream.documents,
        "window_ticks": card.stream.window_ticks,
        "passes": list(card.passes.choices),
    }
