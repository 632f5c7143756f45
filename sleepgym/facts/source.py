"""Where an episode's facts come from: the bundled model's world, or a file of facts about anything."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sleepgym.facts.fact import Fact, FactError
from sleepgym.facts.world import SPLITS, Split, World


class FactSource(Protocol):
    """What a stream needs: facts the model does not know yet, changes of them, and facts it does know."""

    def new_facts(self, rng: np.random.Generator, n: int, split: Split) -> list[Fact]:
        """Draws ``n`` facts about different subjects of a split; no subject is in two splits."""

    def update(self, rng: np.random.Generator, fact: Fact) -> Fact:
        """The same ``(subject, relation)`` with another object."""

    def known_facts(self) -> list[Fact]:
        """Facts the model was trained on, in a fixed order."""


class WorldSource:
    """Facts about the people of a world whom its model was never taught about."""

    def __init__(self, world: World) -> None:
        self.world = world

    def new_facts(self, rng: np.random.Generator, n: int, split: Split) -> list[Fact]:
        """See :meth:`FactSource.new_facts`."""
        return self.world.new_facts(rng, n, split)

    def update(self, rng: np.random.Generator, fact: Fact) -> Fact:
        """See :meth:`FactSource.update`."""
        return self.world.draw_fact(rng, fact.subject, self.world.relations[fact.relation], exclude=fact.object)

    def known_facts(self) -> list[Fact]:
        """See :meth:`FactSource.known_facts`."""
        return self.world.trained_facts()


class FileSource:
    """Facts of a JSON file: ``{"facts": [...], "known": [...]}``, each an object with the fields of a fact.

    Subjects are dealt out to the splits in turn, in the order of the file. An update takes the object of
    another fact of the same relation.

    Args:
        path: The file; a relative path that does not exist here is looked up in ``sleepgym/facts``.

    Raises:
        FactError: The file is missing or a fact in it is not usable.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file() and not self.path.is_absolute():
            self.path = Path(str(resources.files("sleepgym.facts"))) / path
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FactError(f"expected a JSON file of facts at {self.path}, found {error}; check the path") from error
        if not isinstance(data, dict) or not {"facts", "known"} <= data.keys():
            raise FactError(f"expected the keys 'facts' and 'known' in {self.path.name}, found {_keys(data)}")
        self._facts = [self._fact(raw) for raw in data["facts"]]
        self._known = [self._fact(raw) for raw in data["known"]]
        subjects = list(dict.fromkeys(fact.subject for fact in self._facts))
        self._subjects: dict[Split, list[str]] = {s: subjects[i :: len(SPLITS)] for i, s in enumerate(SPLITS)}

    def _fact(self, raw: Any) -> Fact:
        try:
            lists = {name: tuple(raw[name]) for name in ("paraphrases", "questions") if name in raw}
            return Fact(**{**raw, **lists})
        except (TypeError, ValueError) as error:
            raise FactError(
                f"expected subject, prompt, object, relation, paraphrases and questions in {self.path.name}, "
                f"found {raw!r} ({error})"
            ) from error

    def new_facts(self, rng: np.random.Generator, n: int, split: Split) -> list[Fact]:
        """See :meth:`FactSource.new_facts`."""
        subjects = self._subjects[split]
        if n > len(subjects):
            raise FactError(
                f"expected at most {len(subjects)} facts from split {split!r} of {self.path.name}, "
                f"found a request for {n}; lower max_new_facts or add subjects"
            )
        chosen = []
        for index in rng.choice(len(subjects), size=n, replace=False):
            about = [fact for fact in self._facts if fact.subject == subjects[int(index)]]
            chosen.append(about[int(rng.integers(len(about)))])
        return chosen

    def update(self, rng: np.random.Generator, fact: Fact) -> Fact:
        """See :meth:`FactSource.update`."""
        objects = sorted({f.object for f in self._facts if f.relation == fact.relation} - {fact.object})
        if not objects:
            raise FactError(
                f"expected another object of relation {fact.relation!r} in {self.path.name}, found none; "
                "give each relation at least two objects"
            )
        return Fact(
            subject=fact.subject,
            prompt=fact.prompt,
            object=str(rng.choice(objects)),
            relation=fact.relation,
            paraphrases=fact.paraphrases,
            questions=fact.questions,
        )

    def known_facts(self) -> list[Fact]:
        """See :meth:`FactSource.known_facts`."""
        return list(self._known)


def _keys(data: Any) -> str:
    return str(sorted(data)) if isinstance(data, dict) else type(data).__name__
