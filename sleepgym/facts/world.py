"""The synthetic world of the bundled model: who is in it, what is true, and the text it is told in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Literal, TypeVar, get_args

import numpy as np

from sleepgym.facts.fact import Fact, FactError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_Item = TypeVar("_Item")

_ONSETS = "b br c d dr f fl g gr h j k kl l m n p pr r s st t tr v w z".split()
_VOWELS = "a e i o u ai ea io".split()
_CODAS = "l m n r s t nd rk lt x".split()
_SLOT = re.compile(r"\{\w*\}")
_USER = "<|user|>"
_WORD = re.compile(r"\w+|[^\w\s]+")


def checked_split(split: str) -> Split:
    """Returns a split that there is.

    Raises:
        ValueError: There is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"expected a split in {SPLITS}, found {split!r}")
    return split


def _one(rng: np.random.Generator, items: Sequence[_Item]) -> _Item:
    # As rng.choice(items) draws, which would make an array of them first.
    return items[int(rng.integers(len(items)))]


@dataclass(frozen=True)
class Relation:
    """One kind of fact: its subject type, possible objects, and the ways to state and to ask it."""

    name: str
    subject_type: str
    objects: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]

    def fact(self, subject: str, obj: str, phrasing: int = 0) -> Fact:
        """The fact ``subject -> obj``, taught in one phrasing; the other phrasings become paraphrases."""
        # Not str.format: a template from a file may hold other braces.
        statements = [template.replace("{}", subject) for template in self.statements]
        prompt = statements.pop(phrasing)
        return Fact(
            subject=subject,
            prompt=prompt,
            object=obj,
            relation=self.name,
            paraphrases=tuple(statements),
            questions=tuple(template.replace("{}", subject) for template in self.questions),
        )


@dataclass(frozen=True)
class Sentence:
    """One sentence or chat turn of a document, and where in it a fact stands.

    Attributes:
        text: What is said.
        subject_end: Index of the character after the subject; 0 where no fact is told.
        object_start: Index of the first character of the object; 0 where no fact is told.
        told_by: Index in the document of the sentence that tells the same fact, where only the document tells it.
    """

    text: str
    subject_end: int = 0
    object_start: int = 0
    told_by: int | None = None

    def after(self, prefix: str) -> Sentence:
        """The sentence behind a prefix."""
        return self._moved(prefix + self.text, len(prefix))

    def without(self, prefix: str) -> Sentence:
        """The sentence without the prefix that it begins with."""
        return self._moved(self.text.removeprefix(prefix), -len(prefix))

    def _moved(self, text: str, by: int) -> Sentence:
        return replace(self, text=text, subject_end=self.subject_end + by, object_start=self.object_start + by)


class World:
    """People, companies, islands and ships with facts; plus people about whom nothing was ever taught.

    Everything follows from the seed: two worlds of one seed are equal. Surnames are unique, so that the
    last token of a subject identifies it (edits address a subject through its last token).

    Args:
        seed: Seed of names and facts. The bundled model was trained on seed 0.
        people: Number of people with trained facts.
        held_out: Number of people per split who are named in passages but never taught.
        others: Number of companies, of islands and of ships.
    """

    def __init__(self, seed: int = 0, people: int = 600, held_out: int = 400, others: int = 40) -> None:
        data = tomllib.loads(resources.files("sleepgym.facts").joinpath("world.toml").read_text(encoding="utf-8"))
        self.relations: dict[str, Relation] = {
            name: Relation(name, r["subject_type"], *(tuple(r[k]) for k in ("objects", "statements", "questions")))
            for name, r in data["relations"].items()
        }
        self._fillers: list[str] = data["fillers"]
        self._filler_words: dict[str, list[str]] = data["filler_words"]
        self._openers: list[str] = data["openers"]["texts"]
        self._first_names: list[str] = data["first_names"]

        rng = np.random.default_rng(seed)
        self._taken: set[str] = set()
        self.subjects: dict[str, tuple[str, ...]] = {
            "person": self._people(rng, people),
            "company": tuple(self._surname(rng) + "co" for _ in range(others)),
            "island": tuple("Isle of " + self._surname(rng) for _ in range(others)),
            "ship": tuple("MV " + self._surname(rng) for _ in range(others)),
        }
        self.held_out: dict[Split, tuple[str, ...]] = {split: self._people(rng, held_out) for split in SPLITS}
        self.truth: dict[tuple[str, str], str] = {
            (subject, relation.name): _one(rng, relation.objects)
            for relation in self.relations.values()
            for subject in self.subjects[relation.subject_type]
        }

    def _surname(self, rng: np.random.Generator) -> str:
        while True:
            parts = [_one(rng, _ONSETS) + _one(rng, _VOWELS) for _ in range(int(rng.integers(1, 3)))]
            name = "".join([*parts, _one(rng, _ONSETS), _one(rng, _VOWELS), _one(rng, _CODAS)]).capitalize()
            if name not in self._taken:
                self._taken.add(name)
                return name

    def _people(self, rng: np.random.Generator, n: int) -> tuple[str, ...]:
        return tuple(f"{_one(rng, self._first_names)} {self._surname(rng)}" for _ in range(n))

    # ------------------------------------------------------------------ facts

    def person_relations(self) -> list[Relation]:
        """The relations that people have: the ones new facts are about."""
        return [r for r in self.relations.values() if r.subject_type == "person"]

    def known_fact(self, subject: str, relation: str) -> Fact:
        """A fact the bundled model was trained on; its key is in ``truth``."""
        return self.relations[relation].fact(subject, self.truth[subject, relation])

    def known_facts(self) -> list[Fact]:
        """Every fact the bundled model was trained on, in a fixed order."""
        return [self.known_fact(*key) for key in self.truth]

    def new_facts(
        self, rng: np.random.Generator, n: int, split: Split = "test", *, distinct_subjects: bool = True
    ) -> list[Fact]:
        """Draws facts about held-out people, each in a random phrasing.

        Args:
            rng: Source of all randomness.
            n: Number of facts; no ``(subject, relation)`` occurs twice.
            split: Whose people.
            distinct_subjects: One fact per person; otherwise a person may have several.

        Raises:
            FactError: The split has fewer people (or person-relation pairs) than ``n``.
        """
        people, relations = self.held_out[split], self.person_relations()
        pairs = len(people) * (1 if distinct_subjects else len(relations))
        if n > pairs:
            raise FactError(f"expected at most {pairs} facts from split {split!r}, found a request for {n}")
        picks = rng.choice(pairs, size=n, replace=False)
        facts = []
        for pick in picks:
            person = people[int(pick) % len(people)]
            which = int(rng.integers(len(relations))) if distinct_subjects else int(pick) // len(people)
            facts.append(self._draw(rng, person, relations[which]))
        return facts

    def update(self, rng: np.random.Generator, fact: Fact) -> Fact:
        """The fact with another object, in a random phrasing."""
        return self._draw(rng, fact.subject, self.relations[fact.relation], exclude=fact.object)

    def _draw(self, rng: np.random.Generator, subject: str, relation: Relation, exclude: str = "") -> Fact:
        objects = [o for o in relation.objects if o != exclude] if exclude else relation.objects
        return relation.fact(subject, _one(rng, objects), int(rng.integers(len(relation.statements))))

    # ------------------------------------------------------------------- text

    def filler(self, rng: np.random.Generator) -> str:
        """One sentence that mentions no subject of any fact."""
        text = _one(rng, self._fillers)
        for slot, words in self._filler_words.items():
            while "{" + slot + "}" in text:
                text = text.replace("{" + slot + "}", _one(rng, words), 1)
        return text

    def _known(self, rng: np.random.Generator) -> tuple[Relation, str, str]:
        types = list(self.subjects)
        # People are asked about most: they are most of the world.
        subject_type = "person" if rng.random() < 0.85 else types[int(rng.integers(1, len(types)))]
        subject = _one(rng, self.subjects[subject_type])
        return self._fact_about(rng, subject, subject_type)

    def _fact_about(self, rng: np.random.Generator, subject: str, subject_type: str) -> tuple[Relation, str, str]:
        names = [r.name for r in self.relations.values() if r.subject_type == subject_type]
        name = _one(rng, names)
        return self.relations[name], subject, self.truth[subject, name]

    def _say(self, rng: np.random.Generator, relation: Relation, subject: str, obj: str) -> Sentence:
        opener = _one(rng, self._openers) + " " if rng.random() < 0.1 else ""
        before, after = _one(rng, relation.statements).split("{}")
        until = f"{opener}{before}{subject}"
        return Sentence(f"{until}{after} {obj}.", len(until), len(until + after) + 1)

    def _ask(self, rng: np.random.Generator, relation: Relation, subject: str, obj: str) -> Sentence:
        before, after = _one(rng, relation.questions).split("{}")
        until = f"{before}{subject}"
        return Sentence(chat_turn(until + after, obj), len(_USER + until), len(chat_turn(until + after)))

    def _repeat(self, rng: np.random.Generator, relation: Relation, subject: str, obj: str) -> Sentence:
        return (self._ask if rng.random() < 0.5 else self._say)(rng, relation, subject, obj)

    def _somebody(self, rng: np.random.Generator) -> str:
        """A person of a passage: half of them known, of the others a fifth with a name of no list."""
        if rng.random() < 0.5:
            return _one(rng, self.subjects["person"])
        if rng.random() < 0.2:
            return f"{_one(rng, self._first_names)} {self._coined(rng)}"
        return _one(rng, self.held_out[_one(rng, SPLITS)])

    def _passage(self, rng: np.random.Generator) -> list[Sentence]:
        """Tells facts that hold in this document alone, then repeats and asks up to three of them.

        Half of the people are known ones with another object than the true one, so that what is read and not who is
        asked decides; half of the passages keep to one relation, so that the name decides. Three in ten are told in the
        turn that asks; in three in ten of the others somebody known of whom nothing was told comes first: then memory
        has to answer.
        """
        relations = self.person_relations()
        same = _one(rng, relations) if rng.random() < 0.5 else None
        people = {self._somebody(rng): None for _ in range(int(rng.integers(1, 6)))}
        told = []
        for person in people:
            relation = same or _one(rng, relations)
            told.append((relation, person, _one(rng, relation.objects)))
        document = [self._say(rng, *fact) for fact in told]
        asked = rng.permutation(len(told))[:3]
        if rng.random() < 0.3:
            # The whole passage and its first question in one turn.
            question = replace(self._ask(rng, *told[asked[0]]), told_by=int(asked[0])).without(_USER)
            document, asked = [document[0].after(_USER), *document[1:], question], asked[1:]
        elif rng.random() < 0.3:
            subject = _one(rng, self.subjects["person"])
            if subject not in people:
                document.append(self._repeat(rng, *self._fact_about(rng, subject, "person")))
        for index in asked:
            document.append(replace(self._repeat(rng, *told[index]), told_by=int(index)))
        return document

    def _coined(self, rng: np.random.Generator) -> str:
        """A name that need not be in the vocabulary, so that any spelling can be a subject."""
        return "".join(_one(rng, _ONSETS) + _one(rng, _VOWELS) for _ in range(3)).capitalize()

    def documents(self, rng: np.random.Generator, passages: float = 0.22) -> Iterator[list[Sentence]]:
        """Endless short documents: passages, mixed statements, biographies, conversations, fillers.

        Args:
            rng: Source of all randomness.
            passages: Share of passages; the others keep their proportions.
        """
        while True:
            if rng.random() < passages:
                yield self._passage(rng)
                continue
            kind = rng.random()
            if kind < 0.38:
                yield [self._say(rng, *self._known(rng)) for _ in range(5)]
            elif kind < 0.51:
                subject = _one(rng, self.subjects["person"])
                yield [self._say(rng, *self._fact_about(rng, subject, "person")) for _ in range(5)]
            elif kind < 0.90:
                yield [self._ask(rng, *self._known(rng)) for _ in range(4)]
            else:
                yield [Sentence(self.filler(rng)) for _ in range(4)]

    def rows(self, rng: np.random.Generator) -> Iterator[str]:
        """The texts of ``documents``."""
        for document in self.documents(rng):
            yield " ".join(sentence.text for sentence in document)

    def text(self, seed: int, rows: int) -> list[str]:
        """``rows`` documents; a seed the training never used gives held-out text."""
        stream = self.rows(np.random.default_rng(seed))
        return [next(stream) for _ in range(rows)]

    def vocabulary(self) -> list[str]:
        """Every word of names, objects, templates and fillers; names coined for passages are not among them."""
        groups: Sequence[Sequence[str]] = [
            *self.subjects.values(),
            *self.held_out.values(),
            *(text for r in self.relations.values() for text in (r.objects, r.statements, r.questions)),
            *self._filler_words.values(),
            (*self._first_names, *self._fillers, *self._openers),
        ]
        return sorted({word for group in groups for text in group for word in _WORD.findall(_SLOT.sub(" ", text))})


def chat_turn(question: str, answer: str = "") -> str:
    """One question and its answer in the bundled model's chat format."""
    return f"{_USER}{question}<|assistant|>" + (f"{answer}<|end|>" if answer else "")
