"""What a session shows. Everything is a ``Text`` or a table of them: facts and models may say ``[red]``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sleepgym.memory.ledger import Entry
from sleepgym.memory.reports import AuditReport, SleepReport
from sleepgym.memory.state import State


def shown(text: str, style: str = "") -> Text:
    """Text that cannot act on the terminal: no markup is read, and control characters are made visible."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text), style)


def one_line(error: BaseException) -> Text:
    """What went wrong, as one red line."""
    return shown(" ".join(str(error).split()) or type(error).__name__, "red")


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
