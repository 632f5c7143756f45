"""A conversation with a learner, line by line, wherever the lines come from."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sleepgym.cli import reading, teaching, views
from sleepgym.cli.history import History
from sleepgym.cli.notebook import Notebook
from sleepgym.cli.streams import write_anything
from sleepgym.cli.views import counted
from sleepgym.errors import SleepGymError
from sleepgym.facts.fact import Fact
from sleepgym.facts.rows import HUB
from sleepgym.facts.texts import tidy
from sleepgym.lm import perplexity
from sleepgym.memory.export.gates import GatesLostWarning
from sleepgym.memory.ledger import Entry, Key
from sleepgym.memory.overlay import Memory
from sleepgym.memory.owners import owner_of
from sleepgym.memory.state import State
from sleepgym.notes.fact_notes import Noted
from sleepgym.notes.store import Change
from sleepgym.sleeper import SleepingLM

_Item = TypeVar("_Item")


class Session:
    """Answers one line after another; no error of a line ends it.

    Args:
        learner: Who is talked to.
        console: Where answers go.
        max_new_tokens: Length of an answer of the model at most.
        notebook: Where what is remembered is noted, and answers are looked up; None: nowhere.
    """

    def __init__(
        self, learner: SleepingLM, console: Console, max_new_tokens: int = 32, notebook: Notebook | None = None
    ) -> None:
        self.learner = learner
        self.console = console
        self.max_new_tokens = max_new_tokens
        self.notebook = notebook
        self.relations = teaching.relations_of(learner.lm.name)
        self.history = History()
        self._open = True
        write_anything(console.file)

    def greet(self) -> None:
        """Says who is there and how to begin."""
        self._say(f"{self.learner.lm.name} is awake, with {counted(len(self.learner.state.ledger), 'fact')} in memory.")
        if self.notebook is not None:
            self._say(views.notes_summary(self.notebook.folder, list(self.notebook.listed(self.learner.state))))
        self._say(f"Ask something, teach with '{teaching.SYNTAX}', or see /help.")

    def handle(self, line: str) -> bool:
        """Does what a line asks for, and prints the outcome.

        An interrupt cancels what is under way; the state is then as it was before the line.

        Args:
            line: A question, ``remember: ...``, ``> text to complete`` or a command.

        Returns:
            Whether the session goes on.
        """
        before, steps = self.learner.state.copy(), len(self.history)
        with nullcontext(list[Change]()) if self.notebook is None else self.notebook.keeping() as noted:
            try:
                self._dispatch(line.strip())
            except KeyboardInterrupt:
                # The operators undo themselves; this is for an interrupt that comes just after one has finished.
                self._restore(before, noted)
                self._say("Cancelled: the memory is as it was.", "yellow")
            except Exception as error:  # models, templates and files bring errors of every kind
                self._restore(before, noted)
                self._print(views.one_line(error))
            else:
                if len(self.history) >= steps:  # undoing is no step
                    self.history.note(line.strip(), before, self.learner.state, noted)
        return self._open

    def _restore(self, before: State, noted: list[Change]) -> None:
        """Puts memory and notes back to what they were before a line."""
        self.learner.state = before
        if self.notebook is not None and noted:
            try:
                self.notebook.take_back(list(noted))
            except (SleepGymError, OSError) as error:  # an editor was quicker
                self._print(views.one_line(error))

    def _dispatch(self, line: str) -> None:
        if line.startswith("/"):
            self._command(line)
        elif line.startswith(">"):
            with self._busy("completing"):
                text = self.learner.generate(line[1:].strip(), self.max_new_tokens)
            self._answer(text)
        elif line.lower().startswith(teaching.PREFIX):
            self._teach(line[len(teaching.PREFIX) :])
        elif line:
            self._ask(line)

    def _command(self, line: str) -> None:
        name, _, argument = line[1:].partition(" ")
        command, argument = COMMANDS.get(name.lower()), argument.strip()
        if command is None:
            known = ", ".join(f"/{name}" for name in COMMANDS)
            raise ValueError(f"expected one of {known}, found '/{name}'")
        if bool(argument) != bool(command.argument):
            usage = f"/{name} {command.argument}".strip()
            raise ValueError(f"expected '{usage}', found {line!r}")
        command.run(self, argument)

    def _ask(self, question: str) -> None:
        """Answers from the weights, or with notes before the question; then says which."""
        with self._busy("answering"):
            text = self.learner.ask(question, self.max_new_tokens)
            read = (
                None
                if self.notebook is None
                else reading.read(self.notebook, self.learner, question, text, self.max_new_tokens)
            )
        self._answer(text if read is None else read.answer)
        for sentence in () if read is None else read.sentences:
            self._say(f"  noted: {sentence}", "dim")

    # --------------------------------------------------------------- commands

    def _teach(self, text: str) -> None:
        fact = teaching.read_fact(text, self.relations)
        with self._busy("writing"):
            report = self.learner.inject([fact])
        for old in report.superseded:
            self._say(f"Replaced: {old.statement}")
        (margin,) = report.margins
        if margin > 0:
            self._say(f"Remembered: {fact.statement} (margin {views.margin(margin)} nats)", "green")
        else:
            self._say(f"Written, but not recalled: {fact.statement} (margin {views.margin(margin)} nats)", "yellow")
        self._note([fact])

    def _note(self, facts: Sequence[Fact]) -> None:
        """Notes what was taught, if there is a folder of notes."""
        if self.notebook is None or not facts:
            return
        done = self.notebook.remember(facts)
        parts = (("added", done.added), ("changed", done.superseded), ("there already", done.kept))
        said = ", ".join(f"{len(some)} {what}" for what, some in parts if some)
        self._say(f"Notes in {self.notebook.folder}: {said}.", "dim")

    def teach(self, argument: str) -> None:
        """Teaches the facts of a file, as many as there is room for."""
        source = argument if argument.startswith(HUB) else str(_path(argument))
        with self._busy("reading"):
            lesson = teaching.read_lesson(source, self.learner.lm, self.learner.state.ledger, self.relations)
        with self._busy(f"writing {counted(len(lesson.facts), 'fact')}"):
            report = self.learner.inject(lesson.facts) if lesson.facts else None
        self._print(*views.lesson_lines(lesson, report))
        self._note(lesson.facts)

    def undo(self, _: str = "") -> None:
        """Puts the memory back to what it was before the last line that changed it."""
        step = self.history.last
        if step is None:
            self._say("Nothing to undo: no line of this session has changed the memory.")
            return
        if self.notebook is not None:
            self.notebook.take_back(step.notes)
        self.learner.state = step.before
        self.history.pop()
        facts = counted(len(self.learner.state.ledger), "fact")
        self._say(f"Undone: {step.line}")
        self._say(f"{facts} in memory; {len(self.history)} more can be undone.", "dim")

    def sleep(self, _: str = "") -> None:
        """One night, with a progress bar. What notes tell and the weights were not taught is taught before it."""
        if self.notebook is not None:
            with self._busy("teaching what is noted"):
                lesson = reading.teach(self.notebook, self.learner)
            self._print(*views.notes_lines(lesson.report, lesson.forgotten, lesson.left))
        if not self._has_facts():
            return
        with views.progress_bar(self.console) as progress:
            report = self.learner.sleep(progress)
        self._print(*views.night_lines(report))
        if self.notebook is not None:
            self.notebook.remember(lesson.facts)
            self._mark(self.notebook)

    def _mark(self, notebook: Notebook) -> None:
        """Marks the notes of facts that slow weights hold alone."""
        state = self.learner.state
        held = {*state.settled, *state.ledger.of_stage(self.learner.sleep_spec.last_stage)}
        changed = notebook.mark(held)
        if changed:
            self._say(f"Notes: {changed} marked anew, {len(held)} held by slow weights alone.", "dim")

    def nap(self, _: str = "") -> None:
        """An audit."""
        if not self._has_facts():
            return
        with self._busy("auditing"):
            report = self.learner.audit()
        self._print(*views.audit_lines(report, (self.learner.state.ledger[key] for key in report.degraded)))

    def refresh(self, _: str = "") -> None:
        """Re-solves what the last audit found degraded."""
        if not self._has_facts():
            return
        with self._busy("refreshing"):
            report = self.learner.refresh()
        if not report.refreshed:
            self._say("Nothing to refresh: no fact was found degraded at its last audit (/nap is one).")
            return
        recall = (
            f"recall of them {views.percent(report.recall_before)} before, {views.percent(report.recall_after)} after"
        )
        self._say(f"Refreshed {counted(len(report.refreshed), 'fact')}; {recall}.")

    def status(self, _: str = "") -> None:
        """The ledger and a summary."""
        state = self.learner.state
        with self._busy("measuring perplexity"):
            now, bare = self.learner.perplexity(), self._bare_perplexity
        if state.ledger:
            self.console.print(views.ledger_table(state))
        edits = sum(state.memory.terms[owner].scale > 0 for owner in self._edits())
        self._say(
            f"{counted(len(state.ledger), 'fact')}, {counted(edits, 'edit')} in force, "
            f"LoRA rank {self._adapter_rank()}, perplexity {now:.2f} ({views.change(now, bare)} against the bare model)"
        )

    def forget(self, argument: str) -> None:
        """Takes the facts about a subject, or one of them, out of the ledger and their edits out of the memory.

        Settled facts about the subject are then held no longer.
        """
        entries, subject = self._about(argument), tidy(argument)
        noted = self._noted_about(argument)
        settled = [each for key, each in self.learner.state.settled.items() if key[0] == subject]
        if not entries and not settled and not noted:
            raise ValueError(f"expected a subject of the ledger, found no fact about {argument!r}; see /status")
        held = [*(key for key, _ in entries), *(each.key for each in settled)]
        if held:
            self.learner.prune(held)
        for _, entry in entries:
            self._say(f"Forgotten: {entry.fact.statement}")
        for each in settled:
            self._say(f"Held no longer: {each.prompt} ...")
        if self.notebook is not None:
            gone = self.notebook.forget(noted, dict.fromkeys([*held, *(one.key for one in noted)]))
            self._say(f"Notes in {self.notebook.folder}: {gone} deleted.", "dim")
        if held and self._adapter_rank():
            self._say("Their edits are gone; what the adapter may have learnt of them asleep stays.", "dim")

    def notes(self, _: str = "") -> None:
        """Lists the notes, and where the weights have what they tell."""
        if self.notebook is None:
            raise ValueError("expected a folder of notes, found none; start with `sleepgym chat --notes DIR`")
        rows = list(self.notebook.listed(self.learner.state))
        if rows:
            self.console.print(views.notes_table(rows))
        self._say(views.notes_summary(self.notebook.folder, rows))

    def save(self, argument: str) -> None:
        """Writes the memory to a folder."""
        folder = _path(argument)
        self.learner.save(folder)
        self._say(f"Saved {counted(len(self.learner.state.ledger), 'fact')} to {folder}.")

    def load(self, argument: str) -> None:
        """Reads a saved memory in place of the present one."""
        folder = _path(argument)
        self.learner.load(folder)
        self._say(f"Loaded {counted(len(self.learner.state.ledger), 'fact')} from {folder}.")

    def export(self, argument: str) -> None:
        """Writes the memory as a PEFT adapter."""
        folder = _path(argument)
        with self._warnings_shown():
            self.learner.export_adapter(folder)
        self._say(f"Exported a PEFT adapter to {folder}.")

    def merge(self, argument: str) -> None:
        """Writes a model of its own whose weights hold the memory."""
        folder = _path(argument)
        with self._warnings_shown(), self._busy("writing the model"):
            self.learner.export_merged(folder)
        self._say(f"Exported a model with the memory in its weights to {folder}.")

    def help(self, _: str = "") -> None:
        """Lists what a line can be."""
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("text"), Text("ask the model"))
        table.add_row(Text("> text"), Text("let the model go on from a text"))
        table.add_row(Text(teaching.SYNTAX), Text("teach a fact; {} among the words stands for the subject"))
        table.add_row(Text("    ... | question"), Text("and how it is asked, with the subject or {}"))
        for name, command in COMMANDS.items():
            table.add_row(Text(f"/{name} {command.argument}"), Text(command.help))
        self.console.print(table)

    def quit(self, _: str = "") -> None:
        """Ends the session."""
        self._open = False

    # ---------------------------------------------------------------- details

    @contextmanager
    def _warnings_shown(self) -> Iterator[None]:
        """Says what is warned of, in place of Python's own lines with a file and a number."""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", GatesLostWarning)
            yield
        for each in seen:
            if issubclass(each.category, GatesLostWarning):
                self._say(str(each.message), "yellow")

    def _about(self, argument: str) -> list[tuple[Key, Entry]]:
        """Entries of ``SUBJECT``, or of ``SUBJECT | words``."""
        ledger = self.learner.state.ledger
        return self._meant(
            argument,
            lambda subject: [pair for pair in ledger.items() if pair[0][0] == subject],
            lambda pair: pair[1].fact,
        )

    def _noted_about(self, argument: str) -> list[Noted]:
        """Facts that notes tell of ``SUBJECT``, or of ``SUBJECT | words``."""
        if self.notebook is None:
            return []
        return self._meant(argument, self.notebook.about, lambda one: one.taught or one.fact)

    def _meant(
        self, argument: str, about: Callable[[str], list[_Item]], fact_of: Callable[[_Item], Fact | None]
    ) -> list[_Item]:
        """What there is about ``SUBJECT``; if nothing is, that of ``SUBJECT | words`` whose facts have these words."""
        argument = tidy(argument)
        found = about(argument)
        if found or "|" not in argument:
            return found
        subject, _, words = argument.partition("|")
        facts = ((each, fact_of(each)) for each in about(tidy(subject)))
        return [each for each, fact in facts if fact is not None and teaching.says(fact, words, self.relations)]

    def _edits(self) -> set[str]:
        """Owners of the facts' edits that are in the memory, at whatever scale."""
        state = self.learner.state
        return {owner_of(fact) for fact in state.ledger.facts} & set(state.memory.terms)

    def _adapter_rank(self) -> int:
        """Rank of what nights have left in the memory; 0 before the first."""
        terms = self.learner.state.memory.terms
        return sum(terms[owner].rank for owner in set(terms) - self._edits())

    @cached_property
    def _bare_perplexity(self) -> float:
        base = self.learner.base
        with base.overlay.use(Memory()):
            return perplexity(base.lm, base.statistics.held_out)

    def _has_facts(self) -> bool:
        if not self.learner.state.ledger:
            self._say(f"Nothing was taught yet. Teach with '{teaching.SYNTAX}'.")
        return bool(self.learner.state.ledger)

    def _answer(self, text: str) -> None:
        self._say(text, "cyan") if text else self._say("(no answer)", "dim")

    def _say(self, text: str, style: str = "") -> None:
        self._print(views.shown(text, style))

    def _print(self, *texts: Text) -> None:
        for text in texts:
            self.console.print(text, soft_wrap=True)

    @contextmanager
    def _busy(self, what: str) -> Iterator[None]:
        with self.console.status(what, spinner=views.spinner(self.console)):
            yield


def _path(argument: str) -> Path:
    """A file or folder as it was typed, also where the system's encoding does not have its characters."""
    return Path(os.fsdecode(argument.encode())).expanduser()


@dataclass(frozen=True)
class SlashCommand:
    """What follows a slash: how it is run, what it takes (all of it or nothing), what it is for."""

    run: Callable[[Session, str], None]
    help: str
    argument: str = ""


COMMANDS = {
    "teach": SlashCommand(Session.teach, "teach the facts of a file (JSON, JSON lines, CSV) or a folder", "FILE"),
    "sleep": SlashCommand(Session.sleep, "a night: audit, refresh, train the adapter, dissolve edits, validate"),
    "nap": SlashCommand(Session.nap, "an audit: which facts are still recalled"),
    "refresh": SlashCommand(Session.refresh, "write again what the last audit found degraded"),
    "notes": SlashCommand(Session.notes, "every note, and where the weights have what it tells"),
    "status": SlashCommand(Session.status, "every fact, and how the memory is doing"),
    "forget": SlashCommand(
        Session.forget, "forget all facts about a subject, or the one with these words", "SUBJECT [| words]"
    ),
    "save": SlashCommand(Session.save, "write the memory to a folder", "FOLDER"),
    "load": SlashCommand(Session.load, "read a saved memory in place of this one", "FOLDER"),
    "export": SlashCommand(Session.export, "write the memory as a PEFT adapter", "FOLDER"),
    "merge": SlashCommand(Session.merge, "write a model of its own with the memory in its weights", "FOLDER"),
    "undo": SlashCommand(
        Session.undo, "back to before the last line that changed the memory; again for the one before"
    ),
    "help": SlashCommand(Session.help, "this list"),
    "quit": SlashCommand(Session.quit, "leave; what was not saved is gone"),
}
