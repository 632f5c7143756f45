"""Settled facts: questions whose answers slow weights hold alone, kept as text and without the answer."""

from __future__ import annotations

from dataclasses import dataclass

from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key


@dataclass(frozen=True)
class Settled:
    """Questions of a fact that has left the ledger because slow weights hold it.

    The answer is not kept: slow weights give it, and nights hold them to what they answered the night before. What
    stands between a prompt and its answer is written by the model as well, and so is not kept either.

    Attributes:
        subject: Subject of the fact.
        relation: Relation of the fact.
        prompt: Statement without its object.
        question: Question in chat, without the model's chat format.
        held_at: Number of the last night that trained or held it, counted from 1; 0 before the first.
    """

    subject: str
    relation: str
    prompt: str
    question: str
    held_at: int = 0

    @classmethod
    def of(cls, fact: Fact, held_at: int = 0) -> Settled:
        """Returns the questions that a night asks about a fact: its prompt, and what it asks in chat."""
        return cls(fact.subject, fact.relation, fact.prompt, chat_question(fact), held_at)

    @property
    def key(self) -> Key:
        """Key of the fact, ``(subject, relation)``."""
        return self.subject, self.relation


def chat_question(fact: Fact) -> str:
    """Returns what a fact is asked in chat: its first question, or its prompt if it has none."""
    return fact.questions[0] if fact.questions else fact.prompt
