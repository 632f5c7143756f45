"""What a session shows. Everything is a ``Text`` or a table of them: facts and models may say ``[red]``."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sleepgym.errors import SleepGymError

if TYPE_CHECKING:  # or a command without a model would wait for torch
    from sleepgym.cli.teaching import Lesson
    from sleepgym.memory.ledger import Entry
    from sleepgym.memory.reports import AuditReport, InjectReport, SleepReport
    from sleepgym.memory.state import State

_LISTED = 10
"""Items of a list that are shown."""
NEWS = ("not yet taught", "changed since it was taught")
"""Where the weights have a fact that a note tells: not at all, or with another object."""
_ROWS = 50
"""Notes of a table that are shown."""


def shown(text: str, style: str = "") -> Text:
    """Text that cannot act on the terminal: no markup is read, and what steers a terminal is made visible.

    Joiners, variation selectors, combining marks and blanks of all widths belong to the text and stay.
    """
    return Text("".join(c if _harmless(c) else "\N{REPLACEMENT CHARACTER}" for c in text.replace("\t", " ")), style)


def _harmless(character: str) -> bool:
    kind = unicodedata.category(character)
    if kind == "Cf":
        return character in _FORMATTING or "\U000e0020" <= character <= "\U000e007f"  # flags of regions end in those
    return character == "\n" or kind not in ("Cc", "Cs", "Zl", "Zp")


# What joins letters and emoji, and marks of direction. Not those that turn the rest of a line around.
_FORMATTING = "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u06dd\u0600\u0601\u0602\u0603\u070f"


def one_line(error: BaseException) -> Text:
    """What went wrong, as one red line; what nobody has put into words has the name of the error before it."""
    # The text of a KeyError is the key's repr.
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text, name = " ".join(said.split()), type(error).__name__
    if isinstance(error, SleepGymError | OSError) or text.startswith("expected"):
        return shown(text or name, "red")
    return shown(f"{name}: {text}" if text else name, "red")


def spinner(console: Console) -> str:
    """Name of the spinner that an encoding can draw."""
    return "dots" if console.encoding.lower().startswith("utf") else "line"


def percent(share: float) -> str:
    """A share, such as ``67 %``."""
    return f"{share * 100:.0f} %"


def change(after: float, before: float) -> str:
    """A relative change, such as ``+1.5 %``."""
    return f"{(after / before - 1) * 100:+.1f} %"


def margin(nats: float | None) -> str:
    """A margin, such as ``+3.21``; a dash if it was never measured."""
    return "-" if nats is None or math.isnan(nats) else f"{nats:+.2f}"


def ledger_table(state: State) -> Table:
    """One row per fact."""
    table = Table()
    table.add_column("fact", overflow="fold")
    for name in ("stage", "scale", "margin (nats)"):
        table.add_column(name, justify="right")
    table.add_column("recalled")
    table.add_column("writes", justify="right")
    for key, entry in state.ledger.items():
        recalled = Text("never audited") if not entry.audited else Text("yes") if entry.recalled else Text("no", "red")
        numbers = str(entry.stage), f"{state.scale_of(key):g}", margin(entry.margin)
        table.add_row(shown(entry.fact.statement), *numbers, recalled, str(entry.writes))
    return table


def notes_table(rows: Sequence[tuple[str, str, str]]) -> Table:
    """The first notes: what they say, their files, and where the weights have it."""
    table = Table()
    table.add_column("note", overflow="fold")
    table.add_column("file", overflow="fold")
    table.add_column("in the weights")
    for row in rows[:_ROWS]:
        table.add_row(*map(shown, row))
    if len(rows) > _ROWS:
        table.caption = f"and {len(rows) - _ROWS} more"
    return table


def notes_summary(folder: Path, rows: Sequence[tuple[str, str, str]]) -> str:
    """How many notes there are, and how many of them tell what the weights were not taught."""
    new = sum(where in NEWS for _, _, where in rows)
    return f"{folder}: {counted(len(rows), 'note')}" + (f", {new} of them for the next night to teach." if new else ".")


def notes_lines(report: InjectReport | None, forgotten: Sequence[str], left: Sequence[str]) -> Iterator[Text]:
    """What a night took from the notes: what was taught, what was forgotten, and what could not be taught."""
    if report is not None:
        yield from _listed("Taught from notes", [fact.statement for fact in report.written], "green")
        yield from _listed("Replaced", [fact.statement for fact in report.superseded])
    yield from _listed("Forgotten, since the notes no longer tell it", forgotten)
    yield from _listed("Left as notes", left, "yellow")


def lesson_lines(lesson: Lesson, report: InjectReport | None) -> Iterator[Text]:
    """What became of a file of facts: what was taught, what was not recalled, and what was left out and why."""
    taught = dict(zip(report.written, report.margins, strict=True)) if report else {}
    lost = [f"{fact.statement} ({margin(nats)} nats)" for fact, nats in taught.items() if not nats > 0]
    summary = f"Taught {counted(len(taught), 'fact')} from {lesson.source}, {len(taught) - len(lost)} recalled."
    yield shown(summary, "green" if taught and not lost else "yellow")
    yield from _listed("Written, but not recalled", lost, "yellow")
    yield from _listed("Replaced", [fact.statement for fact in report.superseded] if report else [])
    yield from _listed("Left out", lesson.left_out, "yellow")
    yield from _listed("Superseded within the file", lesson.contradictions, "yellow")
    yield from _listed("Not used of what was taught", lesson.dropped)
    if lesson.repeated:
        yield shown(f"Repeated: {counted(lesson.repeated, 'fact')}, taught once.")
    if lesson.unused:
        yield shown(f"Keys that are not read: {', '.join(lesson.unused)}.", "dim")


def _listed(what: str, items: Sequence[str], style: str = "") -> Iterator[Text]:
    """The first few of a list, and how many more there are; nothing of an empty one."""
    if items:
        yield shown(f"{what}: {len(items)}", style)
        yield from (shown("  " + " ".join(item.split()), style) for item in items[:_LISTED])
        if len(items) > _LISTED:
            yield shown(f"  and {len(items) - _LISTED} more", style)


def counted(number: int, what: str) -> str:
    """A number of things, such as ``2 facts``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def audit_lines(report: AuditReport, entries: Iterable[Entry]) -> Iterator[Text]:
    """How many facts were recalled, then those that were not."""
    total = len(report.margins)
    yield Text(f"Recalled {total - len(report.degraded)} of {total}." + (" Degraded:" if report.degraded else ""))
    for entry in entries:
        yield shown(f"  {entry.fact.statement} ({margin(entry.margin)} nats)", "yellow")


def night_lines(report: SleepReport) -> Iterator[Text]:
    """What a night did."""
    if report.rolled_back:
        yield Text("The night did more harm than allowed and was rolled back: everything is as it was.", "yellow")
    counts = ("advanced", "retreated", "refreshed", "released")
    yield Text(", ".join(f"{len(getattr(report, name))} {name}" for name in counts) + f"; {report.steps} steps.")
    recall = f"Recall {percent(report.recall_before)} before, {percent(report.recall_after)} after"
    undone = " before it was undone" if report.rolled_back else ""
    yield Text(f"{recall}; perplexity {change(report.perplexity_after, report.perplexity_before)}{undone}.")


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar per step of an operation, gone when it is over. Yields the callback ``(what, done, total)``."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield report
