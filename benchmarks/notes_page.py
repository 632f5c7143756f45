"""Tables of docs/notes.md, from the records of benchmarks/notes_reading.py."""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import markdown, records
from benchmarks.common.intervals import wilson
from benchmarks.common.records import Record

KINDS = {
    "none": "none",
    "looked up": "the right one, others that the look-up ranks next",
    "any": "the right one, any others",
}
"""Notes before a question, by the key of the record."""
WHEN = {"taught": "taught and noted", "only noted": "noted alone", "neither": "known, not noted"}
"""Kinds of facts of the doubt."""


def contents(folder: Path) -> markdown.Blocks:
    """Blocks of the page, from the records of all models that were measured."""
    found = [records.read(path) for path in sorted(folder.glob("reading.*.json"), reverse=True)]
    blocks: dict[str, str] = {}
    for record in found:
        blocks |= blocks_of(record)
    return blocks


def blocks_of(record: Record) -> markdown.Blocks:
    """Blocks of one record."""
    model = record["model"]
    made = {"reading": reading, "contradictions": contradictions, "doubt": doubt}
    return {
        f"{part} of {model}": f"{table(record)}\n\n{source(record)}" for part, table in made.items() if part in record
    }


def reading(record: Record) -> str:
    """Recall by what stands before the question."""
    rows = [
        [
            KINDS[row["notes"]],
            str(row["others"]),
            str(row["n"]),
            *(share(row[name], row["n"]) for name in ("recalled", "named")),
        ]
        for row in sorted(record["reading"], key=lambda row: (list(KINDS).index(row["notes"]), row["others"]))
    ]
    return markdown.table(
        ["notes before the question", "others", "n", "answered as noted [95 %]", "named in the answer"], rows
    )


def contradictions(record: Record) -> str:
    """Which wins, by what the weights have been through."""
    rows = [
        [row["when"], str(row["n"]), *(share(row[name], row["n"]) for name in ("note", "weights", "off", "without"))]
        for row in record["contradictions"]
        if row["n"]
    ]
    head = [
        "the fact in the weights",
        "n",
        "the note wins [95 %]",
        "the weights win",
        "the note, memory off",
        "recalled without it",
    ]
    return markdown.table(head, rows)


def doubt(record: Record) -> str:
    """What look-ups below a threshold bring and cost, and how well measures tell right answers from wrong ones."""
    found = record["doubt"]
    rows = []
    for row in found["thresholds"]:
        cells = [{"inf": "always", "0.0": "never"}.get(row["threshold"], row["threshold"])]
        cells[0] += ", notes about anybody" if row["of"] == "all notes" else ""
        for kind in WHEN:
            n = found["kinds"][kind]
            cells.append(f"{share(row[kind]['right'], n)}, {row[kind]['looked up'] / n:.2f}")
        rows.append(cells)
    chat = ["`sleepgym chat --notes`"]
    for kind in WHEN:
        n, row = found["kinds"][kind], found["chat"][kind]
        chat.append(f"{share(row['right'], n)}, {row['looked up'] / n:.2f}")
    rows.append(chat)
    head = ["looked up below (nats)", *(f"{name} (n = {found['kinds'][kind]})" for kind, name in WHEN.items())]
    areas = ", ".join(f"{name} {value:.3f}" for name, value in found["measures"].items())
    return (
        f"{markdown.table(head, rows)}\n\n"
        "Cells: answered rightly [95 %], looked up. Area under the curve of an answer's measure, right against wrong: "
        f"{areas}."
    )


def share(hits: int, n: int) -> str:
    """A share with its 95 % interval."""
    low, high = wilson(hits, n)
    return f"{hits / n:.3f} [{low:.3f}, {high:.3f}]"


def source(record: Record) -> str:
    """Draws, machine and command of a record."""
    return f"{record['seeds']} draws; {record['machine']}; `{record['command']}`"
