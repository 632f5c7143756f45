"""The Open Memory Format, version 1.0: one JSON document with everything that is remembered.

Besides the fields of that format, ``extensions.sleepgym`` of an item has what a line of Markdown says and they do not:
all fields, the tier, the marker of a nested bullet. So a folder that is exported and imported holds the same notes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sleepgym.notes.bullet import TIERS, Bullet, Tier
from sleepgym.notes.document import TITLE, Block, closed
from sleepgym.notes.errors import NotesError
from sleepgym.notes.merging import Incoming
from sleepgym.notes.paths import SUFFIX, checked, file_key
from sleepgym.notes.reading import MAX_IMPORT_BYTES
from sleepgym.notes.store import NoteStore
from sleepgym.notes.texts import field_name, note_text, one_line
from sleepgym.reading import first_mistake

VERSION = "1.0"
MAX_ITEMS = 200_000
"""Items of the largest document that is imported."""
ELSEWHERE = "personal/imported.md"
"""File of items that name none."""

_DOCUMENT_CHARACTERS = 500  # longer texts of several lines are documents, and stay as they are
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class _Own(BaseModel):
    """What only notes have; see the module."""

    model_config = ConfigDict(extra="forbid")
    tier: Tier = "long_term"
    fields: list[tuple[str, str]] = []
    marker: str = Field("- ", pattern=r"^[ \t]*([-*+]|[0-9]{1,9}[.)])[ \t]+$")
    text: str = ""
    more: list[str] = []
    prose: bool = False
    heading: str = ""
    title: str = ""


class _Item(BaseModel):
    model_config = ConfigDict(extra="allow")
    content: str = Field(min_length=1)
    category: str | None = None
    tags: list[str] = []
    status: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    expires_at: str | None = None
    extensions: dict[str, Any] = {}


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore")
    omf: Literal["1.0"]
    memories: list[_Item] = Field(max_length=MAX_ITEMS)


def exported_omf(store: NoteStore) -> str:
    """The whole folder as one document, in the order of files and lines.

    Raises:
        NotesError: A file is no text or too large.
        OSError: A file cannot be read.
    """
    items = [item for path in store.files() for item in _items(store, path)]
    document = {
        "omf": VERSION,
        "exported_at": store.clock().astimezone().isoformat(timespec="seconds"),
        "source": {"app": "sleepgym"},
        "memories": items,
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def read_omf(text: str) -> list[Incoming]:
    """What a document brings, checked as a whole.

    An item goes to the file that it names, in ``extensions`` of nanomem or ``oa-chat``, or to that of its category.
    What the format does not know is kept in a field ``omf`` of the note.

    Args:
        text: The JSON.

    Raises:
        NotesError: It is too large, is no such document, or an item names a file outside the folder or cannot be
            written.
    """
    if len(text) > MAX_IMPORT_BYTES:
        raise NotesError(f"expected at most {MAX_IMPORT_BYTES} characters, found {len(text)}; split the document")
    try:
        document = _Document.model_validate_json(text)
    except ValidationError as error:
        raise NotesError(
            f"expected a document of the Open Memory Format {VERSION}, found {first_mistake(error)}; correct it"
        ) from error
    out = []
    for number, item in enumerate(document.memories):
        try:
            out.append(_incoming(item))
        except (NotesError, ValidationError) as error:
            what = str(error)
            if isinstance(error, ValidationError):
                what = f"expected extensions.sleepgym as exported, found {first_mistake(error)}; leave it out"
            raise NotesError(f"memories.{number}: {what}") from error
    return out


@dataclass(frozen=True)
class _Where:
    """What an item says of its file."""

    path: str
    is_document: bool


def _items(store: NoteStore, path: str) -> Iterator[dict[str, Any]]:
    """Items of a file: one per bullet, and one per paragraph that a person wrote."""
    prose: list[Block] = []
    document = store.read(path)
    for block in document.blocks:
        if block.prose:
            prose.append(block)
            continue
        if prose:
            yield _prose(path, document.title, prose)
            prose = []
        if block.bullet is not None and block.bullet.words:
            yield _bullet(path, document.title, block, block.bullet)
    if prose:
        yield _prose(path, document.title, prose)


def _prose(path: str, title: str, blocks: list[Block]) -> dict[str, Any]:
    content = "\n".join(line.removesuffix("\r") for block in blocks for line in block.lines)
    first = blocks[0]
    return _item(path, title, content, first, {"prose": True, "tier": first.tier})


def _bullet(path: str, title: str, block: Block, one: Bullet) -> dict[str, Any]:
    own: dict[str, Any] = {"tier": block.tier, "fields": [list(field) for field in one.fields]}
    if one.marker != "- ":
        own["marker"] = one.marker
    if one.more:
        own |= {"text": one.text, "more": [line.removesuffix("\r") for line in one.more]}
    item = _item(path, title, one.words, block, own)
    if one.topic:
        item["tags"] = [one.topic]
    if not one.holds(block.tier):
        item["status"] = "expired" if one.status() == "expired" else "archived"
    for name in ("created_at", "updated_at", "expires_at"):
        if found := _DATE.match(one.get(name) or ""):
            item[name] = found[0]
    return item


def _item(path: str, title: str, content: str, block: Block, own: dict[str, Any]) -> dict[str, Any]:
    own["title"] = title
    if block.tier == "long_term" and block.heading.removeprefix(TITLE) != title:
        own["heading"] = block.heading
    return {
        "content": content,
        "category": path.removesuffix(SUFFIX).removesuffix("/about"),
        "extensions": {"nanomem": {"file_path": path, "heading": block.heading}, "sleepgym": own},
    }


def _incoming(item: _Item) -> Incoming:
    where = _where(item)
    if "sleepgym" in item.extensions:
        own = _Own.model_validate(item.extensions["sleepgym"])
        heading, title = one_line(own.heading, "a heading"), one_line(own.title, "a title")
        if own.prose:
            return Incoming(where.path, own.tier, None, heading, title, _lines(item.content))
        fields = tuple((field_name(name), one_line(value, name)) for name, value in own.fields)
        more = tuple(_continued(line) for line in own.more)
        text = one_line(own.text, "a text") if more else note_text(item.content)
        return Incoming(where.path, own.tier, Bullet(text, fields, own.marker, more), heading, title)
    if where.is_document:
        return Incoming(where.path, "long_term", prose=_lines(item.content))
    return _foreign(where.path, item)


def _foreign(path: str, item: _Item) -> Incoming:
    """A bullet of what another program has exported."""
    gone = item.status in ("archived", "expired")
    status = {"archived": "superseded", None: "active"}.get(item.status, item.status)
    known = ("nanomem", "oa-chat")
    other = {name: value for name, value in item.extensions.items() if name not in known}
    rest: dict[str, Any] = {**(item.model_extra or {}), **({"extensions": other} if other else {})}
    if item.tags[1:]:
        rest["tags"] = item.tags[1:]
    fields = {
        "topic": item.tags[0] if item.tags else None, "tier": TIERS[2] if gone else TIERS[1], "status": status,
        "updated_at": item.updated_at, "expires_at": item.expires_at, "created_at": item.created_at,
        "omf": json.dumps(rest, ensure_ascii=False, separators=(",", ":")) if rest else None,
    }  # fmt: skip
    first, *more = (line.strip() for line in item.content.strip().split("\n") if line.strip())
    lines = tuple(f"  {note_text(line)}" for line in more)
    return Incoming(path, "history" if gone else "long_term", Bullet(note_text(first), more=lines).having(**fields))


def _where(item: _Item) -> _Where:
    named = [item.extensions.get(name) for name in ("nanomem", "oa-chat")]
    places = [one for one in named if isinstance(one, dict)]
    is_document = any(one.get("document") is True for one in places) or (
        len(item.content) > _DOCUMENT_CHARACTERS and "\n" in item.content
    )
    path = next((one["file_path"] for one in places if isinstance(one.get("file_path"), str)), None)
    if path is not None:
        return _Where(checked(path), is_document)
    if not item.category:
        return _Where(ELSEWHERE, is_document)
    keys = [file_key(part) for part in item.category.split("/") if part]
    return _Where(checked("/".join(keys if len(keys) > 1 else [*keys, "about"]) + SUFFIX), is_document)


def _lines(content: str) -> tuple[str, ...]:
    lines = content.strip("\n").split("\n")
    for line in lines:
        one_line(line, "a line")
    return closed(tuple(line.removesuffix("\r") for line in lines))


def _continued(line: str) -> str:
    one_line(line, "a line")
    return line
