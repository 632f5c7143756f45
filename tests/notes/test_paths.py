"""Names of files: no two texts share one, and no path leads out of the folder."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleepgym.notes import NotesError, NoteStore, operations
from sleepgym.notes.paths import checked, file_key

NAMES = st.text(
    st.one_of(st.sampled_from(list("./\\%~_ :#+aA\n\0")), st.characters(exclude_categories=("Cs",))), min_size=1
)


@settings(max_examples=500)
@given(NAMES, NAMES)
def test_two_texts_never_share_a_file(one: str, other: str) -> None:
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert (file_key(one) == file_key(other)) == same


@settings(max_examples=500)
@given(NAMES)
def test_every_key_is_a_path_that_is_allowed(name: str) -> None:
    assert checked(f"facts/{file_key(name)}.md")


def test_names_that_look_alike_to_ascii_stay_apart() -> None:
    names = [
        "C++",
        "C#",
        "C",
        "Анна",
        "Инна",
        "東京",
        "京都",
        "a/b",
        "a%2Fb",
        ".",
        "..",
        "x" * 300,
        "x" * 301,
        "é" * 200,
    ]
    assert len({file_key(name) for name in names}) == len(names)
    assert file_key("Анна Ли") == "Анна Ли" and file_key("C++") == "C++"


BAD = [
    "../x.md", "a/../../x.md", "/etc/x.md", "a//x.md", "./x.md", ".hidden.md", ".notes/x.md", "a\\x.md", "x.txt", "x",
    "", "a\0.md", "a\nb.md", "_tree.md", "x" * 300 + ".md", "a/" * 900 + "x.md", "\ud800.md",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD)
def test_a_path_that_leads_elsewhere_is_refused(store: NoteStore, path: str) -> None:
    with pytest.raises(NotesError, match=r"^expected .*, found .*; name a file"):
        store.read(path)
    with pytest.raises(NotesError), store.changing("add") as change:
        change.document(path)


def links(folder: Path, outside: Path) -> list[str]:
    """A link to a file outside, one to a folder outside, and one that dangles."""
    folder.mkdir(parents=True, exist_ok=True)
    outside.mkdir()
    (outside / "x.md").write_text("- secret\n")
    (folder / "link.md").symlink_to(outside / "x.md")
    (folder / "away").symlink_to(outside)
    (folder / "dangling.md").symlink_to(outside / "new.md")
    return ["link.md", "away/x.md", "away/new.md", "dangling.md"]


def test_no_link_is_followed(store: NoteStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for path in links(store.folder, outside):
        with pytest.raises(NotesError, match="found a link"):
            operations.add(store, "hello", path)
        with pytest.raises(NotesError, match="found a link"):
            store.read(path)
    assert store.files() == []
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"x.md": "- secret\n"}


def test_links_planted_under_the_names_of_files_in_writing_are_not_written_through(
    store: NoteStore, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    for name in ("personal/about.md", "_tree.md", ".notes/pending.json"):
        place = store.folder / f"{name}.{os.getpid()}.part"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
    operations.add(store, "hello")
    assert target.read_text() == "mine"


@pytest.mark.parametrize("name", [".notes", "_tree.md"])
def test_a_link_in_the_place_of_what_the_store_writes_itself_is_refused(
    store: NoteStore, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    store.folder.mkdir()
    (store.folder / name).symlink_to(outside / "target" if name == "_tree.md" else outside)
    with pytest.raises(NotesError, match="found a link"):
        operations.add(store, "hello")
    assert list(outside.iterdir()) == []


def test_a_link_in_the_place_of_the_lock_is_refused(store: NoteStore, tmp_path: Path) -> None:
    (store.folder / ".notes").mkdir(parents=True)
    (store.folder / ".notes" / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(NotesError, match="found a link"):
        operations.add(store, "hello")
    assert not (tmp_path / "target").exists()


def test_a_pipe_is_refused_and_not_waited_for(store: NoteStore) -> None:
    store.folder.mkdir()
    os.mkfifo(store.folder / "x.md")
    with pytest.raises(NotesError, match="expected a file"):
        store.read("x.md")


def test_a_huge_file_is_refused_by_its_size_before_it_is_read(store: NoteStore) -> None:
    store.folder.mkdir()
    with (store.folder / "x.md").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(NotesError, match="expected at most 16777216 bytes"):
        store.read("x.md")
