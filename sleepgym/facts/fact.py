"""The one type every fact has, whatever file or world it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from sleepgym.errors import SleepGymError


class FactError(SleepGymError, ValueError):
    """A fact that cannot be used: the message says what was expected, found, and what to do."""


@dataclass(frozen=True)
class Fact:
    """A subject, a prompt that ends where the object begins, and the object.

    Attributes:
        subject: The entity the fact is about. It must occur in every prompt of the fact.
        prompt: A statement without its object, such as ``"Aria Nakamura lives in"``.
        object: What completes the prompt, such as ``"Portland"``.
        relation: Name of the relation. ``(subject, relation)`` is the fact's identity: a second object
            for it supersedes the first. Left empty, the prompt with the subject blanked out is used.
        paraphrases: Other statements of the same fact, never used to teach it, only to test it.
        questions: Questions whose whole answer is the object.
        neighbours: ``(prompt, object)`` pairs about other subjects that must stay true.
        true_object: What the world, and so a pretrained model, says in the object's place; empty where that
            is the object itself, or not known. Only measured against, never taught.
    """

    subject: str
    prompt: str
    object: str
    relation: str = ""
    paraphrases: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    neighbours: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    true_object: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.subject.strip():
            raise FactError(f"expected a subject, found {self.subject!r}; name the entity the fact is about")
        if not self.object.strip():
            raise FactError(
                f"expected an object for {self.prompt!r}, found {self.object!r}; give the words that complete it"
            )
        for kind, texts in (("prompt", (self.prompt,)), ("paraphrase", self.paraphrases), ("question", self.questions)):
            for text in texts:
                if self.subject not in text:
                    raise FactError(
                        f"expected the subject {self.subject!r} in the {kind}, found {text!r}; "
                        "write the subject exactly as it stands in the text"
                    )
        if not self.relation:
            object.__setattr__(self, "relation", self.prompt.replace(self.subject, "{}").strip())

    @property
    def key(self) -> tuple[str, str]:
        """``(subject, relation)``: at most one object is true for it at a time."""
        return self.subject, self.relation

    @property
    def statement(self) -> str:
        """The full sentence, such as ``"Aria Nakamura lives in Portland."``."""
        return f"{self.prompt} {self.object}."
