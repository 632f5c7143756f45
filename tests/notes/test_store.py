"""Writing: all or nothing, one at a time, to be taken back; a process may die at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sleepgym import files
from sleepgym.notes import NotesError, NoteStore, operations
from sleepgym.notes.document import parse
from sleepgym.notes.reading import MAX_FILE_BYTES

ROOT = Path(__file__).parents[2]

WRITER = """
import sys
from sleepgym.notes import NoteStore, operations
folder, name, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = NoteStore(folder)
for i in range(first, first + count):
    operations.add(store, f"{name} {i}", f"work/{name[:1]}{i % 3}.md" if len(name) > 1 else "work/shared.md")
    print(i, flush=True)
"""

DIES = """
import os, sys
from pathlib import Path
from sleepgym.notes import NoteStore
from sleepgym.notes.document import new_document
from sleepgym.notes.bullet import bullet
left = [int(sys.argv[2])]
def dying(real):
    def call(self, *args, **kwargs):
        if left[0] == 0:
            os._exit(9)
        left[0] -= 1
        return real(self, *args, **kwargs)
    return call
for name in ("replace", "unlink", "open"):
    setattr(Path, name, dying(getattr(Path, name)))
with NoteStore(sys.argv[1]).changing("both") as change:
    for path in ("a.md", "b.md"):
        change.put(path, change.document_or_new(path, "T").including("long_term", bullet("new")))
    change.put("gone.md", new_document("T"))
"""

HOLDS = """
import sys, time
from sleepgym.notes import NoteStore
with NoteStore(sys.argv[1]).changing("hold"):
    print("held", flush=True)
    time.sleep(60)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def texts(store: NoteStore) -> list[str]:
    return [one.words for path in store.files() for _, one in store.read(path).notes()]


def snapshot(store: NoteStore) -> dict[str, str]:
    return {path: (store.folder / path).read_text() for path in store.files()}


# ---------------------------------------------------------------- processes that die


def killed_while_writing(store: NoteStore, kills: int) -> None:
    """Kills writers one after the other; what they have said they wrote is there, and every file is whole."""
    rng, first = random.Random(0), 0
    acknowledged: set[str] = set()
    for _ in range(kills):
        writer = start(WRITER, store.folder, "note", first, 10_000)
        assert writer.stdout is not None
        line = writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
        writer.wait()
        done = [int(number) for number in (line + rest).split("\n")[:-1]]
        acknowledged |= {f"note {i}" for i in done}
        first = done[-1] + 2  # the one that was under way may be there
        there = texts(store)
        assert acknowledged <= set(there) and len(there) == len(set(there))
        assert len(there) <= len(acknowledged) + kills
    for path in store.files():
        text = (store.folder / path).read_text()
        assert parse(text).text == text and text.startswith("# Memory: ") and text.endswith("_No entries yet._\n")
        assert all(len(one.fields) == 5 for _, one in store.read(path).notes())
    operations.add(store, "and it goes on")
    assert not list(store.folder.rglob(f"*{files.PART}"))
    assert not (store.folder / ".notes" / "pending.json").exists()


def test_a_few_kills_while_writing_lose_nothing(store: NoteStore) -> None:
    killed_while_writing(store, 5)


@pytest.mark.slow
def test_sixty_kills_while_writing_lose_nothing(store: NoteStore) -> None:
    killed_while_writing(store, 60)


@pytest.mark.parametrize("calls", range(17))
def test_a_change_of_several_files_happens_as_a_whole_wherever_its_process_dies(store: NoteStore, calls: int) -> None:
    for path in ("a.md", "gone.md"):
        operations.add(store, "old", path)
    before = snapshot(store)
    process = start(DIES, store.folder, calls)
    process.communicate()
    assert process.returncode in (0, 9)
    operations.add(store, "next", "c.md")
    kept = (store.folder / "_tree.md").read_text()
    assert store.write_tree() == kept
    after = snapshot(store)
    del after["c.md"]
    assert after == before or (sorted(after) == ["a.md", "b.md"] and all("- new" in text for text in after.values()))


def test_a_lock_is_free_again_when_its_holder_dies(store: NoteStore) -> None:
    holder = start(HOLDS, store.folder)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    store.wait_seconds = 0.05
    with pytest.raises(NotesError, match="another process writing"):
        operations.add(store, "hello")
    holder.kill()
    holder.wait()
    store.wait_seconds = 5
    operations.add(store, "hello")


# ---------------------------------------------------------------- processes side by side


def side_by_side(store: NoteStore, count: int) -> None:
    writers = [start(WRITER, store.folder, name, 0, count) for name in "ab"]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert sorted(texts(store)) == sorted(f"{name} {i}" for name in "ab" for i in range(count))
    assert f"({2 * count} items" in (store.folder / "_tree.md").read_text()


def test_two_processes_that_write_thirty_notes_each_lose_none(store: NoteStore) -> None:
    side_by_side(store, 30)


@pytest.mark.slow
def test_two_processes_that_write_five_hundred_notes_each_lose_none(store: NoteStore) -> None:
    side_by_side(store, 500)


def test_two_threads_that_write_lose_none_either(store: NoteStore) -> None:
    def write(name: str) -> None:
        own = NoteStore(store.folder)
        for i in range(20):
            operations.add(own, f"{name} {i}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, "ab"))
    assert sorted(texts(store)) == sorted(f"{name} {i}" for name in "ab" for i in range(20))


# ---------------------------------------------------------------- all or nothing


def test_an_error_in_a_change_leaves_everything_as_it_was(store: NoteStore) -> None:
    operations.add(store, "old", "a.md")
    before = snapshot(store)
    with pytest.raises(RuntimeError), store.changing("x") as change:
        change.put("a.md", parse("# T\n- new\n"))
        raise RuntimeError
    assert snapshot(store) == before


def test_a_disk_that_is_full_half_way_leaves_everything_as_it_was(
    store: NoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a.md", "b.md"):
        operations.add(store, "old", path)
    before = snapshot(store)
    real = files.write_all

    def full(folder: Path, contents: dict[str, bytes], durable: bool = False) -> None:
        if "b.md" in contents and b"- new" in contents["b.md"]:
            raise OSError(28, "No space left on device")
        real(folder, contents, durable)

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(OSError, match="No space"), store.changing("x") as change:
        for path in ("a.md", "b.md"):
            change.put(path, parse("# T\n- new\n"))
    monkeypatch.undo()
    assert snapshot(store) == before
    assert store.undo() == "add" and store.files() == ["a.md"]


def test_a_file_that_a_person_saves_meanwhile_is_not_overwritten(store: NoteStore) -> None:
    operations.add(store, "old", "a.md")
    with pytest.raises(NotesError, match="found it changed meanwhile"), store.changing("x") as change:
        change.put("a.md", parse("# T\n- new\n"))
        (store.folder / "a.md").write_text("# T\n- mine\n")
    assert texts(store) == ["mine"]


def test_a_file_that_would_be_too_large_is_refused_and_nothing_is_written(store: NoteStore) -> None:
    operations.add(store, "old", "a.md")
    with pytest.raises(NotesError, match="expected at most"), store.changing("x") as change:
        change.put("a.md", parse("- " + "x" * MAX_FILE_BYTES))
    assert texts(store) == ["old"]


def test_a_file_that_is_no_text_is_refused_and_left(store: NoteStore) -> None:
    store.folder.mkdir()
    (store.folder / "a.md").write_bytes(b"- caf\xe9\n")
    with pytest.raises(NotesError, match=r"expected UTF-8 text .* byte 0xe9 at 5"):
        operations.add(store, "new", "a.md")
    assert (store.folder / "a.md").read_bytes() == b"- caf\xe9\n"


# ---------------------------------------------------------------- undo


def test_undo_takes_the_last_change_back_exactly_and_again_does_it_again(store: NoteStore) -> None:
    operations.add(store, "one", "a.md")
    before = snapshot(store)
    operations.update(store, "one", "two")
    after = snapshot(store)
    assert store.undo() == "update" and snapshot(store) == before
    assert store.undo() == "undo: update" and snapshot(store) == after


def test_undo_of_the_first_note_leaves_no_file(store: NoteStore) -> None:
    operations.add(store, "one", "deep/er/a.md")
    store.undo()
    assert store.files() == [] and not (store.folder / "deep").exists()


def test_undo_does_not_undo_what_a_person_has_written_since(store: NoteStore) -> None:
    operations.add(store, "one", "a.md")
    path = store.folder / "a.md"
    path.write_text(path.read_text() + "- mine\n")
    with pytest.raises(NotesError, match="found it edited since"):
        store.undo()
    assert texts(store) == ["one", "mine"]


def test_nothing_to_undo_is_said(store: NoteStore) -> None:
    with pytest.raises(NotesError, match="nothing to undo"):
        store.undo()


def test_a_damaged_journal_is_an_error_that_names_it(store: NoteStore) -> None:
    operations.add(store, "one", "a.md")
    (store.folder / ".notes" / "undo.json").write_text('{"what": 3}')
    with pytest.raises(NotesError, match=r"expected a journal .*undo.json, found"):
        store.undo()


@pytest.mark.parametrize(
    "name", ["../out.md", "/tmp/out.md", ".git/config", ".notes/lock", "a/../../out.md", "x.sh", ""]
)
@pytest.mark.parametrize("journal", ["pending.json", "undo.json"])
def test_a_journal_that_came_with_a_folder_writes_nothing_but_notes(
    store: NoteStore, tmp_path: Path, name: str, journal: str
) -> None:
    operations.add(store, "one", "a.md")
    (store.folder / ".git").mkdir()
    there = {"before": "evil", "after": None}
    (store.folder / ".notes" / journal).write_text(json.dumps({"what": "add", "files": {name: there}}))
    with pytest.raises(NotesError, match=r"expected a journal .* found a mistake in files"):
        store.undo()
    assert not any(
        "evil" in path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.name != journal
    )


# ---------------------------------------------------------------- the tree


def test_the_tree_lists_every_file_with_its_items_and_their_date(store: NoteStore) -> None:
    operations.add(store, "Prefers tea", "personal/about.md")
    operations.add(store, "Plays chess", "personal/about.md")
    operations.add(store, "x" * 200, "work/lab.md")
    tree = (store.folder / "_tree.md").read_text().split("\n")
    assert "- personal/about.md (2 items, updated 2026-01-31 09:30) - Prefers tea" in tree
    assert f"- work/lab.md (1 items, updated 2026-01-31 09:30) - {'x' * 79}…" in tree
    operations.delete(store, "x" * 200)
    assert "work/lab.md" not in (store.folder / "_tree.md").read_text()


def test_files_that_a_person_puts_there_are_in_the_tree_after_the_next_change(store: NoteStore) -> None:
    operations.add(store, "one")
    (store.folder / "mine.md").write_text("# Mine\n\n- by hand\n")
    operations.add(store, "two")
    assert "- mine.md (1 items, updated " in (store.folder / "_tree.md").read_text()


def test_a_tree_that_is_brought_up_to_date_is_the_one_that_is_generated(store: NoteStore) -> None:
    for i in range(5):
        operations.add(store, f"note {i}", f"f{i % 2}.md")
    operations.delete(store, "note 3")
    kept = (store.folder / "_tree.md").read_text()
    assert store.write_tree() == kept
