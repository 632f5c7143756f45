"""What a conversation takes from its notes: answers that the weights do not give, and lessons for the next night."""

from __future__ import annotations

from dataclasses import dataclass

from sleepgym.cli.notebook import Notebook
from sleepgym.cli.teaching import refused
from sleepgym.facts.fact import Fact, FactError
from sleepgym.memory.doubt import SURE_NATS, sureness
from sleepgym.memory.reports import InjectReport
from sleepgym.notes.retrieval import with_notes
from sleepgym.sleeper import SleepingLM


@dataclass(frozen=True)
class Read:
    """An answer that was read from notes.

    Attributes:
        answer: What the model answered.
        sentences: The notes before the question.
    """

    answer: str
    sentences: tuple[str, ...]


def read(notebook: Notebook, learner: SleepingLM, question: str, own: str, max_new_tokens: int) -> Read | None:
    """The answer with notes before the question; None where the model's own counts more.

    Notes are read if the model is unsure of its answer, or if one of them tells what the weights were not taught. That
    is read with the memory off: what was taught before would be in its way.

    Args:
        notebook: The notes.
        learner: Who is asked.
        question: What is asked.
        own: The learner's own answer.
        max_new_tokens: Length of an answer at most.

    Raises:
        NotesError: The question is too long for a look-up, or a file cannot be used.
        OSError: A file cannot be read.
    """
    found = notebook.look_up(question, learner.state)
    sentences = list(found.sentences)
    while sentences and not _fits(learner, with_notes(question, sentences), max_new_tokens):
        sentences.pop()
    if not sentences:
        return None
    if not found.news and sureness(learner.lm, question, own, learner.score) >= SURE_NATS:
        return None
    reader = SleepingLM(learner.base) if found.news else learner
    return Read(reader.ask(with_notes(question, sentences), max_new_tokens), tuple(sentences))


def _fits(learner: SleepingLM, question: str, max_new_tokens: int) -> bool:
    """Whether the model can take a question and has room for an answer."""
    try:
        tokens = len(learner.lm.encode(learner.lm.chat(question)).ids)
    except FactError:
        return False
    positions = learner.lm.encoder.positions
    return positions is None or tokens + max_new_tokens <= positions


@dataclass(frozen=True)
class NotedLesson:
    """What a learner took from notes before a night.

    Attributes:
        report: Of what was written; None: nothing was.
        forgotten: Statements of facts whose notes a person has taken away.
        left: Notes that cannot be taught, with the reason where it is not their words.
    """

    report: InjectReport | None
    forgotten: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What was taught."""
        return () if self.report is None else self.report.written


def teach(notebook: Notebook, learner: SleepingLM) -> NotedLesson:
    """Teaches what notes tell and the weights were not taught, and forgets what a person took out of the notes.

    Args:
        notebook: The notes; what was taken out of them is no longer looked for.
        learner: Who is taught.

    Raises:
        NotesError: A file cannot be used; nothing is taught.
        OSError: A file cannot be read or written; nothing is taught.
        EditError: The facts contradict each other, or an optimisation failed.
    """
    pending, state = notebook.pending(learner.state), learner.state
    gone = [key for key in pending.gone if key in state.ledger or key in state.settled]
    forgotten = tuple(state.ledger[key].fact.statement for key in gone if key in state.ledger)
    notebook.forget([], pending.gone)
    if gone:
        learner.prune(gone)
    cannot = dict(refused(pending.facts, learner.lm, learner.state.ledger))
    lesson = [fact for fact in pending.facts if fact not in cannot]
    report = learner.inject(lesson) if lesson else None
    left = (*(f"{fact.statement} - {reason}" for fact, reason in cannot.items()), *pending.untold)
    return NotedLesson(report, forgotten, left)
