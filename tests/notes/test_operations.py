"""Adding, updating, deleting, pruning, compacting and linting by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from sleepgym.notes import NotesError, NoteStore, operations
from sleepgym.notes.lint import lint
from sleepgym.notes.operations import Touched


def write(store: NoteStore, path: str, text: str) -> None:
    (store.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (store.folder / path).write_text(text)


def notes(store: NoteStore, path: str = "personal/about.md") -> list[tuple[str, str]]:
    return [(one.words, one.tier(block.tier)) for block, one in store.read(path).notes()]


def test_a_note_that_is_there_is_dated_and_not_added_again(store: NoteStore, clock: Any) -> None:
    operations.add(store, "Prefers  tea")
    clock.now = datetime(2026, 2, 1)
    assert operations.add(store, "Prefers tea", expires_at="2026-03-01").done == "dated anew"
    ((_, one),) = store.read("personal/about.md").notes()
    assert (one.text, one.get("updated_at"), one.get("expires_at")) == (
        "Prefers  tea",
        "2026-02-01T00:00",
        "2026-03-01",
    )


def test_working_memory_has_a_section_of_its_own(store: NoteStore) -> None:
    operations.add(store, "Is on call", tier="working")
    operations.add(store, "Plays chess")
    assert notes(store) == [("Is on call", "working"), ("Plays chess", "long_term")]


@pytest.mark.parametrize("date", ["tomorrow", "2026-13-01", "31.03.2026", ""])
def test_a_date_that_cannot_be_read_is_refused(store: NoteStore, date: str) -> None:
    with pytest.raises(NotesError, match="expected a date such as 2026-03-31"):
        operations.add(store, "x", expires_at=date)
    assert store.files() == []


def test_a_part_that_one_note_alone_has_will_do(store: NoteStore) -> None:
    operations.add(store, "Prefers tea to coffee")
    operations.add(store, "Prefers trains")
    done = operations.update(store, "PREFERS TEA", "Prefers mate")
    assert done == Touched("personal/about.md", "Prefers mate", "updated")
    with pytest.raises(NotesError, match=r"found 2 \(personal/about.md: Prefers mate; personal/about.md: Prefers tr"):
        operations.update(store, "prefers", "x")
    with pytest.raises(NotesError, match="found none"):
        operations.update(store, "planes", "x")


def test_the_whole_text_wins_over_a_part(store: NoteStore) -> None:
    operations.add(store, "tea")
    operations.add(store, "tea with milk")
    assert [one.text for one in operations.delete(store, "tea")] == ["tea"]
    assert notes(store) == [("tea with milk", "long_term")]


def test_the_same_words_in_two_files_need_the_file(store: NoteStore) -> None:
    for path in ("a.md", "b.md"):
        operations.add(store, "tea", path)
    with pytest.raises(NotesError, match="expected one note that says 'tea', found 2"):
        operations.delete(store, "tea")
    operations.delete(store, "tea", "a.md")
    assert store.files() == ["b.md"]


def test_deleting_takes_what_history_has_in_the_same_words(store: NoteStore) -> None:
    for text in ("tea", "mate"):
        operations.add(store, text)
    operations.update(store, "tea", "cocoa")
    operations.update(store, "cocoa", "tea")
    assert len(operations.delete(store, "tea")) == 2
    assert notes(store) == [("mate", "long_term"), ("cocoa", "history")]


def test_a_file_with_headings_of_a_persons_own_outlives_its_last_note(store: NoteStore) -> None:
    write(store, "a.md", "# A\n\n## Plans\n- tea\n")
    operations.delete(store, "tea")
    assert (store.folder / "a.md").read_text() == "# A\n\n## Plans\n"


def test_an_update_to_what_is_there_already_leaves_one(store: NoteStore) -> None:
    for text in ("tea", "mate"):
        operations.add(store, text)
    operations.update(store, "tea", "mate")
    assert notes(store) == [("mate", "long_term"), ("tea", "history")]
    assert operations.update(store, "mate", "mate").done == "left"


def test_pruning_puts_what_has_expired_into_history_and_nothing_else(store: NoteStore, clock: Any) -> None:
    operations.add(store, "visits", expires_at="2026-02-10")
    operations.add(store, "stays")
    clock.now = datetime(2026, 2, 10, 23, 0)
    assert operations.prune(store) == []
    clock.now = datetime(2026, 2, 11)
    assert operations.prune(store) == [Touched("personal/about.md", "visits", "expired")]
    assert notes(store) == [("stays", "long_term"), ("visits", "history")]
    assert operations.prune(store) == []


def test_compacting_merges_the_same_words_into_the_stronger_note_with_all_fields(store: NoteStore) -> None:
    write(
        store,
        "a.md",
        "# A\n## Long-term memory\n- tea | source=inference | mood=calm\n- tea | source=user_statement\n"
        "- tea | source=system | mood=odd\n- Tea\n- old | status=superseded\n- tea | expires_at=2027-01-01\n",
    )
    done = operations.compact(store)
    assert [(one.text, one.done) for one in done] == [("old", "moved"), ("tea", "merged")]
    assert (store.folder / "a.md").read_text() == (
        "# A\n## Long-term memory\n- tea | source=user_statement | mood=calm\n- tea | source=system | mood=odd\n"
        "- Tea\n- tea | expires_at=2027-01-01\n\n"
        "## History (no longer current)\n- old | status=superseded | tier=history\n"
    )
    assert operations.compact(store) == []


def test_lint_names_line_and_remedy_and_changes_nothing(store: NoteStore) -> None:
    text = (
        "# A\n- x | tier=attic\n- y | updated_at=soon\n- z\n- z\n- gone | expires_at=2020-01-01\n- \n"
        "- due | review_at=2026-01-01\n- was | status=superseded\n- p | relation=city\n- q | relation=city\n"
    )
    write(store, "a.md", text)
    write(store, "b.md", "")
    (store.folder / "b.md").write_bytes(b"\xff")
    (store.folder / "link.md").symlink_to(store.folder / "a.md")
    found = [(one.path, one.line, one.what) for one in lint(store)]
    assert [(path, line) for path, line, _ in found] == [
        ("link.md", 0), ("a.md", 2), ("a.md", 3), ("a.md", 5), ("a.md", 6), ("a.md", 7), ("a.md", 8), ("a.md", 9),
        ("a.md", 11), ("b.md", 0),
    ]  # fmt: skip
    assert all(what.startswith("expected ") and " found " in what for *_, what in found)
    assert (store.folder / "a.md").read_text() == text and not (store.folder / ".notes").exists()


def test_lint_names_files_that_are_not_read(store: NoteStore) -> None:
    operations.add(store, "tea")
    (store.folder / ("x" * 230 + ".md")).write_text("- lost?\n")
    (store.folder / "a\nb.md").write_text("- lost?\n")
    assert [one.path for one in lint(store)] == ["a\\nb.md", "x" * 230 + ".md"]
    assert operations.compact(store) == operations.prune(store) == []


def test_lint_finds_nothing_odd_in_what_is_written_here(store: NoteStore) -> None:
    operations.add(store, "tea", topic="drinks")
    operations.update(store, "tea", "mate")
    assert lint(store) == []
