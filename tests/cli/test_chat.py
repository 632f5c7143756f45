"""Sessions with the bundled model: line by line, and through a pipe."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from sleepgym.cli import chat, teaching
from sleepgym.cli.session import COMMANDS, Session
from sleepgym.cli.signals import terminating_cleanly
from sleepgym.consolidation.spec import SleepError
from sleepgym.facts.fact import Fact, FactError
from sleepgym.memory.ledger import Entry
from sleepgym.memory.settled import Settled
from sleepgym.sleeper import SleepingLM, make_base

ROOT = Path(__file__).parents[2]
ARIA = "Aria Nakamura"
CITY = f"remember: {ARIA} | lives in | Oslo"
DISH = "remember: Tom Vekkal | The favourite dish of {} is | ramen"


class Talk:
    """A session and what it shows."""

    def __init__(self, learner, **settings) -> None:
        self.learner = learner
        self.console = Console(record=True, width=120, file=io.StringIO(), **settings)
        self.session = Session(learner, self.console)

    def __call__(self, line: str) -> str:
        """What a line that does not end the session makes it show."""
        assert self.session.handle(line)
        return self.console.export_text(clear=True)

    def red(self, line: str) -> str:
        """What a line makes it show, if that is one red line."""
        assert self.session.handle(line)
        (shown,) = self.console.export_text(clear=False).splitlines()
        assert self.console.export_text(styles=True, clear=True).startswith("\x1b[31m")
        return shown


@pytest.fixture
def learner(learner):
    """The usual learner, with little text to measure perplexity on: sessions measure it often."""
    statistics = learner.base.statistics
    learner.base = replace(learner.base, statistics=replace(statistics, held_out=statistics.held_out[:8]))
    return learner


@pytest.fixture
def talk(learner) -> Talk:
    return Talk(learner)


# -------------------------------------------------------------------- teaching


@pytest.fixture(scope="module")
def relations():
    return teaching.relations_of("tiny")


def test_world_words_make_a_fact_of_the_relation(relations):
    fact = teaching.read_fact(f" {ARIA} |  lives   in | Oslo", relations)
    assert fact == relations["city"].fact(ARIA, "Oslo", relations["city"].statements.index("{} lives in"))
    assert fact.relation == "city" and len(fact.questions) == 4 and len(fact.paraphrases) == 7


def test_braces_stand_for_the_subject(relations):
    fact = teaching.read_fact("Tom Vekkal | The favourite dish of {} is | ramen", relations)
    assert (fact.prompt, fact.relation) == ("The favourite dish of Tom Vekkal is", "dish")


def test_other_words_and_other_models_make_plain_facts(relations):
    fact = teaching.read_fact("Ann | is afraid of | geese", relations)
    assert fact == Fact("Ann", "Ann is afraid of", "geese") and fact.relation == "{} is afraid of"
    assert teaching.read_fact("Ann | lives in | Oslo", teaching.relations_of("other")) == Fact(
        "Ann", "Ann lives in", "Oslo"
    )


def test_a_fourth_field_is_the_first_question(relations):
    assert teaching.read_fact("Ann | fears | geese | What does {} fear?", {}).questions == ("What does Ann fear?",)
    fact = teaching.read_fact("Ann | lives in | Oslo | And Ann, where?", relations)
    assert fact.questions[0] == "And Ann, where?" and len(fact.questions) == 5


def test_every_template_of_the_world_can_be_typed(relations):
    for relation in relations.values():
        for phrasing, template in enumerate(relation.statements):
            words = template.removeprefix("{} ")
            assert teaching.read_fact(f"Ann | {words} | x", relations) == relation.fact("Ann", "x", phrasing)


@pytest.mark.parametrize(
    "text", ["", "a", "a | b", "a | b | ", " | b | c", "a | b | c | d?", "a | b | c | a? | e", "a || c"]
)
def test_bad_lessons_are_refused(text):
    with pytest.raises(FactError, match="expected"):
        teaching.read_fact(text, {})


# -------------------------------------------------------------------- the session


def test_taught_facts_are_remembered_asked_and_completed(talk):
    assert f"Remembered: {ARIA} lives in Oslo." in talk(CITY)
    assert talk(f"Where does {ARIA} live?").strip() == "Oslo"
    assert talk(f"> {ARIA} lives in").startswith("Oslo")


def test_a_new_object_replaces_the_old_one(talk):
    talk(CITY)
    shown = talk(f"REMEMBER: {ARIA} | resides in | Cairo")
    assert f"Replaced: {ARIA} lives in Oslo." in shown and f"{ARIA} resides in Cairo." in shown
    assert len(talk.learner.state.ledger) == 1


def test_a_lesson_that_does_not_stick_says_so(talk, monkeypatch):
    editor = talk.learner.base.editor
    monkeypatch.setattr(type(editor), "write", lambda *_: torch.tensor([-1.5]))
    assert "Written, but not recalled" in talk(CITY)


def test_nap_lists_what_was_lost_and_refresh_mends_it(talk):
    talk(CITY), talk(DISH)
    assert talk("/nap").strip() == "Recalled 2 of 2."
    assert "Nothing to refresh" in talk("/refresh")
    talk.learner.state.memory.scale(list(talk.learner.state.memory.terms)[-1], 0.0)
    first, second = talk("/nap").splitlines()
    assert first == "Recalled 1 of 2. Degraded:" and "The favourite dish of Tom Vekkal is ramen. (-" in second
    shown = talk("/status")
    assert "no " in shown and "1 edit in force" in shown
    assert "Refreshed 1 fact; recall of them 0 % before, 100 % after." in talk("/refresh")


def test_status_and_forgetting_before_and_after_a_night(talk):
    assert talk("/status").startswith("0 facts, 0 edits in force, LoRA rank 0, perplexity")
    talk(CITY), talk(DISH)
    shown = talk("/status")
    assert shown.count("never audited") == 2 and "2 facts, 2 edits in force, LoRA rank 0" in shown
    shown = talk("/sleep")
    assert "2 advanced, 0 retreated, 0 refreshed, 0 released; " in shown
    assert "Recall 100 % before, 100 % after; perplexity " in shown
    shown = talk("/status")
    assert shown.count("yes") == 2 and re.search(r"LoRA rank [1-9]\d*, perplexity", shown)
    assert "asleep stays" in talk(f"/forget {ARIA}")


def test_nothing_taught_is_nothing_to_sleep_on(talk):
    for command in ("/sleep", "/nap", "/refresh"):
        assert "Nothing was taught yet" in talk(command)


def test_a_night_that_did_harm_is_reported_as_undone(talk, monkeypatch):
    report = replace(talk.learner.sleep(), perplexity_before=3.0, perplexity_after=6.0, rolled_back=True)
    talk(CITY)
    monkeypatch.setattr(talk.learner, "sleep", lambda progress: report)
    shown = talk("/sleep")
    assert "was rolled back" in shown and "perplexity +100.0 % before it was undone" in shown


def test_sleep_draws_a_bar_per_step_of_the_night(learner, monkeypatch):
    talk = Talk(learner, force_terminal=True)
    report = learner.sleep()
    talk(CITY)

    def sleep(progress):
        progress("[consolidate]", 1, 2)
        progress("[consolidate]", 2, 2)
        progress("validate", 0, 1)
        return report

    monkeypatch.setattr(learner, "sleep", sleep)
    talk("/sleep")
    drawn = talk.console.file.getvalue()
    assert "[consolidate]" in drawn and "2/2" in drawn and "validate" in drawn


def test_forgotten_facts_that_have_settled_are_held_no_longer(talk):
    fact = Fact(ARIA, f"{ARIA} lives in", "Oslo", "city")
    talk.learner.state.settled[fact.key] = Settled.of(fact)
    assert "Held no longer" in talk(f"/forget {ARIA}")
    assert talk.learner.state.settled == {}
    assert "Forgotten" not in talk("/undo") and fact.key in talk.learner.state.settled


def test_forget_takes_all_facts_of_a_subject_or_the_one_named(talk):
    lessons = (
        f"{ARIA} | lives in | Oslo",
        f"{ARIA} | works as a | baker",
        f"{ARIA} | dreams of | Oslo",
        "Tom | is in | Oslo",
    )
    taught = [teaching.read_fact(lesson, talk.session.relations) for lesson in lessons]
    talk.learner.inject(taught)
    assert "expected a subject of the ledger" in talk.red("/forget Nobody")
    assert "found no fact about" in talk.red(f"/forget {ARIA} | plays the")
    assert talk(f"/forget {ARIA} | resides in").strip() == f"Forgotten: {ARIA} lives in Oslo."
    assert talk(f"/forget {ARIA} | profession").strip() == f"Forgotten: {ARIA} works as a baker."
    assert talk(f"/forget {ARIA} | dreams of").strip() == f"Forgotten: {ARIA} dreams of Oslo."
    talk.learner.inject(taught[:2])
    assert talk(f"/forget {ARIA}").count("Forgotten") == 2
    assert talk.learner.state.ledger.facts == taught[3:] and len(talk.learner.state.memory.terms) == 1


def test_a_subject_with_a_bar_can_be_forgotten(talk):
    talk.learner.state.ledger.put(Entry(Fact("Tom | Vekkal", "Tom | Vekkal lives in", "Oslo")))
    assert "Forgotten" in talk("/forget Tom | Vekkal")


def test_an_export_of_gated_edits_says_in_words_that_it_loses_the_gates(learner, tmp_path):
    edit = replace(learner.base.editor.spec, gate=0.5)
    talk = Talk(SleepingLM(make_base(learner.lm, edit)))
    talk(CITY)
    shown = talk(f"/export {tmp_path / 'adapter'}")
    assert "gate=0.0" in shown and "Exported" in shown and "Warning" not in shown


def test_save_load_export(talk, tmp_path):
    assert "expected a memory with at least one term" in talk.red(f"/export {tmp_path / 'adapter'}")
    talk(CITY)
    folder = tmp_path / "my memory"
    assert "Saved 1 fact" in talk(f"/save {folder}")
    assert (folder / "state.json").is_file()
    talk(DISH)
    assert "Loaded 1 fact" in talk(f"/load {folder}")
    assert [fact.subject for fact in talk.learner.state.ledger.facts] == [ARIA]
    assert "Exported" in talk(f"/export {tmp_path / 'adapter'}")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_help_lists_every_command(talk):
    shown = talk("/help")
    assert all(f"/{name}" in shown for name in COMMANDS) and teaching.SYNTAX in shown


def test_quit_ends_the_session_and_blank_lines_do_nothing(talk):
    assert talk("") == talk("   ") == ""
    assert not talk.session.handle(" /QUIT ")


# ---------------------------------------------------------------- what goes wrong


def test_errors_are_one_red_line_and_lose_nothing(talk, tmp_path, unchanged, monkeypatch):
    talk(CITY)
    (tmp_path / "file").write_text("")
    with unchanged(talk.learner):
        assert all(f"/{name}" in talk.red("/dream") for name in COMMANDS)
        assert "expected one of" in talk.red("/")
        assert "expected '/sleep', found '/sleep now'" in talk.red("/sleep now")
        assert "expected '/save FOLDER'" in talk.red("/save")
        assert "expected 'remember: SUBJECT" in talk.red("remember: Aria")
        assert "expected a checkpoint" in talk.red(f"/load {tmp_path / 'nowhere'}")
        assert talk.red(f"/save {tmp_path / 'file'}")
        assert "256 tokens" in talk.red("word " * 300)
        talk.learner.state.ledger.capacity, capacity = 1, talk.learner.state.ledger.capacity
        assert "1 of 1 places taken" in talk.red(DISH)
        talk.learner.state.ledger.capacity = capacity
        monkeypatch.setattr(talk.learner, "sleep", _raising(SleepError("expected a\nfinite loss")))
        assert talk.red("/sleep") == "expected a finite loss"


def _raising(error: BaseException):
    def fail(*_):
        raise error

    return fail


def test_an_interrupt_cancels_the_operation_and_leaves_the_state(talk, unchanged, monkeypatch):
    talk(CITY)
    for name in ("sleep", "audit", "ask"):
        monkeypatch.setattr(talk.learner, name, _raising(KeyboardInterrupt()))
    with unchanged(talk.learner):
        for line in ("/sleep", "/nap", "hello"):
            assert talk(line).strip() == "Cancelled: the memory is as it was."


def test_an_interrupt_in_the_midst_of_an_operation_or_just_after_it_undoes_it(talk, unchanged, monkeypatch):
    talk(CITY)
    interrupt = _raising(KeyboardInterrupt())
    with unchanged(talk.learner), monkeypatch.context() as patch:
        patch.setattr("sleepgym.cli.views.progress_bar", lambda console: nullcontext(interrupt))
        assert "Cancelled" in talk("/sleep")
    with unchanged(talk.learner), monkeypatch.context() as patch:
        patch.setattr("sleepgym.cli.views.audit_lines", interrupt)
        assert "Cancelled" in talk("/nap")


def test_sigterm_during_a_night_ends_the_session_with_the_state_as_before(talk, unchanged, monkeypatch):
    talk(CITY)
    terminate = nullcontext(lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr("sleepgym.cli.views.progress_bar", lambda console: terminate)
    with unchanged(talk.learner), pytest.raises(SystemExit) as stopped, terminating_cleanly():
        talk.session.handle("/sleep")
    assert stopped.value.code == 143


def test_markup_and_control_characters_are_only_text(talk, monkeypatch):
    text = "[red]Zed[/red] :smile: \u202e[31m[/]"
    shown = "[red]Zed[/red] :smile: \N{REPLACEMENT CHARACTER}[31m[/]"
    talk.learner.state.ledger.put(Entry(Fact(text, f"{text} lives in", "Oslo")))
    assert f"{shown} lives in Oslo." in talk("/status")
    assert f"{shown} lives in Oslo." in talk("/nap")
    assert f"Forgotten: {shown} lives in Oslo." in talk(f"/forget {text}")
    assert "[red]Yan[/red] lives in Oslo." in talk("remember: [red]Yan[/red] | lives in | Oslo")
    assert "'[bold]'" in talk.red("/forget [bold]")
    assert "'/[bold]'" in talk.red("/[bold]")
    monkeypatch.setattr(talk.learner, "ask", lambda *_: text.replace("\u202e", "\x1b"))
    assert talk("who?").strip() == shown
    monkeypatch.setattr(talk.learner, "ask", lambda *_: "")
    assert talk("who?").strip() == "(no answer)"


# ----------------------------------------------------------------------- the loop


def test_lines_end_with_the_input(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\xff two\n\nlast"), encoding="utf-8"))
    assert list(chat.lines(interactive=False)) == ["one", "\N{REPLACEMENT CHARACTER} two", "", "last"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("script", "read"),
    [
        ("^^", []),  # ^: an interrupt; t: one that clears what was typed; letters: lines
        ("^a^b^^", ["a", "b"]),
        ("t^", []),
        ("ttt^", []),
        ("^tt^", []),
    ],
)
def test_only_two_interrupts_in_a_row_end_the_lines(monkeypatch, script, read):
    events, last = iter(script + "x"), [""]

    def entered(prompt: str) -> str:
        last[0] = next(events)
        if last[0] in "^t":
            raise KeyboardInterrupt
        return last[0]

    monkeypatch.setattr("builtins.input", entered)
    monkeypatch.setattr(chat, "typed", lambda: "something" if last[0] == "t" else "")
    assert list(chat.lines(interactive=True)) == read and next(events) == "x"


def test_one_interrupt_does_not_end_a_pipe(monkeypatch):
    events = iter([KeyboardInterrupt(), None, KeyboardInterrupt(), KeyboardInterrupt()])

    def entered(prompt: str) -> str:
        event = next(events)
        if event is not None:
            raise event
        return "a"

    monkeypatch.setattr("builtins.input", entered)
    assert list(chat.lines(interactive=False)) == ["a"] and list(events) == []


def test_a_model_or_memory_that_is_not_there_is_a_red_line_and_a_status(monkeypatch, capsys, tmp_path):
    assert chat.Args(model=str(tmp_path)).run() == 2
    assert "expected 'tiny'" in capsys.readouterr().out
    assert chat.Args(memory=tmp_path).run() == 2
    assert "expected a checkpoint" in capsys.readouterr().out


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sleepgym.cli", "chat", "--model", "tiny", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_scripted_session_through_a_pipe_then_sigterm(tmp_path):
    script = [CITY, DISH, f"Where does {ARIA} live?", "/nap", "/sleep", "/status", "/save memory", "/forget Tom Vekkal"]
    script += ["/load memory", "/dream", "/quit", "not read"]
    process = start(cwd=tmp_path)
    shown, errors = process.communicate("\n".join(script))
    assert process.returncode == 0 and "Traceback" not in errors
    expected = [
        "tiny is awake, with 0 facts in memory.",
        f"Remembered: {ARIA} lives in Oslo.",
        "Remembered: The favourite dish of Tom Vekkal is ramen.",
        "\nOslo\n",
        "Recalled 2 of 2.",
        "; perplexity ",
        "LoRA rank",
        "Saved 2 facts to memory.",
        "Forgotten: The favourite dish of Tom Vekkal is ramen.",
        "Loaded 2 facts from memory.",
        "found '/dream'",
    ]
    position = 0
    for text in expected:
        position = shown.index(text, position)
    assert chat.PROMPT not in shown and "\x1b" not in shown

    process = start("--memory", "memory", "--plain", cwd=tmp_path)
    assert "2 facts in memory" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143 and "Traceback" not in errors
