"""Rounds in which the present package and an earlier commit play the same episodes, one thread per process.

A round of a side is: new facts, the same episodes again with their targets cached, and once more in several processes
at a time. Sides take turns, and which one begins alternates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.before import Played, Player, commit_of, own_targets, worktree
from benchmarks.common import records, timing
from benchmarks.common.records import Record

FRESH, CACHED, TOGETHER = "fresh facts", "cached targets", "processes"
"""Settings: facts that were never seen, the same again, and the same in several processes."""

RATE, RESET, TIMES_ONE = "steps/s", "reset (ms)", "times one process"
"""What is measured, besides milliseconds of each action."""

GEMMA = "SleepLLM-Gemma-v0"
GEMMA_LIFE = {"stream": {"arrival_rate": [1.5, 1.5]}, "sleep": {"facts": 10}}
"""Facts come faster than on its card: more than ten by the first night, of which ten have their turn."""
GEMMA_DAY = ("INJECT", "WAIT") * 5 + ("INJECT", "SLEEP")
GEMMA_FIGURES = ("INJECT (ms)", "SLEEP (ms)")

Figures = dict[str, float]
"""Mean milliseconds of each action and of a reset, and steps per second; of one setting in one round."""
Round = dict[str, dict[str, Figures]]
"""Figures by side, ``before`` or ``new``, and by setting."""


@dataclass(frozen=True)
class Side:
    """Players with one version of the package.

    Attributes:
        players: The first plays alone as well.
    """

    players: Sequence[Player]

    def round(self, seeds: Sequence[int], timetable: Sequence[str]) -> dict[str, Figures]:
        """Plays episodes that this side has not played before in every setting."""
        alone, *others = self.players
        found = {name: figures(alone.play(seeds, timetable)) for name in (FRESH, CACHED)}
        if others:
            for player in others:
                player.play(seeds, timetable)
            together = self.together(seeds, timetable)
            found[TOGETHER] = {RATE: together, TIMES_ONE: together / found[CACHED][RATE]}
        return found

    def together(self, seeds: Sequence[int], timetable: Sequence[str]) -> float:
        """Steps per second of all players at a time, until the last one is done."""
        for player in self.players:
            player.begin(seeds, timetable)
        spans = [spent(player.answer()) for player in self.players]
        return sum(steps for steps, _ in spans) / max(seconds for _, seconds in spans)


def spent(played: Played) -> tuple[int, float]:
    """Steps, and the seconds they took."""
    steps = [span for spans in played["steps"].values() for span in spans]
    return len(steps), sum(steps) / 1000


def figures(played: Played) -> Figures:
    """Steps per second, and means of what was done at all."""
    steps, seconds = spent(played)
    by_action = {f"{name} (ms)": mean(spans) for name, spans in played["steps"].items() if spans}
    return {RATE: steps / seconds, **by_action, RESET: mean(played["reset"])}


def compared(
    commit: str,
    card: str,
    timetable: Sequence[str],
    episodes: int,
    rounds: int,
    processes: int,
    overrides: Mapping[str, Any] | None = None,
    instead: str = "",
) -> Record:
    """Plays all rounds.

    Args:
        commit: The earlier version.
        card: Id of the environment.
        timetable: Names of an episode's actions.
        episodes: Episodes of a round, other ones in every round.
        rounds: Rounds.
        processes: Players at a time; 1 leaves that setting out.
        overrides: Sections of the card with the keys to replace.
        instead: Path of a card that the present version plays in place of its own, with the earlier one's numbers.

    Raises:
        SystemExit: There is no such commit.
    """
    own = {"card": str(Path(instead).resolve())} if instead else {}
    with ExitStack() as stack:
        sides = {
            "before": _side(stack, stack.enter_context(worktree(commit)), card, processes, overrides or {}),
            "new": _side(stack, records.ROOT, card, processes, {**own, **(overrides or {})}),
        }
        for side in sides.values():
            for player in side.players:
                # A night each: the first one runs the rehearsal text.
                player.play([0], timetable)
        found: list[Round] = []
        for number in range(rounds):
            seeds = range(1 + number * episodes, 1 + (number + 1) * episodes)
            order = sorted(sides, reverse=bool(number % 2))
            found.append({name: sides[name].round(seeds, timetable) for name in order})
        versions = {name: side.players[0].version for name, side in sides.items()}
    return {
        "card": instead or card,
        "before": commit,
        "commit": commit_of(commit),
        "version before": versions["before"],
        "episodes": episodes,
        "steps of an episode": len(timetable),
        "processes": processes,
        "rows": rows(found),
        "rounds": found,
    }


def _side(stack: ExitStack, root: Path, card: str, processes: int, arguments: Mapping[str, Any]) -> Side:
    cache = stack.enter_context(own_targets())
    players = []
    for _ in range(processes):
        players.append(Player(root, cache, card, arguments))
        stack.callback(players[-1].close)
    return Side(players)


def rows(rounds: Sequence[Round]) -> list[Record]:
    """A row per setting and figure: medians and ranges of both sides, and of how many times as fast the new one is.

    An action that was not allowed in some round has none.
    """
    found = []
    for setting, one in rounds[0]["new"].items():
        for what in one:
            cells = [{side: each[side][setting].get(what) for side in ("before", "new")} for each in rounds]
            before = [cell["before"] for cell in cells if cell["before"] is not None]
            new = [cell["new"] for cell in cells if cell["new"] is not None]
            if len(before) == len(new) == len(rounds):
                ratios = [b / n if what.endswith("(ms)") else n / b for b, n in zip(before, new, strict=True)]
                spreads = {"before": before, "new": new, "times as fast": ratios}
                found.append({"setting": setting, "what": what} | {k: timing.spread(v) for k, v in spreads.items()})
    return found


def row(found: Record, setting: str, what: str) -> Record | None:
    """The row of a figure; None if there is none."""
    return next((each for each in found["rows"] if (each["setting"], each["what"]) == (setting, what)), None)


def compared_on_gemma(commit: str, rounds: int) -> Record:
    """A day of Gemma 3 270M with a night of ten facts, an episode per round.

    Raises:
        SystemExit: There is no such commit.
    """
    found = compared(commit, GEMMA, GEMMA_DAY, 1, rounds, processes=1, overrides=GEMMA_LIFE)
    return found | {"rows": [each for each in found["rows"] if each["what"] in GEMMA_FIGURES]}
