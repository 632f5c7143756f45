"""Facts of the real world: what pretrained models know, and changed facts to teach them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sleepgym.facts.fact import Fact, FactError
from sleepgym.facts.texts import tidy
from sleepgym.facts.world import SPLITS, Relation, Split
from sleepgym.reading import found_in, read_json, read_toml

_MAX_BYTES = 64 * 2**20
"""Size of the largest file of facts about the real world."""


class RealFacts:
    """Known facts by relation. New facts swap objects within a relation.

    Args:
        relations: Relations with the true object of each subject.
    """

    def __init__(self, relations: Sequence[tuple[Relation, dict[str, str]]]) -> None:
        self.relations = {relation.name: relation for relation, _ in relations}
        self.truth = {(subject, r.name): obj for r, samples in relations for subject, obj in samples.items()}

    @classmethod
    def read(cls, path: Path | None = None) -> RealFacts:
        """Reads a TOML file like ``real.toml``: per relation ``statements``, ``questions`` and ``samples``.

        Args:
            path: The file; None for the facts that ship with the package.

        Raises:
            FactError: The file is missing or has another form.
        """
        file = path or Path(str(resources.files("sleepgym.facts"))) / "real.toml"
        try:
            raw = read_toml(file, _MAX_BYTES)
            return cls([_relation(name, **table) for name, table in raw.items()])
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise FactError(
                f"expected tables with statements, questions and samples in {file}, found {found_in(error)}; "
                "write it as facts/real.toml of the package is"
            ) from error

    @classmethod
    def from_relations(cls, files: Iterable[Path]) -> RealFacts:
        """Reads files in the form of Hernandez et al. 2023: ``prompt_templates`` and ``samples``.

        Raises:
            FactError: A file has another form.
        """
        relations = []
        for file in files:
            try:
                raw = read_json(file, _MAX_BYTES)
                samples = {sample["subject"]: sample["object"] for sample in raw["samples"]}
                relations.append(_relation(file.stem, templates_of(raw), [], samples))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise FactError(
                    f"expected a relation with prompt_templates, prompt_templates_zs and samples in {file}, "
                    f"found {found_in(error)}; correct the file"
                ) from error
        return cls(relations)

    def known_fact(self, subject: str, relation: str) -> Fact:
        """A fact as it is in the world; its key is in ``truth``."""
        return self.relations[relation].fact(subject, self.truth[subject, relation])

    def known_facts(self) -> list[Fact]:
        """Every fact as it is in the world; a pretrained model recalls some of them."""
        return [self.known_fact(*key) for key in self.truth]

    def new_facts(self, rng: np.random.Generator, n: int, split: Split | None = None) -> list[Fact]:
        """Draws subjects and gives each the object of another subject of its relation.

        What is true becomes the facts' ``true_object``.

        Args:
            rng: Source of all randomness.
            n: Number of facts, each about another subject.
            split: Draw from a third of the subjects only; None for all.

        Raises:
            FactError: There are fewer than ``n`` subjects, or a relation has a single object.
        """
        pairs = list(self.truth)
        if split is not None:
            pairs = pairs[SPLITS.index(split) :: len(SPLITS)]
        if n > len(pairs):
            raise FactError(f"expected at most {len(pairs)} changed facts, found a request for {n}")
        chosen = [pairs[i] for i in rng.choice(len(pairs), size=n, replace=False)]
        return [self.update(rng, self.relations[name].fact(s, self.truth[s, name])) for s, name in chosen]

    def update(self, rng: np.random.Generator, fact: Fact) -> Fact:
        """The fact with another object of its relation, neither the one it has nor the one that is true.

        Raises:
            FactError: The relation has no other.
        """
        objects = {obj for (_, name), obj in self.truth.items() if name == fact.relation}
        others = sorted(objects - {fact.object, self.truth[fact.key]})
        if not others:
            raise FactError(
                f"expected another object of {fact.relation!r} than {fact.object!r} and {self.truth[fact.key]!r}, "
                "found none; give the relation samples with three objects or more"
            )
        changed = self.relations[fact.relation].fact(fact.subject, str(rng.choice(others)))
        return replace(changed, true_object=self.truth[fact.key])


def templates_of(relation: Mapping[str, Any]) -> list[str]:
    """The distinct ``prompt_templates`` and ``prompt_templates_zs`` of a relation file, the first one first.

    Raises:
        KeyError: One of the two is missing.
    """
    return list(dict.fromkeys([*relation["prompt_templates"], *relation["prompt_templates_zs"]]))


def _relation(
    name: str, statements: list[str], questions: list[str], samples: dict[str, str]
) -> tuple[Relation, dict[str, str]]:
    if not all(isinstance(text, str) for text in (*statements, *questions, *samples, *samples.values())):
        raise TypeError(f"a template, a subject or an object of {name!r} that is no text")
    # As facts keep them: `truth` is looked up by the keys of facts.
    samples = {tidy(subject): tidy(obj) for subject, obj in samples.items()}
    objects = tuple(dict.fromkeys(samples.values()))
    return Relation(name, "real", objects, tuple(statements), tuple(questions)), samples
