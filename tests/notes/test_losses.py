"""Eight ways in which notes get lost elsewhere, and that none of them happens here."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from sleepgym.facts import Fact
from sleepgym.notes import FactNotes, NotesError, NoteStore, Retriever, operations
from sleepgym.notes.bullet import bullet
from sleepgym.notes.document import parse
from sleepgym.notes.merging import Incoming, merge
from sleepgym.notes.omf import exported_omf, read_omf


def current(store: NoteStore, path: str) -> list[str]:
    return [one.words for block, one in store.read(path).notes() if one.holds(block.tier)]


def tidied(store: NoteStore) -> None:
    """Everything that might drop a note."""
    operations.prune(store)
    operations.compact(store)
    merge(store, read_omf(exported_omf(store)))
    store.write_tree()


def test_1_facts_in_any_script_stay_and_are_found(store: NoteStore, retriever: Retriever) -> None:
    told = {
        "Анна живёт в Риге": "Где живёт Анна?",
        "Инна живёт в Осло": "Инна",
        "花子は東京に住んでいる": "花子はどこに住んでいるか",
        "太郎は京都に住んでいる": "太郎の住所",
        "سلمى تعيش في القاهرة": "أين تعيش سلمى",
        "आशा दिल्ली में रहती है": "आशा कहाँ रहती है?",
        "민수는 서울에 산다": "민수가 사는 곳",
        "สมชายอยู่ที่เชียงใหม่": "สมชายอยู่ที่ไหน",
    }
    for text in told:
        operations.add(store, text)
    tidied(store)
    assert current(store, "personal/about.md") == list(told)
    for text, query in told.items():
        assert retriever.retrieve(query, 1).notes[0].said == text


def test_2_what_differs_in_signs_alone_is_not_merged(store: NoteStore, retriever: Retriever) -> None:
    told = [
        "prefers C++",
        "prefers C#",
        "prefers C",
        "prefers c",
        "pays in $",
        "pays in €",
        "is not here",
        "is not here?",
    ]
    for text in told:
        operations.add(store, text)
    tidied(store)
    assert current(store, "personal/about.md") == told
    assert retriever.retrieve("who knows C++", 1).notes[0].said == "prefers C++"
    assert retriever.retrieve("who knows C#", 1).notes[0].said == "prefers C#"


def test_3_what_a_person_wrote_in_prose_lists_and_nesting_stays(store: NoteStore, retriever: Retriever) -> None:
    text = (
        "# Trip\n\nWe leave from the old pier.\n\n1. pack\n2. lock up\n   - twice\n\n"
        "## Ideas\n- kayaks\n\n```\n- code\n```\n"
    )
    store.folder.mkdir()
    (store.folder / "trip.md").write_text(text)
    operations.add(store, "Ferry at noon", "trip.md")
    operations.update(store, "kayaks", "canoes", "trip.md")
    tidied(store)
    after = (store.folder / "trip.md").read_text()
    assert [line for line in text.split("\n") if line not in after.split("\n")] == ["- kayaks"]
    assert "- kayaks | " in after and after.startswith(text.split("kayaks")[0] + "canoes | ")
    assert retriever.retrieve("old pier", 1).sentences == ("We leave from the old pier.",)
    assert retriever.retrieve("twice", 1).sentences == ("twice.",)


@pytest.mark.parametrize("text", ["a|b", "runs `ls | wc -l`", "a \\| b | topic=x", "|", "ends in \\", "x | y=z"])
def test_4_bars_do_not_cut_a_note(store: NoteStore, retriever: Retriever, text: str) -> None:
    operations.add(store, f"says {text}", topic=f"t {text}")
    tidied(store)
    ((_, one),) = store.read("personal/about.md").notes()
    assert (one.words, one.topic) == (f"says {text}", f"t {text}")
    assert retriever.retrieve("says").notes[0].said == f"says {text}"


def test_5_any_number_of_notes_of_one_topic_stays_active(store: NoteStore) -> None:
    told = [f"likes number {i}" for i in range(40)]
    for text in told:
        operations.add(store, text, topic="likes")
    tidied(store)
    assert current(store, "personal/about.md") == told


def test_6_a_fact_that_returns_to_what_it_was_is_active_again(store: NoteStore, retriever: Retriever) -> None:
    notes = FactNotes(store)
    for place in ("Oslo", "Riga", "Oslo"):
        notes.record([Fact("Aria", "Aria lives in", place, "city")])
        tidied(store)
        assert current(store, "facts/Aria.md") == [f"Aria lives in {place}."]
    assert retriever.retrieve("Where does Aria live?").sentences == ("Aria lives in Oslo.",)
    history = [one.words for block, one in store.read("facts/Aria.md").notes() if not one.holds(block.tier)]
    assert history == ["Aria lives in Oslo.", "Aria lives in Riga."]


def test_6_so_is_a_note_that_was_updated_there_and_back(store: NoteStore) -> None:
    operations.add(store, "Prefers tea")
    for old, new in itertools.pairwise(["Prefers tea", "Prefers mate", "Prefers tea"]):
        operations.update(store, old, new)
        tidied(store)
        assert current(store, "personal/about.md") == [new]


def test_7_sources_and_fields_that_are_not_known_stay(store: NoteStore) -> None:
    line = "- Likes fog | mood=odd | source=her diary | topic=weather | mood=odder | x_9=a\\|b"
    store.folder.mkdir()
    (store.folder / "a.md").write_text(f"# A\n\n{line}\n")
    tidied(store)
    assert line in (store.folder / "a.md").read_text().split("\n")
    operations.add(store, "Likes fog", "a.md")  # said again: dated, and no more
    assert f"{line} | updated_at=2026-01-31T09:30" in (store.folder / "a.md").read_text().split("\n")
    operations.update(store, "Likes fog", "Loves fog", "a.md")
    for _, one in store.read("a.md").notes():
        assert (one.get("source"), one.get("mood"), one.get("x_9")) == ("her diary", "odd", "a|b")


def test_8_long_files_are_not_cut(store: NoteStore) -> None:
    text = "# Long\n\n" + "".join(f"- note number {i} with some words\n" for i in range(30_000))
    store.folder.mkdir()
    (store.folder / "long.md").write_text(text)
    operations.add(store, "one more", "long.md")
    after = (store.folder / "long.md").read_text()
    assert after.startswith(text.rstrip("\n")) and "- one more | " in after


def test_8_nothing_leaves_the_folder(store: NoteStore, tmp_path: Path) -> None:
    for path in ("../out.md", "a/../../out.md", str(tmp_path / "out.md")):
        with pytest.raises(NotesError):
            operations.add(store, "x", path)
        with pytest.raises(NotesError):
            merge(store, [Incoming(path, "long_term", bullet("x"))])
    assert list(tmp_path.rglob("*.md")) == []


def test_canonical_files_are_what_the_operations_write(store: NoteStore) -> None:
    operations.add(store, "Prefers tea", topic="drinks")
    operations.update(store, "Prefers tea", "Prefers mate")
    text = (store.folder / "personal" / "about.md").read_text()
    assert (
        text
        == """# Memory: Personal

## Working memory (current context subject to change)
_No entries yet._

## Long-term memory (stable facts that are unlikely to change)
- Prefers mate | topic=drinks | tier=long_term | status=active | source=user_statement | confidence=high | \
updated_at=2026-01-31T09:30

## History (no longer current)
- Prefers tea | topic=drinks | tier=history | status=superseded | source=user_statement | confidence=high | \
updated_at=2026-01-31T09:30
"""
    )
    assert parse(text).text == text
