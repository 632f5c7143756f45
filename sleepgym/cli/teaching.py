"""Facts as they are typed: ``remember: SUBJECT | words between | OBJECT``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from sleepgym.facts.datasets import load_facts
from sleepgym.facts.fact import Fact, FactError
from sleepgym.facts.texts import tidy
from sleepgym.facts.world import Relation
from sleepgym.facts.writing import joiner_between
from sleepgym.lm import LanguageModel
from sleepgym.lm.catalogue import named_model
from sleepgym.memory.ledger import Key, Ledger

PREFIX = "remember:"
SYNTAX = "remember: SUBJECT | words between | OBJECT"

Relations = Mapping[str, Relation]


def relations_of(model: str) -> Relations:
    """The relations that a model knows by heart: those of its facts if it has an entry in the catalogue, else none."""
    entry = named_model(model)
    return {} if entry is None else entry.facts().relations


def read_fact(text: str, relations: Relations) -> Fact:
    """The fact in what follows ``remember:``.

    ``{}`` stands for the subject; words without it come after the subject. Words that state a relation make a fact of
    that relation, with its paraphrases and questions.

    Args:
        text: Three or four fields between bars.
        relations: Of the model, see :func:`relations_of`.

    Raises:
        FactError: Too few or too many fields, an empty one, or a question without the subject.
    """
    fields = [" ".join(field.split()) for field in text.split("|")]
    if len(fields) not in (3, 4) or not all(fields):
        raise FactError(f"expected {SYNTAX!r}, or a question as a fourth field, found {text.strip()!r}")
    subject, words, obj, *questions = fields
    asked = tuple(question.replace("{}", subject) for question in questions)
    prompt = _template(words, subject).replace("{}", subject)
    return _of_relation(Fact(subject, prompt, obj, questions=asked), relations)


def _of_relation(fact: Fact, relations: Relations) -> Fact:
    """The fact as one of the relation that its words state, if they do: with its name, paraphrases and questions."""
    relation = _relation(fact.relation, relations)
    if relation is None:
        return fact
    known = relation.fact(fact.subject, fact.object, relation.statements.index(fact.relation))
    questions = tuple(dict.fromkeys((*fact.questions, *known.questions)))
    return replace(fact, relation=relation.name, paraphrases=fact.paraphrases or known.paraphrases, questions=questions)


@dataclass(frozen=True)
class Lesson:
    """The facts of a file that can be taught, and what else was in it.

    Attributes:
        source: The file.
        facts: What can be taught, at most one object per ``(subject, relation)``.
        left_out: Facts and records that cannot, each with the reason.
        dropped: Parts of what is taught that nothing can be done with, each with the reason.
        contradictions: Facts that a later one of the file supersedes, each with both objects.
        repeated: Facts that the file has once more.
        unused: Keys of its records that are not read.
    """

    source: str
    facts: tuple[Fact, ...]
    left_out: tuple[str, ...]
    dropped: tuple[str, ...]
    contradictions: tuple[str, ...]
    repeated: int
    unused: tuple[str, ...]


def read_lesson(source: str, lm: LanguageModel, ledger: Ledger, relations: Relations) -> Lesson:
    """The facts of a file or a folder that a model can write and a ledger has room for.

    Args:
        source: See :func:`sleepgym.facts.load_facts`.
        lm: The model that is to be taught.
        ledger: What it was taught before.
        relations: Of the model, see :func:`relations_of`.

    Raises:
        FactError: The file cannot be read, or its form is not understood.
    """
    found = load_facts(source, malformed="skip")
    contradictions = [str(problem) for problem in found.contradictions]
    facts: dict[Key, Fact] = {}
    for fact in found.latest:
        fact = _of_relation(fact, relations)
        old = facts.get(fact.key, fact)
        if old.object != fact.object:  # in other words of one relation
            contradictions.append(f"{old.statement} - {fact.statement}")
        facts[fact.key] = fact
    cannot = list(refused(facts.values(), lm, ledger))
    return Lesson(
        source,
        tuple(fact for key, fact in facts.items() if key not in {fact.key for fact, _ in cannot}),
        (*map(str, found.skipped), *(f"{fact.statement} - {reason}" for fact, reason in cannot)),
        tuple(map(str, found.dropped)),
        tuple(contradictions),
        len(found) - len(facts) - len(contradictions),
        found.unused,
    )


def refused(facts: Iterable[Fact], lm: LanguageModel, ledger: Ledger) -> Iterator[tuple[Fact, str]]:
    """Facts that a model cannot write or a ledger has no room for, each with the reason.

    Args:
        facts: At most one object per ``(subject, relation)``.
        lm: The model that is to be taught.
        ledger: What it was taught before.
    """
    room = ledger.capacity - len(ledger)
    for fact in facts:
        try:
            lm.encode(fact.prompt, fact.object, fact.subject, joiner=fact.joiner)
        except Exception as error:  # tokenizers have errors of their own
            yield fact, str(error) or type(error).__name__
            continue
        if fact.key not in ledger:
            room -= 1
            if room < 0:
                yield fact, f"expected a free place in the ledger, found all {ledger.capacity} taken"


def says(fact: Fact, words: str, relations: Relations) -> bool:
    """Whether a fact says what the words do of its subject, in whatever phrasing; the relation's name will do too."""
    words = tidy(" ".join(words.split()))
    template = _template(words, fact.subject)
    relation = _relation(template, relations)
    return (
        fact.prompt == template.replace("{}", fact.subject)
        or fact.relation == words
        or (relation is not None and fact.relation == relation.name)
    )


def _template(words: str, subject: str) -> str:
    return words if "{}" in words else f"{{}}{joiner_between(subject, words)}{words}"


def _relation(template: str, relations: Relations) -> Relation | None:
    return next((relation for relation in relations.values() if template in relation.statements), None)
