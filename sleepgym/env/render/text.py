"""Text rendering of an episode for terminals: gauges, the last ticks, and the ledger's worst facts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import StringIO

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sleepgym.episode.episode import Episode
from sleepgym.episode.history import Standing
from sleepgym.memory.ledger import Entry, Key

WIDTH = 100
"""Width in columns."""

ROWS = 12
"""Maximum number of facts of the ledger that are listed."""

TICKS = 88
"""Maximum number of ticks that are listed."""

ACTIONS = {
    "WAIT": (".", "dim"),
    "INJECT": ("I", "yellow"),
    "REFRESH": ("R", "yellow"),
    "PRUNE": ("P", "yellow"),
    "NAP": ("n", "cyan"),
    "SLEEP": ("z", "bold blue"),
}
"""Letter and style of each action of every card."""

NOTE_ACTIONS = {
    "NOTE": ("N", "green"),
    "LOOK_UP_NEVER": ("-", "green"),
    "LOOK_UP_UNSURE": ("?", "green"),
    "LOOK_UP_ALWAYS": ("!", "green"),
}
"""Letter and style of each further action of cards with notes."""

EVERY_ACTION = ACTIONS | NOTE_ACTIONS
"""Letter and style of each action that there is."""

STANDINGS = {
    Standing.RIGHT: ("recalled", "cyan"),
    Standing.WRONG: ("forgotten", "bold red"),
    Standing.OUTDATED: ("outdated", "magenta"),
    Standing.WAITING: ("waiting", "yellow"),
    Standing.LOST: ("lost", "bold"),
}
"""Name and style of each standing."""


def text(episode: Episode) -> str:
    """Renders the current state of an episode, 100 columns wide.

    The text has ANSI escape codes of the 16 standard colours whatever it is written to, so that equal episodes give
    equal texts. ``NO_COLOR`` in the environment omits colours, and ``rich.text.Text.from_ansi(text).plain`` all codes.
    No information is conveyed by colour alone.
    """
    out = StringIO()
    console = Console(
        file=out, width=WIDTH, force_terminal=True, color_system="standard", legacy_windows=False, highlight=False
    )
    has_notes = episode.card.notes is not None
    facts = [_facts(episode), _pending(episode), *([_notes(episode)] if has_notes else [])]
    overview = Group(_gauges(episode), "", *facts, "", _ticks(episode), _action_legend(has_notes))
    console.print(Panel(overview, title=_clock(episode), title_align="left"))
    console.print(_ledger(episode))
    return out.getvalue()


def _clock(episode: Episode) -> Text:
    rhythm, tick = episode.stream.rhythm, episode.tick
    slept = f"nights slept {episode.state.sleeps}, naps {episode.state.naps}"
    if episode.collapsed or episode.truncated:
        return Text(f"{'collapse' if episode.collapsed else 'the end'} after {tick} ticks; {slept}", "bold")
    day, hour = divmod(tick, rhythm.ticks_per_day)
    days, part = episode.stream.horizon // rhythm.ticks_per_day, "night" if rhythm.is_night(tick) else "day"
    return Text(f"day {day + 1} of {days}, tick {hour} of {rhythm.ticks_per_day}, {part}; {slept}", "bold")


def _gauges(episode: Episode) -> Table:
    counts, budget = episode.state, episode.stream.rhythm.edit_budget
    rise = episode.examiner.perplexity_ratio() - 1
    limit = episode.card.episode.max_perplexity_ratio - 1
    gauges = [
        ("recall", episode.recall(), f"{episode.recall():.2f}", "blue"),
        ("edits left", episode.edits_left / budget, f"{episode.edits_left} of {budget}", "green"),
        ("answered lately", counts.lately_served, f"{counts.lately_served:.2f}", "yellow"),
        ("sleep pressure", episode.pressure(), f"{episode.pressure():.2f}", "magenta"),
        ("score", episode.score, f"{episode.score:.2f}", "yellow"),
        ("perplexity", rise / limit, f"{rise:+.1%} (max {limit:.0%})", "red"),
    ]
    grid = Table.grid(padding=(0, 1))
    cells = [(name, _bar(share, style), value) for name, share, value, style in gauges]
    for left, right in zip(cells[::2], cells[1::2], strict=True):
        grid.add_row(*left, "   ", *right)
    return grid


def _bar(share: float, style: str, width: int = 18) -> Text:
    full = round(width * min(1.0, max(0.0, share)))
    return Text("\u2588" * full, style) + Text("\u2591" * (width - full), "dim")


def _facts(episode: Episode) -> Text:
    standings = episode.standings()
    parts = [Text(f"{standings.count(each)} {name}", style) for each, (name, style) in STANDINGS.items()]
    return Text(f"arrived {len(standings)}: ") + Text(", ").join(parts)


def _pending(episode: Episode) -> Text:
    pending = [arrival.fact.statement for arrival in episode.inbox.pending.values()]
    line = Text(f"inbox, {len(pending)} of {episode.card.budget.pending}: ", no_wrap=True, overflow="ellipsis")
    return line.append_text(_safe(" ".join(pending), "yellow"))


def _notes(episode: Episode) -> Text:
    assert episode.card.notes is not None
    notes, answering = episode.notes, {"NEVER": "never", "UNSURE": "when unsure", "ALWAYS": "always"}
    how = answering[notes.answering.name.rpartition("_")[2]]
    return Text(
        f"notes, {len(notes.told)} of {episode.card.notes.capacity}, {len(notes.archived)} in the archive; "
        f"looked up {how}, {notes.look_ups:.0%} of questions lately",
        "green",
    )


def _ticks(episode: Episode) -> Text:
    line = Text("ticks ")
    for doing in episode.history.doing[-TICKS:]:
        line.append(*EVERY_ACTION[doing])
    return line


def _action_legend(has_notes: bool) -> Text:
    actions = EVERY_ACTION if has_notes else ACTIONS
    named = {name: name.lower().replace("look_up_", "look up: ") for name in actions}
    words = [Text(letter, style) + Text(f" {named[name]}", "dim") for name, (letter, style) in actions.items()]
    return Text("      ") + Text(", ").join(words)


def _ledger(episode: Episode) -> Table:
    ledger = episode.learner.state.ledger
    standings = dict(zip(episode.inbox.current, map(Standing, episode.standings()), strict=True))
    worst = sorted(ledger.values(), key=lambda entry: _sort_key(entry, standings))[:ROWS]
    chosen = f"the {ROWS} worst off, " if len(ledger) > ROWS else ""
    table = Table(
        title=f"ledger, {len(ledger)} of {ledger.capacity} facts: {chosen}worst first",
        caption="margin in nats at the last audit, so many ticks ago; 'now' is the truth, which no agent sees",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        width=WIDTH,
    )
    table.add_column("fact", ratio=1, no_wrap=True)
    table.add_column("object", max_width=14, no_wrap=True)
    for name in ("stage", "scale", "margin", "audited", "edits"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("now", no_wrap=True)
    for entry in worst:
        margin, audited = "-", "never"
        if entry.margin is not None:
            margin, audited = f"{entry.margin:+.2f}", f"{episode.tick - entry.audited_at} ago"
        table.add_row(
            _safe(entry.fact.prompt),
            _safe(entry.fact.object),
            f"{entry.stage}/{episode.card.sleep.last_stage}",
            f"{episode.learner.state.scale_of(entry.fact.key):g}",
            margin,
            audited,
            str(entry.writes),
            Text(*STANDINGS[standings[entry.fact.key]]),
        )
    return table


def _sort_key(entry: Entry, standings: Mapping[Key, Standing]) -> tuple[int, float, int]:
    """Returns a sort key: forgotten facts first, then outdated ones, each by last margin and then newest first."""
    order = (Standing.WRONG, Standing.OUTDATED, Standing.RIGHT)
    return order.index(standings[entry.fact.key]), math.inf if entry.margin is None else entry.margin, -entry.written_at


def _safe(content: str, style: str = "") -> Text:
    """Returns text without markup or control characters, so that facts cannot send commands to the terminal."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in content), style)
