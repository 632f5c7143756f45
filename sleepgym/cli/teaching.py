"""Facts as they are typed: ``remember: SUBJECT | words between | OBJECT``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sleepgym.facts.fact import Fact, FactError
from sleepgym.facts.world import Relation
from sleepgym.lm.catalogue import named_model

PREFIX = "remember:"
SYNTAX = "remember: SUBJECT | words between | OBJECT"
SYNTAX_WITH_QUESTION = f"{SYNTAX} | question with the subject"

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
    template = _template(words)
    relation = _relation(template, relations)
    if relation is None:
        return Fact(subject, template.replace("{}", subject), obj, questions=asked)
    fact = relation.fact(subject, obj, relation.statements.index(template))
    return replace(fact, questions=asked + fact.questions)


def says(fact: Fact, words: str, relations: Relations) -> bool:
    """Whether a fact says what the words do of its subject, in whatever phrasing; the relation's name will do too."""
    template = _template(" ".join(words.split()))
    relation = _relation(template, relations)
    return (
        fact.prompt == template.replace("{}", fact.subject)
        or fact.relation == words.strip()
        or (relation is not None and fact.relation == relation.name)
    )


def _template(words: str) -> str:
    return words if "{}" in words else "{} " + words


def _relation(template: str, relations: Relations) -> Relation | None:
    return next((relation for relation in relations.values() if template in relation.statements), None)
