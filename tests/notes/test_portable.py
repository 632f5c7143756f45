"""Notes that leave a folder and come into another one: nothing is lost, and nothing hostile gets in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleepgym.notes import NotesError, NoteStore, operations
from sleepgym.notes.bullet import bullet
from sleepgym.notes.merging import merge
from sleepgym.notes.omf import exported_omf, read_omf
from sleepgym.notes.plain import exported_text, read_plain
from sleepgym.notes.texts import same_words

TEXTS = st.text(st.one_of(st.sampled_from(list("|\\[]#-=: a1")), st.characters(min_codepoint=0xA1)), min_size=1)


def usable(text: str) -> bool:
    try:
        bullet(text)
    except NotesError:
        return False
    return True


def said(store: NoteStore) -> list[Any]:
    return [(path, block.tier, one) for path in store.files() for block, one in store.read(path).notes()]


def omf(**item: Any) -> str:
    return json.dumps({"omf": "1.0", "exported_at": "2026-01-01T00:00:00Z", "memories": [{"content": "x", **item}]})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TEXTS.filter(usable), TEXTS.filter(usable), st.booleans()), min_size=1, max_size=5))
def test_a_folder_that_is_exported_and_imported_holds_the_same(
    tmp_path_factory: pytest.TempPathFactory, notes: list[tuple[str, str, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("notes")
    store, other = NoteStore(folder / "a"), NoteStore(folder / "b")
    with store.changing("x") as change:
        document = change.document_or_new("work/a.md", "A")
        for text, odd, old in notes:
            one = bullet(text, topic=odd, source=odd, mood=odd, status="superseded" if old else "active")
            document = document.including("history" if old else "long_term", one)
        change.put("work/a.md", document)
    done = merge(other, read_omf(exported_omf(store)))
    assert set(said(other)) == set(said(store)) and done.files == ("work/a.md",)
    assert merge(other, read_omf(exported_omf(store))).added == 0
    texts = {text for text, _, old in notes if not old}
    third = NoteStore(folder / "c")
    merge(third, read_plain(exported_text(store), third))
    assert {same_words(one.words) for _, _, one in said(third)} == {same_words(bullet(text).text) for text in texts}


def test_what_a_person_wrote_comes_along(store: NoteStore, tmp_path: Path) -> None:
    text = "# T\n\nSome prose,\nover two lines.\n\n1. one\n   - nested | mood=odd\n     goes on\n\n```\ncode\n```\n"
    store.folder.mkdir()
    (store.folder / "t.md").write_text(text)
    other = NoteStore(tmp_path / "other")
    merge(other, read_omf(exported_omf(store)))
    after = (other.folder / "t.md").read_text()
    for part in (
        "Some prose,\nover two lines.\n",
        "1. one\n   - nested | mood=odd\n     goes on\n",
        "```\ncode\n```\n",
    ):
        assert part in after
    assert merge(other, read_omf(exported_omf(store))).added == 0


def test_the_same_words_under_other_notes_and_headings_mean_something_else(store: NoteStore, tmp_path: Path) -> None:
    text = (
        "# T\n\n- in prose\n\n## Long-term memory\n- Ann\n  - yes\n- Bob\n  - yes\n\n"
        "## Tea\n- likes\n\nwith milk\n\n## Coffee\n- likes\n\n## History\n### Old\n- once\n"
    )
    store.folder.mkdir()
    (store.folder / "t.md").write_text(text)
    assert operations.compact(store) == []
    assert (store.folder / "t.md").read_text() == text
    other = NoteStore(tmp_path / "other")
    for added in (9, 0):
        assert merge(other, read_omf(exported_omf(store))).added == added
    after = (other.folder / "t.md").read_text()
    assert other.read("t.md").title == "T"
    assert "- Ann\n  - yes\n- Bob\n  - yes\n" in after
    assert "## Tea\n\nwith milk\n\n- likes\n\n## Coffee\n- likes\n" in after
    assert "## History (no longer current)\n- once\n" in after


def test_an_export_is_a_document_of_the_format(store: NoteStore) -> None:
    operations.add(store, "Lives in Seattle", topic="housing", expires_at="2026-05-01T10:00")
    operations.update(store, "Lives in Seattle", "Lives in Oslo")
    document = json.loads(exported_omf(store))
    assert (document["omf"], document["source"]) == ("1.0", {"app": "sleepgym"})
    new, old = document["memories"]
    assert (new["content"], new["category"], new["tags"], new.get("status")) == (
        "Lives in Oslo",
        "personal",
        ["housing"],
        None,
    )
    assert (old["status"], old["expires_at"], old["updated_at"]) == ("archived", "2026-05-01", "2026-01-31")
    assert new["extensions"]["nanomem"]["file_path"] == "personal/about.md"


def test_what_others_export_is_kept_with_all_it_says(store: NoteStore) -> None:
    text = omf(
        content="Likes fog", category="health/ear nose", tags=["weather", "grey"], updated_at="2025-01-02", mood=1,
        created_at="2024-01-01", extensions={"other": {"a|b": [1]}},
    )  # fmt: skip
    merge(store, read_omf(text))
    ((path, tier, one),) = said(store)
    assert (path, tier, one.text, one.topic) == ("health/ear nose.md", "long_term", "Likes fog", "weather")
    assert (one.get("updated_at"), one.get("created_at"), one.get("source")) == ("2025-01-02", "2024-01-01", None)
    assert json.loads(one.get("omf")) == {"mood": 1, "extensions": {"other": {"a|b": [1]}}, "tags": ["grey"]}


@pytest.mark.parametrize(
    ("item", "path", "tier"),
    [
        ({}, "personal/imported.md", "long_term"),
        ({"category": "work"}, "work/about.md", "long_term"),
        ({"category": "../../etc"}, "%2E%2E/%2E%2E/etc.md", "long_term"),
        ({"status": "archived"}, "personal/imported.md", "history"),
        ({"status": "expired"}, "personal/imported.md", "history"),
        ({"extensions": {"oa-chat": {"file_path": "a/b.md"}}, "category": "x"}, "a/b.md", "long_term"),
    ],
)
def test_items_of_others_find_their_place(store: NoteStore, item: Any, path: str, tier: str) -> None:
    merge(store, read_omf(omf(**item)))
    assert [(found, section) for found, section, _ in said(store)] == [(path, tier)]


def test_long_texts_of_several_lines_stay_as_they_are(store: NoteStore) -> None:
    content = "## Notes\n\n" + "word " * 120 + "\n- a bullet of it"
    merge(store, read_omf(omf(content=content, category="work")))
    assert content in (store.folder / "work" / "about.md").read_text()


def test_a_document_of_others_does_not_change_what_stands_around_it(store: NoteStore) -> None:
    content = "# Old\n\n## History\n" + "word " * 120 + "\n```\n- never closed"
    items = json.loads(omf(content=content, category="work"))
    items["memories"].append({"content": "is current", "category": "work"})
    merge(store, read_omf(json.dumps(items)))
    assert merge(store, read_omf(json.dumps(items))).added == 0
    operations.add(store, "is new", "work/about.md")
    current = [one.words for block, one in store.read("work/about.md").notes() if one.holds(block.tier)]
    assert current == ["is current", "is new"]
    assert "word word" in (store.folder / "work" / "about.md").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "nonsense", '{"omf": "2.0", "memories": []}', '{"omf": "1.0"}', omf(content=""), omf(content=3),
        omf(content="a\0b"), omf(tags="x"), "[" * 100_000, '{"a":' * 100_000, omf(content="\ud800"),
        omf(extensions={"nanomem": {"file_path": "../out.md"}}), omf(extensions={"nanomem": {"file_path": "/out.md"}}),
        omf(extensions={"nanomem": {"file_path": ".notes/x.md"}}),
        omf(extensions={"sleepgym": {"fields": [["a|b", "c"]]}}),
        omf(extensions={"sleepgym": {"marker": "- x\n- "}}), omf(extensions={"sleepgym": {"more": ["a\nb"]}}),
        omf(content="x\n```\0", extensions={"sleepgym": {"prose": True}}),
    ],
    ids=lambda text: text[:50],
)  # fmt: skip
def test_what_is_no_such_document_is_refused_and_changes_nothing(store: NoteStore, text: str) -> None:
    with pytest.raises(NotesError, match=r"expected .*found"):
        merge(store, read_omf(text))
    assert store.files() == []


def test_one_bad_item_refuses_all(store: NoteStore) -> None:
    document = json.loads(omf(content="good"))
    document["memories"].append({"content": "bad", "extensions": {"nanomem": {"file_path": "../x.md"}}})
    with pytest.raises(NotesError, match=r"^memories.1: expected a path within the folder"):
        merge(store, read_omf(json.dumps(document)))
    assert store.files() == []


def test_an_import_is_taken_back_as_a_whole(store: NoteStore) -> None:
    operations.add(store, "old", "a.md")
    merge(store, read_plain("[a.md]\nnew\n[b.md]\nnewer\n", store))
    assert store.files() == ["a.md", "b.md"]
    assert store.undo() == "import" and store.files() == ["a.md"]


def test_plain_text_is_a_line_per_note(store: NoteStore) -> None:
    merge(store, read_plain("loose\n\n[work/a.md]\n\\[x] tick\n\\\\share\n  tea  \n", store))
    assert exported_text(store) == "[personal/imported.md]\nloose\n\n[work/a.md]\n\\[x] tick\n\\\\share\ntea\n"
    with pytest.raises(NotesError, match=r"^line 2: expected .*begin a text"):
        read_plain("\n[x] tick", store)
    with pytest.raises(NotesError, match=r"^line 1: expected a path within"):
        read_plain("[../x.md]", store)
