"""Tables of the throughput page, from its record: what was measured, and whether it reaches the goals."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.common import markdown
from benchmarks.common.records import Record
from benchmarks.throughput_before import CACHED, FRESH, RATE, RESET, TIMES_ONE, TOGETHER, row
from sleepgym.episode.actions import Action

Cells = tuple[list[str], list[list[str]]]
"""Columns and rows of a table."""


@dataclass(frozen=True)
class Goal:
    """A figure of the comparison, and what it should be.

    Attributes:
        what: The goal in words.
        setting: Which row it is in, with ``figure``.
        figure: Which row it is in, with ``setting``.
        limit: What the median has to reach.
        of: Column of the row. Of ``new``, milliseconds are at most the limit; all else is at least the limit.
        part: Key of the record that has the row.
    """

    what: str
    setting: str
    figure: str
    limit: float
    of: str = "times as fast"
    part: str = "before"

    @property
    def at_most(self) -> bool:
        return self.of == "new" and self.figure.endswith("(ms)")

    def cells(self, found: Record) -> list[str]:
        """The goal, its limit, what was measured, and whether that is enough."""
        limit = f"{'at most' if self.at_most else 'at least'} {self.limit:g}"
        each = row(found[self.part], self.setting, self.figure) if self.part in found else None
        if each is None:
            return [self.what, limit, "not measured", ""]
        value = each[self.of]["median"]
        met = value <= self.limit if self.at_most else value >= self.limit
        return [self.what, limit, markdown.interval(each[self.of]), "yes" if met else "no"]


GOALS = (
    Goal("steps/s of one environment on one thread, times before, cached targets", CACHED, RATE, 6),
    Goal("the same, fresh facts", FRESH, RATE, 6),
    Goal("processes at a time, one thread each, times one", TOGETHER, TIMES_ONE, 1.8, of="new"),
    Goal("processes at a time, times as many before", TOGETHER, RATE, 5),
    Goal("INJECT with what follows it (ms), cached targets", CACHED, "INJECT (ms)", 12, of="new"),
    Goal("the same, fresh facts", FRESH, "INJECT (ms)", 12, of="new"),
    Goal("SLEEP (ms)", CACHED, "SLEEP (ms)", 250, of="new"),
    Goal("reset (ms)", CACHED, RESET, 1.1, of="new"),
    Goal("WAIT (ms)", CACHED, "WAIT (ms)", 0.4, of="new"),
    Goal("Gemma: INJECT with what follows it, times before, cached targets", CACHED, "INJECT (ms)", 2, part="gemma"),
    Goal("the same, fresh facts", FRESH, "INJECT (ms)", 2, part="gemma"),
    Goal("Gemma: a night of 10 facts, times before", CACHED, "SLEEP (ms)", 2, part="gemma"),
)


def goals(found: Record) -> Cells:
    """A row per goal."""
    return ["goal", "limit", "measured (range)", "met"], [goal.cells(found) for goal in GOALS]


def before(found: Record) -> dict[str, Cells]:
    """A table per card that was compared with an earlier commit, by the card's id."""
    return {found[part]["card"]: _compared(found[part]) for part in ("before", "gemma") if part in found}


def _compared(found: Record) -> Cells:
    rows = []
    for each in found["rows"]:
        setting = f"{found['processes']} processes" if each["setting"] == TOGETHER else each["setting"]
        spreads = [markdown.interval(each[side]) for side in ("before", "new")]
        # How many times one process: the ratio of two of these says nothing.
        ratio = "" if each["what"] == TIMES_ONE else markdown.interval(each["times as fast"])
        rows.append([setting, each["what"], *spreads, ratio])
    return ["", "", "before (range)", "now (range)", "times as fast (range)"], rows


def rates(found: Record) -> Cells:
    """A row per contestant."""
    seen = {name for each in found["rows"] for name in each["steps per second by action"]}
    actions = [action.name for action in Action if action.name in seen]
    rows = []
    for each in found["rows"]:
        rate, ratio, of = each["steps per second"], each["times alone"], each["steps per second by action"]
        rows.append(
            [
                each["what"],
                markdown.interval(rate, ".1f"),
                f"{each['ticks per second']['median']:.1f}",
                markdown.interval(ratio),
                *(f"{of[name]:.3g}" if name in of else "" for name in actions),
            ]
        )
    return ["", "steps/s (range)", "ticks/s", "times alone (range)", *actions], rows


def contents(found: Record) -> markdown.Blocks:
    """Blocks of the page."""
    memory, reset = found["memory (MB)"], found["reset (ms)"]
    circumstances = [
        ["environment", f"`{found['card']}`"],
        ["days played of each episode, where nothing else is said", str(found["days"])],
        ["machine", found["machine"]],
        ["load before it began", f"{found['load before']:.1f}"],
        ["rounds, of which medians are shown", str(found["repeats"])],
    ]
    if beside := found.get("before"):
        circumstances += [
            ["before", f"{beside['commit'][:10]} (`{beside['before']}`), version {beside['version before']}"],
            ["rounds of the comparison", str(len(beside["rounds"]))],
            ["episodes of such a round, their steps", f"{beside['episodes']}, {beside['steps of an episode']}"],
        ]
    costs = [
        ["reset (ms)", f"{reset['median']:.1f}"],
        ["memory per added slot (MB)", f"{memory['per added slot']:.1f}"],
        ["of which tensors (MB)", f"{memory['tensors of a slot']:.1f}"],
        ["memory of a process with one slot (MB)", f"{memory['process with one slot']:.0f}"],
    ]
    tables = before(found).items()
    return {
        "circumstances": markdown.table(["", ""], circumstances),
        "goals": markdown.table(*goals(found)),
        "before": "\n\n".join(f"`{card}`:\n\n{markdown.table(*cells)}" for card, cells in tables),
        "rates": markdown.table(*rates(found)),
        "costs": markdown.table(["", ""], costs),
    }
