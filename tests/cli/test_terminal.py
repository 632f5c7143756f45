"""What a session survives, what it shows of any text, files of facts, undoing, and names of commands."""

# ruff: noqa: RUF001 - the characters of other scripts are what this is about

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import TemplateError
from rich.console import Console
from transformers import AutoModelForCausalLM

from sleepgym.cli import completion, teaching, views
from sleepgym.cli.history import LEVELS, History
from sleepgym.cli.session import COMMANDS, Session
from sleepgym.cli.streams import read_anything, write_anything
from sleepgym.facts import FactError

ROOT = Path(__file__).parents[2]
CITY = "remember: Aria Nakamura | lives in | Oslo"
DISH = "remember: Tom Vekkal | The favourite dish of {} is | ramen"


class Talk:
    """A session and what it shows."""

    def __init__(self, learner) -> None:
        self.learner = learner
        self.console = Console(record=True, width=200, file=io.StringIO())
        self.session = Session(learner, self.console)

    def __call__(self, line: str) -> str:
        assert self.session.handle(line)
        return self.console.export_text(clear=True)

    def red(self, line: str) -> str:
        """What a line makes it show, if that is one red line."""
        assert self.session.handle(line)
        (shown,) = self.console.export_text(clear=False).splitlines()
        assert self.console.export_text(styles=True, clear=True).startswith("\x1b[31m")
        return shown


@pytest.fixture
def talk(learner) -> Talk:
    return Talk(learner)


def raising(error: BaseException):
    def fail(*_, **__):
        raise error

    return fail


# ---------------------------------------------------------------- any failure


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (TemplateError("roles must\nalternate"), "TemplateError: roles must alternate"),
        (IndexError("index out of range in self"), "IndexError: index out of range in self"),
        (MemoryError(), "MemoryError"),
        (KeyError("user"), "KeyError: user"),
        (RuntimeError("CUDA error"), "RuntimeError: CUDA error"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), "UnicodeEncodeError: "),
        (AssertionError(), "AssertionError"),
        (StopIteration(), "StopIteration"),
        (FactError("expected a fact"), "expected a fact"),
        (ZeroDivisionError("\x1b[2J[red]"), "ZeroDivisionError: \N{REPLACEMENT CHARACTER}[2J[red]"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_of_any_kind_is_one_red_line_and_changes_nothing(talk, unchanged, monkeypatch, error, shown):
    talk(CITY)
    for name in ("ask", "generate", "sleep", "audit", "inject", "save", "export_merged"):
        monkeypatch.setattr(talk.learner, name, raising(error))
    with unchanged(talk.learner):
        for line in ("who?", "> Aria", "/sleep", "/nap", DISH, "/save x", "/merge x"):
            assert talk.red(line).startswith(shown)
    assert len(talk.session.history) == 1


def test_an_error_after_the_memory_was_changed_puts_it_back(talk, unchanged, monkeypatch):
    talk(CITY)
    monkeypatch.setattr("sleepgym.cli.views.margin", raising(LookupError("late")))
    with unchanged(talk.learner):
        assert talk.red(DISH) == "LookupError: late"


def test_a_template_that_raises_is_one_red_line(talk, monkeypatch):
    monkeypatch.setattr(talk.learner.lm.tokenizer, "chat_template", "{{ raise_exception('no such role') }}")
    assert "no such role" in talk.red("Where does Aria Nakamura live?")
    assert "Remembered" in talk(CITY)


# -------------------------------------------------------------------- any text


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم", "ക്\u200dഷ", "👩\u200d👩\u200d👧", "❤\ufe0f", "e\u0301", "🏴\U000e0067\U000e0062\U000e007f",
        "20\xa0%", "東\u3000京", "葛\U000e0100", "🫨", "ש\u200fb", "co\u00adop", "\ue0b0",
    ],
)  # fmt: skip
def test_joiners_selectors_marks_and_blanks_are_shown_as_they_are(text):
    assert views.shown(text).plain == text


@pytest.mark.parametrize(
    "steering",
    [*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\x1b", "\x9b", "\x07", "\x08", "\r", "\x00",
     "\x7f", "\u2028", "\ud800"],
    ids=ascii,
)  # fmt: skip
def test_what_steers_a_terminal_is_made_visible(steering):
    assert views.shown(f"a{steering}b").plain == "a\N{REPLACEMENT CHARACTER}b"


def test_streams_take_what_their_encoding_lacks():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    write_anything(out)
    out.write("José \ud800")
    out.flush()
    assert raw.getvalue() == b"Jos\\xe9 \\ud800"
    typed = io.TextIOWrapper(io.BytesIO("José\n".encode() + b"\xff\n"), encoding="ascii")
    read_anything(typed)
    assert typed.readlines() == ["José\n", "\N{REPLACEMENT CHARACTER}\n"]
    latin = io.TextIOWrapper(io.BytesIO("José".encode("latin-1")), encoding="latin-1")
    read_anything(latin)
    assert latin.read() == "José"


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}], ids=str)
def test_a_session_in_ascii_goes_on_after_any_name(tmp_path, settings):
    lines = ["remember: José Müller | lives in | Oslo", "Where does José Müller live?", "می\u200cخواهم 東京", "/status"]
    script = "\n".join([*lines, "/save é", "/help", "/quit"])
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONIO"))}
    environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "120", **settings}
    command = [sys.executable, "-m", "sleepgym", "chat", "--plain"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, input=script.encode(), capture_output=True)
    shown = done.stdout.decode()
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    name = "José Müller" if "José" in shown else "Jos\\xe9 M\\xfcller"
    assert f"{name} lives in Oslo." in shown and "1 fact, 1 edit in force" in shown
    assert (tmp_path / "é" / "state.json").is_file()
    assert shown.index("Saved 1 fact to") < shown.index("/quit")


# --------------------------------------------------------- files of facts, undo


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def fact(subject: str, obj: object = "Oslo") -> dict[str, object]:
    return {"subject": subject, "prompt": "{} lives in", "object": obj}


def test_teach_says_what_was_taught_what_was_left_out_and_why(talk, tmp_path):
    records = [fact("Ann Vekkal"), fact("Bo Lork"), fact("Bo Lork"), fact("Cy", 3), fact("Ann Vekkal", "Riga"), [],
               {**fact("Tom Brenk"), "case_id": 9, "paraphrases": ["Nobody lives in"]}]  # fmt: skip
    file = write(tmp_path / "some facts.jsonl", *records)
    shown = talk(f"/teach {file}")
    assert f"Taught 3 facts from {file}, " in shown and "Repeated: 1 fact, taught once." in shown
    assert "Left out: 2" in shown and "line 4: expected a text in 'object', found 3" in shown and "line 6: " in shown
    assert "Superseded within the file: 1" in shown and "found 'Riga' here and 'Oslo' in" in shown
    assert "Not used of what was taught: 1" in shown and "Keys that are not read: case_id." in shown
    assert [known.object for known in talk.learner.state.ledger.facts] == ["Riga", "Oslo", "Oslo"]
    assert "Replaced: 3" in talk(
        f"/teach {write(file, *(fact(name, 'Cairo') for name in ('Ann Vekkal', 'Bo Lork', 'Tom Brenk')))}"
    )


def test_teach_takes_as_many_as_there_is_room_for(talk, tmp_path):
    talk(CITY)
    talk.learner.state.ledger.capacity = 2
    file = write(
        tmp_path / "f.jsonl", fact("Aria Nakamura", "Cairo"), fact("Bo Lork"), fact("Cy Brenk"), fact("word " * 300)
    )
    shown = talk(f"/teach {file}")
    assert "Left out: 2" in shown and "found all 2 taken" in shown and "256 tokens" in shown
    assert [known.subject for known in talk.learner.state.ledger.facts] == ["Aria Nakamura", "Bo Lork"]


def test_teach_knows_the_relations_of_the_model(talk, tmp_path):
    other = {**fact("Bo Lork", "Cairo"), "prompt": "{} resides in"}
    shown = talk(f"/teach {write(tmp_path / 'f.jsonl', fact('Bo Lork'), other)}")
    assert "Taught 1 fact" in shown and "Bo Lork lives in Oslo. - Bo Lork resides in Cairo." in shown
    (known,) = talk.learner.state.ledger.facts
    assert known.key == ("Bo Lork", "city") and known.questions
    assert "Replaced: Bo Lork resides in Cairo." in talk("remember: Bo Lork | lives in | Riga")


def test_teach_without_a_usable_fact_or_file(talk, tmp_path, unchanged):
    with unchanged(talk.learner):
        assert "expected a readable UTF-8 file" in talk.red(f"/teach {tmp_path / 'nowhere.json'}")
        assert "expected '/teach FILE'" in talk.red("/teach")
        assert "Taught 0 facts" in talk(f"/teach {write(tmp_path / 'f.jsonl', fact('A', 3))}")
        assert len(talk.session.history) == 0


@pytest.mark.slow
def test_undo_goes_back_line_by_line(talk, unchanged, tmp_path):
    assert "Nothing to undo" in talk("/undo")
    with unchanged(talk.learner):
        talk(CITY)
        with unchanged(talk.learner):
            talk(DISH)
            talk("/nap"), talk("who?"), talk("/status"), talk("/forget nobody")
            shown = talk("/undo")
            assert f"Undone: {DISH}" in shown and "1 fact in memory; 1 more can be undone." in shown
        with unchanged(talk.learner):
            talk("/forget Aria Nakamura")
            assert "Undone: /forget Aria Nakamura" in talk("/undo")
        with unchanged(talk.learner):
            talk("/sleep")
            assert "Undone: /sleep" in talk("/undo")
        with unchanged(talk.learner):
            talk(f"/teach {write(tmp_path / 'f.jsonl', fact('Bo Lork'))}")
            talk("/undo")
        assert f"Undone: {CITY}" in talk("/undo")
    assert "Nothing to undo" in talk("/undo")


def test_history_is_bounded(talk):
    history, other = History(), talk.learner.state.copy()
    talk(CITY)
    for number in range(LEVELS + 5):
        history.note(str(number), other, talk.learner.state)
    assert len(history) == LEVELS and history.pop().line == str(LEVELS + 4)


def test_merge_writes_a_model_that_transformers_loads(talk, tmp_path):
    talk(CITY)
    assert "Exported a model" in talk(f"/merge {tmp_path / 'my model'}")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "my model").config.model_type


def test_a_name_in_another_spelling_is_the_same_subject(talk):
    talk("remember: Jos\u00e9 Lork | lives in | Oslo")
    assert "Forgotten" in talk("/forget Jose\u0301 Lork | lives in")


def test_words_are_joined_by_script():
    assert teaching.read_fact("東京 | の市長は | 田中", {}).statement == "東京の市長は田中。"
    fact = teaching.read_fact("ไทย | มีเมืองหลวงคือ | กรุงเทพ", {})
    assert fact.prompt == "ไทยมีเมืองหลวงคือ" and teaching.says(fact, "มีเมืองหลวงคือ", {})


# ------------------------------------------------------------ names of commands


def test_tab_completes_commands_at_the_start_of_a_line():
    starts = [f"/{name}" for name in COMMANDS]
    assert completion.matches("/s", "/s", starts) == ["/sleep ", "/status ", "/save "]
    assert completion.matches("/teach /s", "/s", starts) == [] and completion.matches("hello", "hello", starts) == []


@pytest.mark.parametrize("module", ["sleepgym", "sleepgym.cli"])
def test_version_is_said_by_the_command_and_the_module(module):
    import sleepgym

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", module, "--version"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"sleepgym {sleepgym.__version__}")


def test_page_of_the_terminal_names_every_command():
    page = (ROOT / "docs" / "terminal.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`/{name}" not in page] == []
