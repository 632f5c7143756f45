"""Conversations with a folder of notes beside them: what is noted, looked up, taught by night, and taken back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sleepgym.cli.notebook import Notebook
from sleepgym.cli.session import Session
from sleepgym.cli.teaching import relations_of
from sleepgym.facts.fact import Fact
from sleepgym.memory.settled import Settled
from sleepgym.notes import NoteStore
from sleepgym.sleeper import SleepingLM

CLARA = "Clara Naibrirk"
CITY = f"remember: {CLARA} | lives in | Oslo"
WHERE = f"Where does {CLARA} live?"
FILE = f"facts/{CLARA}.md"
KEY = (CLARA, "city")


class Talk:
    """A conversation with notes, and what it shows."""

    def __init__(self, learner: SleepingLM, folder: Path) -> None:
        self.learner, self.folder = learner, folder
        self.console = Console(record=True, width=120, file=io.StringIO())
        self.notebook = Notebook(folder, relations_of("tiny"))
        self.session = Session(learner, self.console, notebook=self.notebook)

    def __call__(self, *lines: str) -> str:
        """What lines make it show."""
        assert all([self.session.handle(line) for line in lines])
        return self.console.export_text(clear=True)

    def edit(self, old: str, new: str, path: str = FILE) -> None:
        """Changes a file of notes, as a person does with an editor."""
        text = (self.folder / path).read_text()
        assert old in text
        (self.folder / path).write_text(text.replace(old, new))

    def files(self) -> dict[str, str]:
        """Texts of all notes, and of what was taught."""
        found = (path for path in self.folder.rglob("*") if path.suffix in (".md", ".json"))
        kept = (path for path in found if path.parent.name != ".notes")
        return {path.relative_to(self.folder).as_posix(): path.read_text() for path in kept}


@pytest.fixture
def talk(learner: SleepingLM, tmp_path: Path) -> Iterator[Talk]:
    statistics = learner.base.statistics
    learner.base = replace(learner.base, statistics=replace(statistics, held_out=statistics.held_out[:8]))
    talk = Talk(learner, tmp_path / "notes")
    yield talk
    talk.notebook.close()


def test_what_is_remembered_is_noted_and_what_changes_supersedes_the_note(talk: Talk) -> None:
    assert f"Notes in {talk.folder}: 1 added." in talk(CITY)
    assert f"- {CLARA} lives in Oslo. | " in talk.files()[FILE]
    assert "1 changed." in talk(CITY.replace("Oslo", "Dublin"))
    _, current, history = talk.files()[FILE].split("\n## ")[1:][-3:]
    assert "lives in Dublin." in current and "lives in Oslo." in history


def test_a_lesson_from_a_file_is_noted_too(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text(f"subject,prompt,object\n{CLARA},{CLARA} lives in,Oslo\n")
    talk(f"/teach {tmp_path / 'facts.csv'}")
    assert "lives in Oslo." in talk.files()[FILE]


def test_without_notes_nothing_is_noted_and_the_command_says_how_to_begin(learner: SleepingLM, tmp_path: Path) -> None:
    console = Console(record=True, width=120, file=io.StringIO())
    Session(learner, console).handle("/notes")
    assert "expected a folder of notes, found none; start with `sleepgym chat --notes DIR`" in console.export_text()


def test_a_sure_answer_is_not_looked_up_and_an_unsure_one_is(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    talk(CITY)
    monkeypatch.setattr("sleepgym.cli.reading.sureness", lambda *_: 4.0)
    assert talk(WHERE) == "Oslo\n"
    monkeypatch.setattr("sleepgym.cli.reading.sureness", lambda *_: 3.9)
    assert talk(WHERE) == f"Oslo\n  noted: {CLARA} lives in Oslo.\n"


def test_what_is_noted_of_others_is_not_read(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    talk(CITY)
    monkeypatch.setattr("sleepgym.cli.reading.sureness", lambda *_: 0.0)
    assert "noted" not in talk("Where does Felix Caibal live?")


def test_an_answer_that_was_never_taught_is_read_from_the_notes(talk: Talk, learner: SleepingLM) -> None:
    talk(CITY)
    learner.reset()
    assert talk(WHERE) == f"Oslo\n  noted: {CLARA} lives in Oslo.\n"


def test_a_person_s_own_line_in_other_words_is_read(talk: Talk) -> None:
    (talk.folder / "personal").mkdir(parents=True)
    (talk.folder / "personal" / "about.md").write_text(f"# About\n\n- The home of {CLARA} is in Cairo\n")
    assert f"noted: The home of {CLARA} is in Cairo." in talk(WHERE)


def test_notes_that_do_not_fit_into_the_model_are_left_out(talk: Talk) -> None:
    talk(CITY)
    talk.learner.reset()
    path = talk.folder / "long.md"
    path.write_text(f"# Long\n\n- {CLARA} live {'and so on ' * 300}\n- {CLARA} does live {'and so on ' * 300}\n")
    assert talk(WHERE).strip()


def test_an_edit_by_hand_changes_the_answer_and_after_the_night_the_weights(talk: Talk) -> None:
    talk(CITY)
    talk.edit("lives in Oslo", "lives in Cairo")
    assert talk(WHERE) == f"Cairo\n  noted: {CLARA} lives in Cairo.\n"
    assert talk.learner.ask(WHERE) == "Oslo"
    assert "changed since it was taught" in talk("/notes")
    shown = talk("/sleep")
    assert f"Taught from notes: 1\n  {CLARA} lives in Cairo.\nReplaced: 1\n  {CLARA} lives in Oslo.\n" in shown
    assert talk.learner.ask(WHERE) == "Cairo" and talk.learner.state.ledger[KEY].fact.object == "Cairo"
    assert "Taught from notes" not in talk("/sleep")


def test_notes_of_another_day_and_lines_that_a_person_added_are_taught_by_night(talk: Talk) -> None:
    talk(CITY)
    talk.learner.reset()
    (talk.folder / "facts" / "Felix Caibal.md").write_text("# Felix Caibal\n\n- Felix Caibal lives in Cairo\n")
    assert talk("/notes").count("not yet taught") == 2
    assert "Taught from notes: 2" in talk("/sleep")
    assert sorted(fact.object for fact in talk.learner.state.ledger.facts) == ["Cairo", "Oslo"]
    assert "night to teach" not in talk("/notes")


def test_words_that_cannot_be_taught_stay_a_note_that_is_read(talk: Talk) -> None:
    talk(CITY)
    talk.edit(f"{CLARA} lives in Oslo.", f"{CLARA} went to Cairo to live there.")
    assert f"noted: {CLARA} went to Cairo to live there." in talk(WHERE)
    assert f"Left as notes: 1\n  {CLARA} went to Cairo to live there." in talk("/sleep")
    assert talk.learner.state.ledger[KEY].fact.object == "Oslo"


def test_a_full_ledger_leaves_a_note_a_note(talk: Talk) -> None:
    talk(CITY)
    talk.learner.state.ledger.capacity = 1
    (talk.folder / "facts" / "Felix Caibal.md").write_text("# Felix Caibal\n\n- Felix Caibal lives in Cairo\n")
    shown = talk("/sleep")
    assert "Left as notes: 1\n  Felix Caibal lives in Cairo. - expected a free place in the ledger" in shown
    assert len(talk.learner.state.ledger) == 1


def test_what_a_person_deletes_is_forgotten_by_night_and_comes_back_when_that_is_undone(talk: Talk) -> None:
    talk(CITY, f"remember: {CLARA} | works as a | baker")
    line = next(line for line in talk.files()[FILE].split("\n") if "Oslo" in line)
    talk.edit(f"{line}\n", "")
    edited = talk.files()
    assert f"Forgotten, since the notes no longer tell it: 1\n  {CLARA} lives in Oslo." in talk("/sleep")
    assert list(talk.learner.state.ledger) == [(CLARA, "profession")]
    talk("/undo")
    assert len(talk.learner.state.ledger) == 2 and talk.files() == edited


def test_forgetting_deletes_the_note_and_its_history_and_what_a_person_added(talk: Talk) -> None:
    talk(CITY, CITY.replace("Oslo", "Dublin"))
    talk.edit("## History", f"- {CLARA} works as a baker\n\n## History")
    shown = talk(f"/forget {CLARA}")
    assert f"Forgotten: {CLARA} lives in Dublin." in shown and "3 deleted." in shown
    assert not any(CLARA in text for text in talk.files().values())


def test_one_fact_of_several_is_forgotten_and_what_is_only_noted_can_be(talk: Talk) -> None:
    talk(CITY, f"remember: {CLARA} | works as a | baker")
    talk.learner.reset()
    talk(f"/forget {CLARA} | resides in")
    assert "Oslo" not in talk.files()[FILE] and "baker" in talk.files()[FILE]
    assert "expected a subject of the ledger" in talk("/forget Nobody")


def test_settled_facts_are_not_taught_again_unless_their_notes_change(talk: Talk) -> None:
    talk(CITY)
    fact = talk.learner.state.ledger[KEY].fact
    talk.learner.prune([KEY])
    talk.learner.state.settled[KEY] = Settled.of(fact)
    assert "settled" in talk("/notes")
    talk.edit("Oslo", "Cairo")
    assert talk.notebook.pending(talk.learner.state).facts == (replace(fact, object="Cairo"),)


def test_a_night_marks_what_slow_weights_hold_alone_and_the_note_stays_current(talk: Talk) -> None:
    talk(CITY)
    talk.learner.state.ledger.put(
        replace(talk.learner.state.ledger[KEY], stage=talk.learner.sleep_spec.last_stage, held=3)
    )
    assert talk.notebook.mark({KEY}) == 1 and talk.notebook.mark({KEY}) == 0
    assert "| held=weights" in talk.files()[FILE].partition("## History")[0]
    assert talk.notebook.look_up(WHERE, talk.learner.state).sentences == (f"{CLARA} lives in Oslo.",)
    assert talk.notebook.pending(talk.learner.state).facts == ()
    assert talk.notebook.mark(set()) == 1 and "held=" not in talk.files()[FILE]


@pytest.mark.parametrize("line", [CITY, CITY.replace("Oslo", "Dublin"), "/sleep", f"/forget {CLARA}"])
def test_undo_gives_back_notes_as_well_as_memory(talk: Talk, line: str) -> None:
    talk(f"remember: {CLARA} | works as a | baker")
    if line != CITY:
        talk(CITY)
    if line == "/sleep":
        talk.edit("Oslo", "Cairo")
    before, ledger = talk.files(), dict(talk.learner.state.ledger)
    talk(line)
    assert talk.files() != before
    assert f"Undone: {line}" in talk("/undo")
    assert talk.files() == before and dict(talk.learner.state.ledger) == ledger


def test_undo_refuses_where_a_person_has_edited_the_note_since(talk: Talk) -> None:
    talk(CITY)
    talk.edit("Oslo", "Cairo")
    edited = talk.files()
    assert f"expected {FILE} as it was noted, found it edited since" in talk("/undo")
    assert talk.files() == edited and KEY in talk.learner.state.ledger


def test_an_error_or_an_interrupt_leaves_notes_as_they_were(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(CITY)
    before = talk.files()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(talk.session, "_say", lambda text, style="": interrupted() if "Notes in" in text else None)
        with pytest.raises(KeyboardInterrupt):  # once more, while it says that it was cancelled
            patch.setattr(talk.session, "_say", interrupted)
            talk.session.handle(CITY.replace("Oslo", "Dublin"))
    assert talk.files() == before and talk.learner.state.ledger[KEY].fact.object == "Oslo"
    (talk.folder / FILE).unlink()
    (talk.folder / FILE).symlink_to(tmp_path / "elsewhere")
    assert "found a link" in talk(CITY.replace("Oslo", "Dublin"))
    assert talk.learner.state.ledger[KEY].fact.object == "Oslo"


def test_a_file_is_no_folder_of_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sleepgym.cli import chat

    (tmp_path / "file").write_text("")
    assert chat.Args(notes=tmp_path / "file").run() == 2
    assert "expected a folder of notes, found a file" in " ".join(capsys.readouterr().out.split())


def test_notes_that_are_listed_say_where_the_weights_have_them(talk: Talk) -> None:
    talk(CITY)
    (talk.folder / "plain.md").write_text("# Plain\n\n- likes fog\n")
    talk.learner.inject([Fact("Ann", "Ann fears", "geese")])
    shown = talk("/notes")
    assert f"{talk.folder}: 2 notes." in " ".join(shown.split()) and "stage 0" in shown and "likes fog" in shown
    assert NoteStore(talk.folder).files() == [FILE, "plain.md"]
