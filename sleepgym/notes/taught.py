"""What was taught last, fact by fact: kept beside the notes, so that what a person has edited since can be told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sleepgym.facts.fact import Fact, FactError
from sleepgym.notes.errors import NotesError
from sleepgym.notes.paths import SUFFIX, TAUGHT, TAUGHT_SUFFIX
from sleepgym.reading import first_mistake


class Taught(BaseModel):
    """A fact as it was taught, and the text of its note then."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    subject: str
    prompt: str
    object: str
    relation: str
    paraphrases: tuple[str, ...]
    questions: tuple[str, ...]
    neighbours: tuple[tuple[str, str], ...]
    true_object: str
    joiner: str | None
    text: str

    @property
    def fact(self) -> Fact:
        """The fact.

        Raises:
            FactError: It is none.
        """
        return Fact(**self.model_dump(exclude={"text"}))


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    facts: tuple[Taught, ...]


def taught(fact: Fact, text: str) -> Taught:
    """A fact with the text of its note."""
    return Taught(
        subject=fact.subject, prompt=fact.prompt, object=fact.object, relation=fact.relation,
        paraphrases=fact.paraphrases, questions=fact.questions, neighbours=fact.neighbours,
        true_object=fact.true_object, joiner=fact.joiner, text=text,
    )  # fmt: skip


def taught_name(path: str) -> str:
    """The file that says what was taught of the notes of a file."""
    return f"{TAUGHT}{path}{TAUGHT_SUFFIX}"


def taught_files(root: Path) -> Iterator[str]:
    """Paths of the files of notes of which something was taught, whether they are still there or not."""
    folder = root / TAUGHT
    for place in sorted(folder.rglob(f"*{SUFFIX}{TAUGHT_SUFFIX}")):
        yield place.relative_to(folder).as_posix().removesuffix(TAUGHT_SUFFIX)


def read_taught(text: str | None, name: str) -> dict[str, Taught]:
    """What was taught, by relation.

    Args:
        text: Of the file; None: nothing was.
        name: Of the file, for the message.

    Raises:
        NotesError: The file is damaged.
    """
    if text is None:
        return {}
    try:
        read = {one.relation: one for one in _File.model_validate_json(text).facts}
        for one in read.values():
            _ = one.fact
    except (ValidationError, FactError) as error:
        what = first_mistake(error) if isinstance(error, ValidationError) else str(error)
        raise NotesError(
            f"expected what was taught in {name}, found {what}; delete the file, then all of its facts count as new"
        ) from error
    return read


def written_taught(facts: Iterable[Taught]) -> str | None:
    """Text of the file; None if nothing was taught."""
    content = _File(facts=tuple(facts))
    return content.model_dump_json(indent=1) + "\n" if content.facts else None
