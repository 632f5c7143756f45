"""Data sets of knowledge editing as facts: CounterFact, zsRE, relation files, JSON lines, CSV, the hub."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

from sleepgym.facts.fact import Fact
from sleepgym.facts.records import KEYS, RecordForm, fits, form_of, listed, parse, unused_keys
from sleepgym.facts.rows import HUB, Form, Row, read_rows
from sleepgym.facts.texts import FactError, told_apart


@dataclass(frozen=True)
class Malformed:
    """Something in a data set that could not be used.

    Attributes:
        source: File or hub name.
        line: Line of the file on which the record starts, or number of the record in a hub set; from 1.
        reason: What was expected and what was found, after the record's ``case_id`` if it has one.
    """

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"

    @property
    def place(self) -> str:
        """Where it is, such as ``edits.json, line 4``."""
        return f"{self.source}, {'record' if self.source.startswith(HUB) else 'line'} {self.line}"


@dataclass(frozen=True)
class FactSet:
    """The facts of a data set, in its order, and what was left out. Iterates over the facts.

    Attributes:
        facts: The facts of the usable records, mostly one each. Data sets repeat themselves: a later fact about the
            same ``(subject, relation)`` supersedes an earlier one, see :attr:`latest`.
        skipped: Malformed records, if they were to be skipped.
        dropped: Paraphrases and questions without the subject in them and neighbours without an answer, of records
            that were kept. Nothing can be probed with those. The published sets have some, so they are no reason to
            refuse a record.
        contradictions: Later facts that give a ``(subject, relation)`` another object than an earlier one.
        unused: Keys of records that nothing is read from, such as ``case_id``.
    """

    facts: tuple[Fact, ...]
    skipped: tuple[Malformed, ...] = ()
    dropped: tuple[Malformed, ...] = ()
    contradictions: tuple[Malformed, ...] = ()
    unused: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def latest(self) -> tuple[Fact, ...]:
        """The last fact of every ``(subject, relation)``: no two contradict, so they can be taught at once."""
        return tuple({fact.key: fact for fact in self.facts}.values())


def load_facts(source: str | Path, form: Form | None = None, malformed: Literal["raise", "skip"] = "raise") -> FactSet:
    """Reads a data set.

    Files are UTF-8. JSON is one array, one record per line, one record alone, or an object with one array of records
    in it. In CSV, a cell of a column that may hold a list and that starts with ``[`` is a JSON array. Keys that a form
    does not use are listed in ``unused``.

    Args:
        source: A file, a folder of relation files, or ``hub:owner/name`` or ``hub:owner/name:split``.
        form: What the records look like; None to tell by the suffix and the first record. ``jsonl`` and
            ``csv`` mean plain records: subject, prompt, object; ``hub`` tells by the first record.
        malformed: Whether a malformed record is an error, or is left out and listed in ``skipped``. A file that
            cannot be read at all, such as a JSON array with a syntax error, always is an error.

    Raises:
        FactError: The source cannot be read, its form is not understood, or (with ``"raise"``) a record is
            malformed. The message names file and line.
    """
    if form is not None and form not in get_args(Form):
        raise FactError(f"expected form to be one of {', '.join(get_args(Form))}, found {form!r}")
    if malformed not in ("raise", "skip"):
        raise FactError(f"expected malformed to be 'raise' or 'skip', found {malformed!r}")
    if not isinstance(source, str | PathLike) or not str(source).strip():
        raise FactError(f"expected the name of a file, a folder or a hub set, found {source!r}; give a str or a Path")
    rows = list(read_rows(str(source), form))
    if not rows:
        raise FactError(f"expected records in {source}, found none; check that it is the right file or folder")
    kind = _kind(rows, form)
    facts: list[Fact] = []
    skipped: list[Malformed] = []
    dropped: list[Malformed] = []
    contradictions: list[Malformed] = []
    first: dict[tuple[str, str], tuple[str, Malformed]] = {}
    unused: dict[str, None] = {}
    for row in rows:
        case = f"case {row.record['case_id']}: " if isinstance(row.record, dict) and "case_id" in row.record else ""

        def problem(reason: object, row: Row = row, case: str = case) -> Malformed:
            return Malformed(row.source, row.line, f"{case}{reason}")

        try:
            record = _record(row)
            own = (fits(record) or kind) if form in (None, "hub") else kind
            parsed = parse(record, own)
        except FactError as error:
            if malformed == "raise":
                raise FactError(str(problem(error))) from error
            skipped.append(problem(error))
            continue
        facts.extend(parsed.facts)
        dropped.extend(map(problem, parsed.notes))
        unused.update(dict.fromkeys(unused_keys(record, own)))
        for fact in parsed.facts:
            known, where = first.setdefault(fact.key, (fact.object, problem("")))
            if known != fact.object:
                contradictions.append(problem(_contradiction(fact, known, where)))
    return FactSet(tuple(facts), tuple(skipped), tuple(dropped), tuple(contradictions), tuple(unused))


def _contradiction(fact: Fact, known: str, where: Malformed) -> str:
    here, there = told_apart(fact.object, known)
    return (
        f"expected one object for {fact.subject!r} and {fact.relation!r}, found {here} here and {there} in "
        f"{where.place}; the last one counts in `latest`"
    )


def _kind(rows: list[Row], form: Form | None) -> RecordForm:
    """What the records of a form look like, told by the first legible one where the form leaves it open."""
    if form == "counterfact" or form == "zsre":
        return form
    if form is not None and form != "hub":
        return "plain"
    first = next((row for row in rows if isinstance(row.record, dict)), rows[0])
    try:
        record = _record(first)
        kind = form_of(record)
        if kind is None:
            known = "; ".join(f"{name} ({keys})" for name, keys in KEYS.items())
            raise FactError(f"expected the keys of one of {known}; found {listed(record)}; rename the keys")
    except FactError as error:
        raise FactError(str(Malformed(first.source, first.line, str(error)))) from error
    return kind


def _record(row: Row) -> dict[str, object]:
    if isinstance(row.record, FactError):
        raise row.record
    if not isinstance(row.record, dict):
        raise FactError(f"expected a record with keys, found {reprlib.repr(row.record)}")
    return row.record
