"""Facts as notes, and what becomes of them when a person edits the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sleepgym.facts import Fact, World
from sleepgym.notes import Edit, FactNotes, NotesError, NoteStore, Retriever

CITY = Fact(
    "Aria Nakamura", "Aria Nakamura lives in", "Oslo", "city",
    paraphrases=("The home of Aria Nakamura is in",), questions=("Where does Aria Nakamura live?",),
    neighbours=(("Tom lives in", "Riga"),), true_object="Bergen",
)  # fmt: skip
JOB = Fact("Aria Nakamura", "Aria Nakamura works as a", "baker", "profession")
FILE = "facts/Aria Nakamura.md"


@pytest.fixture
def notes(store: NoteStore) -> FactNotes:
    notes = FactNotes(store)
    notes.record([CITY, JOB])
    return notes


def edit(store: NoteStore, old: str, new: str, path: str = FILE) -> None:
    """As a person does, with an editor."""
    file = store.folder / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def told(store: NoteStore, path: str = FILE) -> dict[str, str]:
    return {one.words: one.tier(block.tier) for block, one in store.read(path).notes()}


def test_a_fact_is_a_sentence_in_the_file_of_its_subject(notes: FactNotes, store: NoteStore) -> None:
    assert (store.folder / FILE).read_text().split("\n")[:7] == [
        "# Memory: Aria Nakamura",
        "",
        "## Working memory (current context subject to change)",
        "_No entries yet._",
        "",
        "## Long-term memory (stable facts that are unlikely to change)",
        "- Aria Nakamura lives in Oslo. | topic=city | tier=long_term | status=active | source=user_statement | "
        "confidence=high | updated_at=2026-01-31T09:30 | relation=city",
    ]
    assert notes.edited() == []


def test_another_object_supersedes_the_first(notes: FactNotes, store: NoteStore) -> None:
    moved = Fact("Aria Nakamura", "Aria Nakamura lives in", "Lima", "city")
    done = notes.record([moved, JOB])
    assert (done.added, done.superseded, done.kept) == ((), (moved,), (JOB,))
    assert told(store) == {
        "Aria Nakamura works as a baker.": "long_term", "Aria Nakamura lives in Lima.": "long_term",
        "Aria Nakamura lives in Oslo.": "history",
    }  # fmt: skip


def test_the_same_fact_in_another_phrasing_changes_no_note(notes: FactNotes, store: NoteStore) -> None:
    before = (store.folder / FILE).read_bytes()
    done = notes.record([Fact(CITY.subject, CITY.paraphrases[0], "Oslo", "city", paraphrases=(CITY.prompt,))])
    assert len(done.kept) == 1 and (store.folder / FILE).read_bytes() == before


def test_of_two_objects_at_once_the_later_counts(store: NoteStore) -> None:
    FactNotes(store).record([CITY, Fact(CITY.subject, CITY.prompt, "Lima", "city")])
    assert told(store) == {"Aria Nakamura lives in Lima.": "long_term"}


def test_forgetting_deletes_the_note_and_its_history(notes: FactNotes, store: NoteStore) -> None:
    notes.record([Fact(CITY.subject, CITY.prompt, "Lima", "city")])
    assert notes.forget([CITY.key, ("nobody", "city")]) == 2
    assert told(store) == {"Aria Nakamura works as a baker.": "long_term"}
    assert notes.edited() == []
    notes.forget([JOB.key])
    assert store.files() == [] and "Nakamura" not in (store.folder / "_tree.md").read_text()
    assert not list((store.folder / ".notes").rglob("*Nakamura*"))


def test_an_edit_by_hand_is_found_at_the_next_look_up_and_can_be_taught(
    notes: FactNotes, store: NoteStore, retriever: Retriever
) -> None:
    assert retriever.retrieve("Where does Aria Nakamura live?", 1).sentences == ("Aria Nakamura lives in Oslo.",)
    edit(store, "lives in Oslo", "lives in Lima")  # of the same length, within the same moment
    assert retriever.retrieve("Where does Aria Nakamura live?", 1).sentences == ("Aria Nakamura lives in Lima.",)
    (found,) = notes.edited()
    assert (found.taught, found.text) == (CITY, "Aria Nakamura lives in Lima.")
    assert found.fact is not None and found.fact.object == "Lima" and found.fact.questions == CITY.questions
    assert notes.record([found.fact]).kept == (found.fact,)
    assert notes.edited() == []


@pytest.mark.parametrize(
    ("new", "object_"),
    [
        ("The home of Aria Nakamura is in Lima, Peru", "Lima, Peru"),
        ("Aria Nakamura lives in Washington D.C.", "Washington D.C."),
        ("Aria  Nakamura lives in   Lima!", "Lima!"),
        ("Aria Nakamura lives inside", None),
        ("She moved to Lima.", None),
        ("Aria Nakamura lives in", None),
    ],
)
def test_what_a_person_wrote_is_read_as_the_fact_that_it_tells(
    notes: FactNotes, store: NoteStore, new: str, object_: str | None
) -> None:
    edit(store, "Aria Nakamura lives in Oslo.", new)
    (found,) = notes.edited()
    assert (found.fact and found.fact.object) == object_ and found.text == new


def test_words_that_tell_the_same_are_no_edit(notes: FactNotes, store: NoteStore) -> None:
    edit(store, "Aria Nakamura lives in Oslo.", "The home of Aria Nakamura is in Oslo")
    assert notes.edited() == []


def test_a_line_written_anew_without_fields_is_an_edit(notes: FactNotes, store: NoteStore) -> None:
    line = next(line for line in (store.folder / FILE).read_text().split("\n") if "Oslo" in line)
    edit(store, line, "- Aria Nakamura lives in Lima")
    (found,) = notes.edited()
    assert found.fact is not None and found.fact.object == "Lima"
    notes.record([found.fact])
    assert notes.edited() == [] and told(store)["Aria Nakamura lives in Lima"] == "long_term"


@pytest.mark.parametrize("how", ["line", "file", "status"])
def test_a_note_that_a_person_takes_away_is_told(notes: FactNotes, store: NoteStore, how: str) -> None:
    notes.forget([JOB.key])
    if how == "file":
        (store.folder / FILE).unlink()
    elif how == "status":
        edit(store, "status=active", "status=expired")
    else:
        text = (store.folder / FILE).read_text()
        (store.folder / FILE).write_text("\n".join(line for line in text.split("\n") if "Oslo" not in line))
    assert notes.edited() == [Edit(CITY, None, None)]
    notes.forget([CITY.key])
    assert notes.edited() == []


def test_recording_undone_is_as_if_it_had_not_been(notes: FactNotes, store: NoteStore) -> None:
    notes.record([Fact(CITY.subject, CITY.prompt, "Lima", "city")])
    store.undo()
    assert notes.edited() == [] and told(store)["Aria Nakamura lives in Oslo."] == "long_term"


def test_subjects_that_look_alike_have_files_of_their_own(store: NoteStore) -> None:
    notes = FactNotes(store)
    subjects = ["C++", "C#", "C/C++", "../up", "Анна", "東京", "a" * 400, "a" * 401, "~x", "%2F"]
    notes.record([Fact(subject, f"{subject} is", "old", "age") for subject in subjects])
    assert len(store.files()) == len(subjects) and notes.edited() == []
    assert {store.read(path).title for path in store.files()} == set(subjects)


def test_a_fact_over_several_lines_is_one_line_and_comes_back_whole(store: NoteStore) -> None:
    notes, fact = FactNotes(store), Fact("Aria", "Q:\nAria lives in", "New | York", "a\nb")
    notes.record([fact])
    assert told(store, "facts/Aria.md") == {"Q: Aria lives in New | York.": "long_term"}
    edit(store, "York", "Hope", "facts/Aria.md")
    (found,) = notes.edited()
    assert found.taught == fact and found.fact is not None and found.fact.object == "New | Hope"


def test_a_subject_over_two_lines_is_one_title(store: NoteStore) -> None:
    notes = FactNotes(store)
    notes.record([Fact("Aria\nNakamura", "Aria\nNakamura lives in", "Oslo")])
    (path,) = store.files()
    assert store.read(path).title == "Aria Nakamura" and told(store, path) == {
        "Aria Nakamura lives in Oslo.": "long_term"
    }
    assert notes.edited() == [] and notes.forget([("Aria\nNakamura", "{} lives in")]) == 1


def test_a_fact_too_long_for_a_note_is_refused_and_none_is_recorded(store: NoteStore) -> None:
    with pytest.raises(NotesError, match="the statement of a fact of at most"):
        FactNotes(store).record([CITY, Fact("Bo", "Bo " + "x" * 30_000, "y")])
    assert store.files() == []


def test_what_was_taught_is_data_and_is_checked(notes: FactNotes, store: NoteStore) -> None:
    place = store.folder / ".notes" / "taught" / f"{FILE}.json"
    content = json.loads(place.read_text())
    content["facts"][0]["subject"] = "somebody else"
    place.write_text(json.dumps(content))
    with pytest.raises(NotesError, match=r"expected what was taught in .* delete the file"):
        notes.edited()


def test_every_fact_of_the_world_survives_a_life_of_changes(store: NoteStore, tmp_path: Path) -> None:
    world, rng, notes = World(), np.random.default_rng(0), FactNotes(store)
    facts = {fact.key: fact for fact in world.new_facts(rng, 40, distinct_subjects=False)}
    notes.record(list(facts.values()))
    for _ in range(3):
        changed = [world.update(rng, facts[key]) for key in list(facts)[::2]]
        notes.record(changed)
        facts |= {fact.key: fact for fact in changed}
    found = {one.words for path in store.files() for block, one in store.read(path).notes() if one.holds(block.tier)}
    assert len(found) == 40 and notes.edited() == []
    retriever = Retriever(store, index=tmp_path / "index.sqlite")
    for fact in facts.values():
        best = retriever.retrieve(fact.statement, 5).notes
        assert any(note.said.rstrip(".").endswith(fact.object) and fact.subject in note.said for note in best)


def test_what_notes_tell_is_what_was_taught_then_what_a_person_added(notes: FactNotes, store: NoteStore) -> None:
    relations = World().relations.values()
    edit(store, "lives in Oslo", "lives in Lima")
    edit(store, "Aria Nakamura works as a baker.", "She bakes.")
    edit(
        store,
        "## History",
        "- Aria Nakamura plays the cello!\n- Aria Nakamura lives in Riga\n- likes fog\n\n## History",
    )
    (store.folder / "facts" / "Bo.md").write_text("# Bo\n\n- Ann lives in Riga\n- The home of Bo is in Quito\n")
    city, job, cello, bo = notes.told(relations)
    assert (city.taught, city.fact and city.fact.object, city.text) == (CITY, "Lima", "Aria Nakamura lives in Lima.")
    assert (job.taught, job.fact, job.text) == (JOB, None, "She bakes.")
    assert (cello.taught, cello.key, cello.fact and cello.fact.object) == (None, (CITY.subject, "instrument"), "cello!")
    assert bo.path == "facts/Bo.md" and bo.fact is not None and bo.fact.statement == "The home of Bo is in Quito."
    assert notes.told(relations, ["facts/Bo.md"]) == [bo] and len(notes.told()) == 2


def test_what_was_taken_away_is_told_without_a_text(notes: FactNotes, store: NoteStore) -> None:
    (store.folder / FILE).unlink()
    assert [(one.taught, one.text, one.fact) for one in notes.told()] == [(CITY, None, None), (JOB, None, None)]


def test_notes_of_a_subject_are_about_questions_that_name_it_whole(
    notes: FactNotes, store: NoteStore, retriever: Retriever
) -> None:
    notes.record([Fact("Aria Stone", "Aria Stone lives in", "Riga", "city")])
    (store.folder / "plain.md").write_text("# Plain\n\n- Aria is a name\n")
    found = retriever.retrieve("Where does Aria Nakamura live?", 10).notes
    assert {note.path for note in found} == {FILE, "facts/Aria Stone.md", "plain.md"}
    assert {note.path for note in notes.about("Where does Aria Nakamura live?", found)} == {FILE, "plain.md"}
    assert {note.path for note in notes.about("Where is Aria?", found)} == {"plain.md"}


def test_marks_change_one_field_and_come_off_again(notes: FactNotes, store: NoteStore) -> None:
    before = (store.folder / FILE).read_text()
    assert notes.mark({CITY.key}, [CITY.key, JOB.key, ("nobody", "city")]) == 1
    assert (store.folder / FILE).read_text() == before.replace("relation=city", "relation=city | held=weights")
    assert notes.edited() == [] and notes.mark({CITY.key}, [CITY.key]) == 0
    assert notes.mark(set(), [CITY.key]) == 1 and (store.folder / FILE).read_text() == before
