"""The format: whatever is in a file, it comes back byte for byte, and what is put in reads back as it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleepgym.notes.bullet import CONFIDENCES, SOURCES, STATUSES, TIERS, Bullet, bullet, moment, read_bullet, stamp
from sleepgym.notes.document import Document, new_document, parse
from sleepgym.notes.errors import NotesError
from sleepgym.notes.texts import note_text

CANONICAL = """# Memory: Work

## Working memory (current context subject to change)
- Is on call | topic=duty | tier=working | status=active | source=user_statement | confidence=high | \
updated_at=2026-01-31T09:30 | review_at=2026-02-28 | expires_at=2026-03-31

## Long-term memory (stable facts that are unlikely to change)
- Любит чай | topic=напитки | tier=long_term | status=active | source=inference | confidence=low | \
updated_at=2026-01-31T09:30

## History (no longer current)
_No entries yet._
"""

BY_HAND = """\ufeff---
owner: me
---
# All about work

Some prose that I wrote,
over two lines.

1. first
2. second
   - nested | topic=x | mood=odd | source=a letter
     with a second line
* starred\t
## History of my family
- Came from Riga
```
- no note
```
> quoted

| a | b |
|---|---|
## Long-term memory
### Deeper
- a | b | status=active
-   wide   |   topic = x
- """


def texts() -> st.SearchStrategy[str]:
    """Texts of notes, with everything in them that the format uses itself."""
    letters = st.one_of(
        st.sampled_from(list("|\\ =-#*_`ab1")), st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))
    )
    return st.text(letters, min_size=1, max_size=30).filter(_is_note)


def _is_note(text: str) -> bool:
    try:
        note_text(text)
    except NotesError:
        return False
    return True


def bullets() -> st.SearchStrategy[Bullet]:
    known = st.fixed_dictionaries(
        {},
        optional={
            "topic": texts(),
            "tier": st.sampled_from(TIERS),
            "status": st.sampled_from(STATUSES),
            "source": st.one_of(st.sampled_from(SOURCES), texts()),
            "confidence": st.sampled_from(CONFIDENCES),
            "updated_at": st.datetimes().map(lambda at: at.strftime("%Y-%m-%dT%H:%M")),
            "mood": texts(),
            "ключ": texts(),
        },
    )
    return st.builds(lambda text, fields: bullet(text, **fields), texts(), known)


def canonical() -> st.SearchStrategy[Document]:
    def filled(title: str, notes: list[tuple[str, Bullet]]) -> Document:
        document = new_document(title)
        for tier, note in notes:
            document = document.including(next(known for known in TIERS if known == tier), note)
        return document

    notes = st.lists(st.tuples(st.sampled_from(TIERS), bullets()), max_size=6)
    return st.builds(filled, st.text("abc ÄЖ日", min_size=1, max_size=9).map(str.strip), notes)


@settings(max_examples=300, deadline=None)
@given(canonical())
def test_a_canonical_file_is_rendered_byte_for_byte_and_says_what_was_put_in(document: Document) -> None:
    again = parse(document.text)
    assert again.text == document.text
    assert [(block.tier, one) for block, one in again.notes()] == [(block.tier, one) for block, one in document.notes()]
    assert again.title == document.title


@settings(max_examples=1000, deadline=None)
@given(
    st.text(st.one_of(st.sampled_from(list("\n\n\r-*+1.)#` |\\=ab~_\t")), st.characters(exclude_categories=("Cs",))))
)
def test_any_file_is_rendered_byte_for_byte(text: str) -> None:
    assert parse(text).text == text


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(list("\n\n-*1.# |=ab~`\t")), max_size=80), bullets(), st.sampled_from(TIERS))
def test_a_note_added_to_any_file_is_there_and_every_line_stays(text: str, note: Bullet, tier: str) -> None:
    before = parse(text)
    after = parse(before.including(next(known for known in TIERS if known == tier), note).text)
    assert [one for _, one in after.notes() if one == note]
    left = after.text.split("\n")
    for line in text.split("\n"):
        if line.strip() and line.strip() != "_No entries yet._":
            assert line in left
            left.remove(line)


@settings(max_examples=500, deadline=None)
@given(bullets())
def test_a_line_reads_back_as_the_bullet_that_it_says(note: Bullet) -> None:
    (line,) = note.lines
    assert read_bullet(line) == note
    assert "\n" not in line


def test_the_example_of_the_format_is_read() -> None:
    (block, first), (_, second) = parse(CANONICAL).notes()
    assert (block.tier, first.text, first.topic) == ("working", "Is on call", "duty")
    assert (first.get("review_at"), first.get("expires_at")) == ("2026-02-28", "2026-03-31")
    assert (second.text, second.topic) == ("Любит чай", "напитки")


def test_an_empty_document_is_canonical() -> None:
    assert new_document("Work").text == CANONICAL.replace(
        "- Is on call" + CANONICAL.split("- Is on call")[1].split("\n")[0], "_No entries yet._"
    ).replace("- Любит чай" + CANONICAL.split("- Любит чай")[1].split("\n")[0], "_No entries yet._")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_file_written_by_hand_keeps_every_other_line_when_a_note_changes(ending: str) -> None:
    text = BY_HAND.replace("\n", ending)
    document = parse(text)
    assert document.text == text
    block, one = next((block, one) for block, one in document.notes() if one.text == "Came from Riga")
    changed = document.changed(block, one.having(topic="family"))
    assert changed.text == text.replace("- Came from Riga", "- Came from Riga | topic=family")


def test_what_a_person_writes_by_hand_is_understood() -> None:
    notes = {one.text: (block.tier, one) for block, one in parse(BY_HAND).notes()}
    texts = ["first", "second", "nested", "starred", "Came from Riga", "a | b", "wide   |   topic = x", ""]
    assert list(notes) == texts
    assert notes["nested"][1].words == "nested with a second line"
    assert notes["nested"][1].get("source") == "a letter" and notes["nested"][1].get("mood") == "odd"
    assert notes["Came from Riga"][0] == "long_term"  # a heading of one's own is no history
    assert notes["a | b"][1].fields == (("status", "active"),)


def test_unescaped_bars_of_others_do_not_cut_a_text() -> None:
    assert read_bullet("- a|b | c | topic=t") == Bullet("a|b | c", (("topic", "t"),))
    assert read_bullet("- x=y | topic=t") == Bullet("x=y", (("topic", "t"),))


def test_a_field_that_a_line_has_twice_keeps_both() -> None:
    one = read_bullet("- a | topic=x | topic=y | z=1")
    assert one is not None and one.topic == "x"
    assert one.having(topic="w", z=None).lines == ("- a | topic=w | topic=y",)


def test_an_unclosed_fence_does_not_swallow_what_is_added() -> None:
    document = parse("# T\n```\n- inside").including("long_term", bullet("new"))
    assert [one.text for _, one in parse(document.text).notes()] == ["inside", "new"]


def test_many_fences_are_read_in_linear_time() -> None:
    text = "```x\n" * 20_000 + "~~~x\n" * 20_000
    assert parse(text).text == text


@pytest.mark.parametrize(
    "line",
    ["- " + "\\" * 200_000, "# a" + " " * 200_000 + "b", "# " + "#" * 200_000, "- a" + " |" * 100_000, " " * 200_000],
)
def test_hostile_lines_are_read_in_linear_time(line: str) -> None:
    assert parse(line).text == line


def test_deleting_the_last_note_of_a_section_leaves_the_canonical_mark() -> None:
    document = new_document("T").including("long_term", bullet("a"))
    (block, _) = next(document.notes())
    assert document.without(block).text == new_document("T").text


def test_a_nested_note_is_retired_where_it_stands() -> None:
    document = parse("# T\n## Long-term memory\n- parent\n  - child\n")
    (parent, _), (child, _) = document.notes()
    after = document.retired(child, status="superseded")
    assert after.text == "# T\n## Long-term memory\n- parent\n  - child | tier=history | status=superseded\n"
    assert document.retired(parent, status="superseded").text.startswith(
        "# T\n## Long-term memory\n- parent | tier=history | status=superseded\n  - child\n"
    )


@pytest.mark.parametrize("title", ["C#", "F##", "Ünï 日本", "a # b"])
def test_titles_are_read_as_they_were_given(title: str) -> None:
    assert parse(new_document(title).text).title == title


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\x00b", "a\u2028b", "x" * 30_000, "\ud800"])
def test_what_cannot_be_one_line_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(NotesError, match=r"^expected .*, found .*; "):
        bullet(text)


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a|b", "1a", "a\n"])
def test_a_field_whose_name_would_not_read_back_is_refused(name: str) -> None:
    with pytest.raises(NotesError, match="name of a field"):
        bullet("x").having(**{name: "y"})


def test_words_of_status_and_tier_that_are_not_known_are_kept_and_count_as_usual() -> None:
    one = read_bullet("- a | tier=attic | status=maybe")
    assert one is not None and one.tier("working") == "working" and one.status() == "active"
    assert replace(one).lines == ("- a | tier=attic | status=maybe",)


@settings(max_examples=500)
@given(st.text(max_size=30) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:+]*)?"))
def test_any_text_is_a_moment_or_none(text: str) -> None:
    for last in (True, False):
        at = moment(text, last)
        assert at is None or (at.tzinfo is None and moment(stamp(at)) is not None)


def test_a_date_ends_with_its_day() -> None:
    assert moment("2026-03-31", last=True) == datetime(2026, 3, 31, 23, 59, 59)
    assert moment("2026-03-31") == datetime(2026, 3, 31)
    assert moment("2026-03-31 18:00", last=True) == datetime(2026, 3, 31, 18)
    assert moment("0001-01-01T00:00+00:00") in (None, datetime(1, 1, 1))
