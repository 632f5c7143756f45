r"""One note: a line such as ``- text | topic=t | status=active``.

A bar in a text or a value is written ``\|``. Backslashes count only right before a bar: an odd number of them makes it
part of the text, and half of them (rounded down) are meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args

from sleepgym.notes.texts import field_name, note_text, one_line

Tier = Literal["working", "long_term", "history"]
Status = Literal["active", "superseded", "expired", "uncertain"]
Source = Literal["user_statement", "assistant_summary", "inference", "system"]
Confidence = Literal["high", "medium", "low"]

TIERS: tuple[Tier, ...] = get_args(Tier)
STATUSES: tuple[Status, ...] = get_args(Status)
SOURCES: tuple[Source, ...] = get_args(Source)
CONFIDENCES: tuple[Confidence, ...] = get_args(Confidence)
ORDER = ("topic", "tier", "status", "source", "confidence", "updated_at", "review_at", "expires_at")
"""Fields that the format knows, in the order of a canonical line. Others are kept behind them."""

_BARS = re.compile(r"(?<!\\)(\\*)\|")  # looking back keeps it linear where backslashes go on and on
_FIELD = re.compile(r"\s*([^\W\d][\w-]*)=(.*)", re.DOTALL)
_MARKER = re.compile(r"([ \t]*(?:[-*+]|[0-9]{1,9}[.)])[ \t]+)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Bullet:
    """A note as it stands in a file.

    Attributes:
        text: What is remembered, of the first line where there are several.
        fields: ``(name, value)`` in the order of the line, unknown ones among them.
        marker: What stands before the text, with its indentation: ``"- "`` in a canonical line.
        more: Further lines of the bullet, as they stand.
    """

    text: str
    fields: tuple[tuple[str, str], ...] = ()
    marker: str = "- "
    more: tuple[str, ...] = ()

    def get(self, name: str) -> str | None:
        """The value of a field; None where the line does not have it."""
        return next((value for key, value in self.fields if key == name), None)

    @property
    def words(self) -> str:
        """The whole text, in one line."""
        return " ".join((self.text, *(line.strip() for line in self.more))).strip() if self.more else self.text

    @property
    def topic(self) -> str:
        """What it is about; empty where the line does not say."""
        return self.get("topic") or ""

    def status(self, now: datetime | None = None) -> str:
        """What holds of it: its status, or ``expired`` once it is past ``expires_at``.

        What is not said, or in a word that the format does not know, is taken for ``active``.
        """
        said = self.get("status")
        known = said if said in STATUSES else "active"
        if now is not None and known in ("active", "uncertain") and (end := self.expires) is not None and now > end:
            return "expired"
        return known

    def tier(self, section: Tier) -> Tier:
        """Its tier, or where the line does not say one that the format knows, that of its section."""
        said = self.get("tier")
        return next((tier for tier in TIERS if tier == said), section)

    @property
    def expires(self) -> datetime | None:
        """The last moment at which it holds: of a date, the end of that day. None: never, or it cannot be read."""
        return moment(self.get("expires_at"), last=True)

    def holds(self, section: Tier, now: datetime | None = None) -> bool:
        """Whether it is current: not in history, neither superseded nor expired."""
        return self.tier(section) != "history" and self.status(now) in ("active", "uncertain")

    def having(self, **values: str | None) -> Bullet:
        """The bullet with these fields; those that it has keep their places, None takes a field out.

        Raises:
            NotesError: A name or a value that cannot be written.
        """
        fields = dict(self.fields)
        if len(fields) < len(self.fields):  # a name twice: the first one counts, and both are kept
            return replace(self, fields=_replaced(self.fields, values))
        for name, value in values.items():
            if value is None:
                fields.pop(name, None)
            else:
                fields[field_name(name)] = one_line(value, f"the value of {name}")
        return replace(self, fields=tuple(fields.items()))

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of a file that say this."""
        rest = "".join(f" | {name}={_escaped(value)}" for name, value in self.fields)
        return (f"{self.marker}{_escaped(self.text)}{rest}", *self.more)


def bullet(text: str, **fields: str | None) -> Bullet:
    """A new note, with its fields in canonical order.

    Args:
        text: What is to be remembered, in one line.
        fields: Values by name; those that are None are left out.

    Raises:
        NotesError: The text or a field cannot be written.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    ordered = [name for name in ORDER if name in given] + [name for name in given if name not in ORDER]
    return Bullet(note_text(text)).having(**{name: given[name] for name in ordered})


def read_bullet(line: str) -> Bullet | None:
    """The bullet that a line is, in any of Markdown's forms; None if it is none."""
    found = _MARKER.fullmatch(line)
    if found is None:
        return None
    pieces = _pieces(found[2])
    first = len(pieces)
    # From the end, so that a bar that somebody typed into the text does not cut it.
    while first > 1 and _FIELD.fullmatch(pieces[first - 1]):
        first -= 1
    fields = (piece.partition("=") for piece in pieces[first:])
    named = tuple((name.strip(), value.strip()) for name, _, value in fields)
    return Bullet("|".join(pieces[:first]).strip(), named, found[1])


def moment(text: str | None, last: bool = False) -> datetime | None:
    """The moment that a field names, in local time; None where it cannot be read.

    Args:
        text: Such as ``2026-01-31T09:30`` or ``2026-01-31``.
        last: Whether a date stands for the end of its day rather than for its beginning.
    """
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "T", 1))
        at = at if at.tzinfo is None else at.astimezone().replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):  # the last two: too far away for the time zone
        return None
    is_date = "T" not in text and " " not in text
    return at.replace(hour=23, minute=59, second=59) if last and is_date else at


def stamp(at: datetime) -> str:
    """A moment as fields say it, to the minute."""
    return at.isoformat(timespec="minutes")


def _pieces(text: str) -> list[str]:
    """What stands between bars that are not escaped, without the escapes."""
    if "\\" not in text:
        return text.split("|")
    pieces, start = [""], 0
    for bar in _BARS.finditer(text):
        backslashes = len(bar[1])
        pieces[-1] += text[start : bar.start()] + "\\" * (backslashes // 2)
        if backslashes % 2:
            pieces[-1] += "|"
        else:
            pieces.append("")
        start = bar.end()
    pieces[-1] += text[start:]
    return pieces


def _escaped(text: str) -> str:
    return _BARS.sub(lambda bar: "\\" * (2 * len(bar[1]) + 1) + "|", text)


def _replaced(fields: tuple[tuple[str, str], ...], values: dict[str, str | None]) -> tuple[tuple[str, str], ...]:
    """Fields of which some have the same name, with the first of each name replaced."""
    out, left = [], dict(values)
    for name, value in fields:
        new = left.pop(name, value) if name in left else value
        if new is not None:
            out.append((name, one_line(new, f"the value of {name}") if new != value else value))
    out += [(field_name(name), one_line(value, name)) for name, value in left.items() if value is not None]
    return tuple(out)
