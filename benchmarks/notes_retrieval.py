"""How often notes are found, and how quickly: 300 facts of the synthetic world, and 100,000 generated notes.

    python benchmarks/notes_retrieval.py

Facts have a file per subject and are looked up by a question in words that their notes mostly do not have. Generated
notes stand a hundred to a file; their words follow Zipf's law, so that some are in half of all notes. Every look-up
asks the file system whether a file has changed. Folders and indices are temporary.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.common.intervals import wilson
from sleepgym.facts.world import World
from sleepgym.notes import FactNotes, NoteStore, Retriever
from sleepgym.notes.bullet import Bullet, bullet
from sleepgym.notes.document import new_document


@dataclass
class Args:
    facts: int = 300
    """facts of the synthetic world"""
    notes: int = 100_000
    """generated notes"""
    per_file: int = 100
    """generated notes in a file"""
    queries: int = 300
    """look-ups in the generated notes"""
    k: int = 3
    """notes of a look-up, of which one has to be the right one"""
    seed: int = 0
    """seed of facts, notes and queries"""


@dataclass(frozen=True)
class Outcome:
    """Look-ups of one kind.

    Attributes:
        what: Which.
        hits: How many found the right note.
        milliseconds: Of each look-up.
    """

    what: str
    hits: int
    milliseconds: Sequence[float]


def world_facts(args: Args, folder: Path, one_per_subject: bool) -> list[Outcome]:
    """Facts, by their first questions, with and without weights for rare words."""
    rng = np.random.default_rng(args.seed)
    facts = World().new_facts(rng, args.facts, distinct_subjects=one_per_subject)
    store = NoteStore(folder / "notes")
    FactNotes(store).record(facts)
    right = {fact.questions[0]: fact.statement for fact in facts}
    name = f"{args.facts} facts, {'one' if one_per_subject else 'several'} per subject"
    return looked_up(store, folder / "index.sqlite", right, args.k, name)


def generated(args: Args, folder: Path) -> tuple[list[Outcome], float]:
    """Generated notes, by three words of each and a common one; and the seconds that the index took to build."""
    rng = np.random.default_rng(args.seed)
    words = [f"{a}{b}{c}" for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("", *"bdfgklmnprst")]
    zipf = 1 / np.arange(1, len(words) + 1)
    right: dict[str, str] = {}
    store = NoteStore(folder / "notes")
    picked = set(rng.choice(args.notes, args.queries, replace=False).tolist())
    for first in range(0, args.notes, args.per_file):
        notes: list[Bullet] = []
        for number in range(first, min(first + args.per_file, args.notes)):
            said = rng.choice(words, 9, p=zipf / zipf.sum()).tolist()
            text = f"{' '.join(said)} {number:x}x"
            notes.append(
                bullet(text, topic=words[number % 97], status="active", source="user_statement", confidence="high")
            )
            if number in picked:
                right[f"{words[0]} {said[3]} {said[5]} {number:x}x"] = f"{text}."
        path = store.folder / f"part{first // (50 * args.per_file)}" / f"{first}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(new_document(f"Part {first}").including("long_term", *notes).text, encoding="utf-8")
    started = time.perf_counter()
    with closing(Retriever(store, index=folder / "index.sqlite")) as retriever:
        retriever.retrieve("warm up")
    seconds = time.perf_counter() - started
    return looked_up(store, folder / "index.sqlite", right, args.k, f"{args.notes} generated notes"), seconds


def looked_up(store: NoteStore, index: Path, right: dict[str, str], k: int, name: str) -> list[Outcome]:
    """Look-ups of all queries, by how words count."""
    out = []
    with closing(Retriever(store, index=index)) as retriever:
        for idf in (True, False):
            retriever.retrieve("warm up")
            found = {query: retriever.retrieve(query, k, idf=idf) for query in right}
            hits = sum(right[query] in got.sentences for query, got in found.items())
            how = "rare words count more" if idf else "all words count alike"
            out.append(Outcome(f"{name}, {how}", hits, [got.milliseconds for got in found.values()]))
    return out


def main(args: Args) -> None:
    outcomes: list[Outcome] = []
    for one_per_subject in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            outcomes += world_facts(args, Path(folder), one_per_subject)
    with tempfile.TemporaryDirectory() as folder:
        large, seconds = generated(args, Path(folder))
    table = Table("look-ups", "n", f"hit@{args.k} [95 %]", "median (ms)", "95th percentile (ms)", "highest (ms)")
    for outcome in (*outcomes, *large):
        n = len(outcome.milliseconds)
        low, high = wilson(outcome.hits, n)
        median, late = np.percentile(outcome.milliseconds, [50, 95])
        share = f"{outcome.hits / n:.3f} [{low:.3f}, {high:.3f}]"
        table.add_row(outcome.what, str(n), share, *(f"{ms:.1f}" for ms in (median, late, max(outcome.milliseconds))))
    console = Console(width=140)
    console.print(table)
    console.print(f"The index of {args.notes} notes was built in {seconds:.1f} s.")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
