"""Look-ups: points as the format counts them, what people edit counts at once, and large folders answer quickly."""

# ruff: noqa: RUF001 - the characters of other scripts are what this is about

from __future__ import annotations

import math
import random
import sqlite3
import statistics
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleepgym.facts import World
from sleepgym.notes import FactNotes, NotesError, NoteStore, Retriever, operations
from sleepgym.notes.bullet import read_bullet
from sleepgym.notes.retrieval import estimated_tokens, sentence
from sleepgym.notes.scoring import standing, strength, weight
from sleepgym.notes.terms import terms


def write(store: NoteStore, path: str, text: str) -> None:
    (store.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (store.folder / path).write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- points


@pytest.mark.parametrize(
    ("fields", "points"),
    [
        ("tier=working | status=active | source=user_statement | confidence=high", 7),
        ("tier=long_term | status=active | source=user_statement | confidence=high", 6),
        ("tier=long_term | status=uncertain | source=inference | confidence=low", -2),
        ("tier=long_term | status=active | source=assistant_summary | confidence=medium", 3),
        ("tier=long_term | status=active | source=system | confidence=medium", 3),
        ("tier=long_term | status=expired | source=user_statement | confidence=high", 1),
        ("tier=working | status=superseded | source=user_statement | confidence=high", 2),
        ("tier=history | status=active | source=user_statement | confidence=high", 0),
        ("tier=long_term | status=active | source=a letter | confidence=high", 4),
        ("topic=x", 5),
    ],
)
def test_points_for_standing_are_those_of_the_format(fields: str, points: float) -> None:
    one = read_bullet(f"- x | {fields}")
    assert one is not None and standing(one, "long_term") == points


def test_points_for_terms_are_those_of_the_format(store: NoteStore, retriever: Retriever) -> None:
    for text, topic in (("likes green tea", "tea"), ("likes tea", "drinks"), ("plays chess", "green tea")):
        operations.add(store, text, topic=topic)
    found = retriever.retrieve("Green TEA, tea?", idf=False).notes
    assert [(note.said, note.points) for note in found] == [
        ("likes green tea", 6 + 2 + 2 + 1), ("likes tea", 6 + 2), ("plays chess", 6 + 1 + 1),
    ]  # fmt: skip


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    weights = [weight(found, 1000) for found in (1, 10, 500, 1000)]
    assert weights == sorted(weights, reverse=True) and weights[-1] > 0
    assert weights[0] == pytest.approx(math.log(1 + 999.5 / 1.5))


def test_the_stronger_of_two_notes_is_decided_by_source_then_confidence_then_date() -> None:
    lines = [
        "- a | source=user_statement | confidence=low | updated_at=2020-01-01",
        "- a | source=inference | confidence=high | updated_at=2026-01-02",
        "- a | source=inference | confidence=high | updated_at=2026-01-01T10:00",
        "- a | source=inference | confidence=medium | updated_at=2026-02-01",
        "- a | source=hearsay | confidence=high | updated_at=2026-03-01",
    ]
    ones = [one for line in lines if (one := read_bullet(line)) is not None]
    assert sorted(reversed(ones), key=strength, reverse=True) == ones


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("C++ or C#?", ("c++", "or", "c#")),
        ("a_b a-b", ("a", "b")),
        ("Straße STRASSE", ("strasse",)),
        ("ＡＢＣ abc", ("abc",)),
        ("東京に", ("東京", "京に")),
        ("京", ("京",)),
        ("CやC++", ("c", "や", "c++")),
        ("हिन्दी", ("हिन्दी",)),
        ("C+x", ("c+", "x")),
        ("", ()),
        ("+#", ()),
        ("e\u0301 \u00e9", ("\u00e9",)),
        ('"a" OR b*', ("a", "or", "b")),
    ],
)
def test_terms_are_words_in_every_script(text: str, found: tuple[str, ...]) -> None:
    assert terms(text) == found


# ---------------------------------------------------------------- the same as looking at every note


def plain(store: NoteStore, query: str, idf: bool, history: bool) -> dict[str, float]:
    """Scores by the definition, note by note."""
    documents = [store.read(path) for path in store.files()]
    rows = [(one, block.tier, document.title) for document in documents for block, one in document.notes()]
    now = store.clock()
    said = [(set(terms(one.words)), set(terms(one.topic)), set(terms(title))) for one, _, title in rows]
    worth = {
        term: weight(sum(term in text | topic | title for text, topic, title in said), len(rows)) if idf else 1.0
        for term in terms(query)
    }
    out = {}
    for (one, tier, _), (text, topic, title) in zip(rows, said, strict=True):
        points = sum(worth[term] * (2 * (term in text) + (term in topic) + idf * (term in title)) for term in worth)
        if points and (history or one.holds(tier, now)):
            out[one.words] = standing(one, tier, now) + points
    return out


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans(), st.booleans(), st.integers(1, 8))
def test_the_index_finds_what_looking_at_every_note_finds(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random, idf: bool, history: bool, k: int
) -> None:
    folder = tmp_path_factory.mktemp("world")
    store = NoteStore(folder / "notes", clock=lambda: datetime(2026, 1, 31))
    words = [f"w{i}" for i in range(12)]

    def some(n: int) -> str:
        return " ".join(rng.choices(words, weights=[2.0**-i for i in range(12)], k=n))

    lines = [
        f"- n{i} {some(4)} | topic={some(1)} | tier={rng.choice(['working', 'long_term', 'history'])} | "
        f"status={rng.choice(['active', 'uncertain', 'superseded'])} | source={rng.choice(['inference', 'system'])} | "
        f"expires_at={rng.choice(['2025-01-01', '2027-01-01'])}"
        for i in range(60)
    ]
    for part in range(3):
        write(store, f"{part}.md", f"# {some(2)}\n" + "\n".join(lines[part::3]))
    retriever = Retriever(store, index=folder / "index.sqlite")
    query = f"{some(3)} w11"
    expected = plain(store, query, idf, history)
    found = retriever.retrieve(query, k, idf=idf, history=history).notes
    assert [note.points for note in found] == pytest.approx(sorted(expected.values(), reverse=True)[:k])
    assert [note.points for note in found] == pytest.approx([expected[note.said] for note in found])
    retriever.close()


# ---------------------------------------------------------------- what changes in the folder


def test_files_that_come_change_and_go_are_seen_at_the_next_look_up(store: NoteStore, retriever: Retriever) -> None:
    assert retriever.retrieve("tea").notes == ()
    write(store, "a.md", "- likes tea\n")
    assert retriever.retrieve("tea").sentences == ("likes tea.",)
    for i in range(20):  # each within the same moment as the one before, and of the same size
        write(store, "a.md", f"- likes tea {i:02}\n")
        assert retriever.retrieve("tea").sentences == (f"likes tea {i:02}.",)
    (store.folder / "a.md").unlink()
    assert retriever.retrieve("tea").notes == ()


def test_the_line_of_a_note_is_where_an_editor_shows_it(store: NoteStore, retriever: Retriever) -> None:
    write(store, "a.md", "# A\n\n```\nx\n```\n- one\n  more\n- two\n")
    assert [(note.line, note.said) for note in retriever.retrieve("one two more").notes] == [
        (6, "one more"),
        (8, "two"),
    ]


def test_a_note_is_about_the_title_of_its_file(store: NoteStore, retriever: Retriever) -> None:
    write(store, "a.md", "# Memory: Aria\n- drinks tea\n")
    write(store, "b.md", "# Memory: Bo\n- drinks milk\n")
    assert retriever.retrieve("What does Bo drink?", 1).sentences == ("drinks milk.",)
    assert retriever.retrieve("What does Bo drink?", idf=False).notes == ()


def test_history_is_found_only_if_asked_for(store: NoteStore, retriever: Retriever, clock: Any) -> None:
    operations.add(store, "drinks tea", expires_at="2026-02-01")
    operations.add(store, "drinks milk")
    operations.update(store, "drinks milk", "drinks mate")
    assert retriever.retrieve("drinks").sentences == ("drinks tea.", "drinks mate.")
    clock.now = datetime(2026, 2, 2)
    assert retriever.retrieve("drinks").sentences == ("drinks mate.",)
    everything = retriever.retrieve("drinks", history=True).notes
    assert [(note.said, note.holds) for note in everything] == [
        ("drinks mate", True), ("drinks tea", False), ("drinks milk", False),
    ]  # fmt: skip


def test_equal_scores_come_in_the_order_of_files(store: NoteStore, retriever: Retriever) -> None:
    for name in "cab":
        write(store, f"{name}.md", f"- tea {name}\n")
        retriever.retrieve("tea")
    assert [note.path for note in retriever.retrieve("tea").notes] == ["a.md", "b.md", "c.md"]


@pytest.mark.parametrize("damage", [b"", b"not a database, for sure not one", None])
def test_an_index_that_is_damaged_is_built_anew(store: NoteStore, tmp_path: Path, damage: bytes | None) -> None:
    operations.add(store, "likes tea")
    place = tmp_path / "index.sqlite"
    Retriever(store, index=place).close()
    if damage is None:
        with sqlite3.connect(place) as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        place.write_bytes(damage)
    assert Retriever(store, index=place).retrieve("tea").sentences == ("likes tea.",)


def test_an_index_that_breaks_while_it_is_used_is_built_anew(store: NoteStore, tmp_path: Path) -> None:
    operations.add(store, "likes tea")
    place = tmp_path / "index.sqlite"
    retriever = Retriever(store, index=place)
    retriever.retrieve("tea")
    with sqlite3.connect(place) as database:
        database.execute("DROP TABLE notes")
    database.close()
    operations.add(store, "likes mate")
    assert retriever.retrieve("likes").sentences == ("likes tea.", "likes mate.")


def test_an_index_that_cannot_be_written_is_held_in_memory(store: NoteStore, tmp_path: Path) -> None:
    operations.add(store, "likes tea")
    assert Retriever(store, index=tmp_path / "no" / "such" / "folder").retrieve("tea").sentences == ("likes tea.",)


def test_two_retrievers_share_an_index(store: NoteStore, tmp_path: Path) -> None:
    one, other = (Retriever(store, index=tmp_path / "index.sqlite") for _ in range(2))
    for i in range(3):
        operations.add(store, f"likes tea {i}")
        assert len(one.retrieve("tea").notes) == len(other.retrieve("tea").notes) == i + 1


def test_a_file_that_is_no_text_does_not_hide_the_others(store: NoteStore, retriever: Retriever) -> None:
    operations.add(store, "likes tea")
    (store.folder / "bad.md").write_bytes(b"- tea caf\xe9\n")
    assert set(retriever.retrieve("tea").sentences) == {"likes tea.", "tea caf\ufffd."}


# ---------------------------------------------------------------- sentences, tokens, bad input


def test_sentences_end_in_a_full_stop_of_their_script() -> None:
    texts = ["likes tea", "likes tea.", "Really?", "東京に住む", "दिल्ली"]
    assert [sentence(text) for text in texts] == ["likes tea.", "likes tea.", "Really?", "東京に住む。", "दिल्ली।"]


def test_tokens_are_counted_as_asked(store: NoteStore, tmp_path: Path) -> None:
    operations.add(store, "likes tea")
    own = Retriever(store, count=lambda text: len(text.split()), index=tmp_path / "index.sqlite")
    assert own.retrieve("tea").tokens == 2 and own.retrieve("nothing").tokens == 0
    assert (estimated_tokens("likes tea"), estimated_tokens(""), estimated_tokens("東")) == (3, 0, 1)


@pytest.mark.parametrize("query", ["", "  ?!", '" OR "', "* NEAR(", "\0", "'; DROP TABLE notes"])
def test_any_query_is_words_and_no_command(store: NoteStore, retriever: Retriever, query: str) -> None:
    operations.add(store, "likes tea")
    assert retriever.retrieve(query).notes == ()
    assert len(retriever.retrieve("tea").notes) == 1


def test_a_query_without_end_and_a_negative_number_are_refused(retriever: Retriever) -> None:
    with pytest.raises(NotesError, match="shorten it"):
        retriever.retrieve("x" * 10**6)
    with pytest.raises(NotesError, match="at least 1 note"):
        retriever.retrieve("x", 0)


# ---------------------------------------------------------------- goals


def test_three_hundred_facts_are_found_by_their_questions_within_milliseconds(store: NoteStore, tmp_path: Path) -> None:
    facts = World().new_facts(np.random.default_rng(0), 300)
    FactNotes(store).record(facts)
    retriever = Retriever(store, index=tmp_path / "index.sqlite")
    retriever.retrieve("warm up")
    hits, times = 0, []
    for fact in facts:
        got = retriever.retrieve(fact.questions[0], 3)
        hits += fact.statement in got.sentences
        times.append(got.milliseconds)
    assert hits / len(facts) >= 0.98
    # The goal is 5 ms on an idle machine, see benchmarks/notes_retrieval.py; tests run beside others.
    assert statistics.median(times) < 25
