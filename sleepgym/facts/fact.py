"""The one type every fact has, whatever file or world it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from sleepgym.facts.texts import FactError, pairs_of, raw_text, require_subject, text_of, texts_of
from sleepgym.facts.writing import full_stop, joiner_between

__all__ = ["Fact", "FactError"]


@dataclass(frozen=True)
class Fact:
    """A subject, a prompt that ends where the object begins, and the object.

    Blanks at the ends of a text belong to nobody and are taken off; texts are kept in their composed form (NFC), so
    that a name has one spelling. Lists are accepted where tuples stand.

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
        joiner: What stands between prompt and object. None: a blank, or nothing where the scripts put none there,
            see :func:`~sleepgym.facts.writing.joiner_between`.

    Raises:
        FactError: A text is missing, is no text or cannot be written, or the subject is not in it.
    """

    subject: str
    prompt: str
    object: str
    relation: str = ""
    paraphrases: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    neighbours: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    true_object: str = field(default="", repr=False)
    joiner: str | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self._is_tidy():
            for name, what in _TEXTS.items():
                object.__setattr__(self, name, text_of(getattr(self, name), what))
            object.__setattr__(self, "paraphrases", texts_of(self.paraphrases, "paraphrase"))
            object.__setattr__(self, "questions", texts_of(self.questions, "question"))
            object.__setattr__(self, "neighbours", pairs_of(self.neighbours))
        if not self.subject:
            raise FactError(f"expected a subject, found {self.subject!r}; name the entity the fact is about")
        if not self.object:
            raise FactError(
                f"expected an object for {self.prompt!r}, found {self.object!r}; give the words that complete it"
            )
        for what, texts in (("prompt", (self.prompt,)), ("paraphrase", self.paraphrases), ("question", self.questions)):
            for text in texts:
                if self.subject not in text:
                    require_subject(self.subject, text, what)
        if self.joiner is not None:
            raw_text(self.joiner, "the joiner")
        if not self.relation:
            object.__setattr__(self, "relation", self.prompt.replace(self.subject, "{}"))

    def _is_tidy(self) -> bool:
        """Whether every text is kept as it was given; quickly, since an episode makes many facts and nearly all are."""
        if self.neighbours != () or type(self.paraphrases) is not tuple or type(self.questions) is not tuple:
            return False
        own = (self.subject, self.prompt, self.object, self.relation, self.true_object)
        texts = own + self.paraphrases + self.questions
        if set(map(type, texts)) != {str}:
            return False
        joined = f"|{'|'.join(texts)}|"
        return joined.isascii() and joined.isprintable() and "| " not in joined and " |" not in joined

    @property
    def key(self) -> tuple[str, str]:
        """``(subject, relation)``: at most one object is true for it at a time."""
        return self.subject, self.relation

    @property
    def statement(self) -> str:
        """The full sentence, such as ``"Aria Nakamura lives in Portland."``."""
        joiner = joiner_between(self.prompt, self.object) if self.joiner is None else self.joiner
        return f"{self.prompt}{joiner}{self.object}{full_stop(self.prompt, self.object)}"


_TEXTS = {
    "subject": "the subject",
    "prompt": "the prompt",
    "object": "the object",
    "relation": "the relation",
    "true_object": "the true object",
}
"""What messages call the fields that hold one text."""
