"""Records in JSON: arrays, objects, lines, wrappers and relation files. Each comes with the line it starts on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sleepgym.facts.real import templates_of
from sleepgym.facts.records import form_of, listed
from sleepgym.facts.texts import FactError

Placed = tuple[int, Any]
"""A line, and the record that starts on it: whatever was found in its place, a FactError if it is not legible."""

_GAP = re.compile(r"[\s,:\ufeff]*")


class _RepeatedKeyError(Exception):
    """One key of an object has two values."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    for key, value in pairs:
        if record[key] != value:
            raise _RepeatedKeyError(
                f"expected one value for each key, found two for {key!r}: {value!r} and {record[key]!r}; keep one"
            )
    return record


_DECODER = json.JSONDecoder()
_CAREFUL = json.JSONDecoder(object_pairs_hook=_object)


def json_rows(file: Path, text: str, relation: bool | None) -> Iterator[Placed]:
    """The records of a JSON file.

    Args:
        file: Its name is the relation's, if it is a relation file.
        text: What is in it: an array, an object per line or after another, one object, or one around an array.
        relation: Whether it is a relation file; None to tell by the key ``samples``.

    Raises:
        JSONDecodeError: It is no JSON.
        FactError: It is an object around several arrays, or a relation without its parts.
    """
    text = text.lstrip("\ufeff")
    if relation:
        yield from _relation(file, text)
    elif text.lstrip().startswith("["):
        json.loads(text)
        yield from _array(text, text.index("["))
    else:
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield from _several(text, error)
            return
        if not isinstance(whole, dict):
            yield _line_of(text, _after_gap(text, 0)), whole
        elif relation is None and "samples" in whole and form_of(whole) is None:
            yield from _relation(file, text)
        elif form_of(whole) is None:
            yield from _wrapped(text, whole)
        else:
            start = text.index("{")
            yield _line_of(text, start), _record(text, start)[0]


def _several(text: str, error: Exception) -> Iterator[Placed]:
    """Records in lines, or, where no line is one by itself, one after the other.

    Raises:
        Exception: There is no record at all: the error that reading all of it ended in.
    """
    # Not splitlines: it also splits at separators that JSON strings may contain.
    lines = [line.strip("\ufeff \t\r") for line in text.split("\n")]
    if not text.strip():
        return
    if any(map(_is_record, lines)) or len([line for line in lines if line]) == 1:
        for number, line in enumerate(lines, 1):
            if line:
                yield number, _line(line)
        return
    at = _after_gap(text, 0)
    try:
        _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        raise error from None
    while at < len(text):
        record, end = _record(text, at)
        yield _line_of(text, at), record
        at = _after_gap(text, end)


def _line(line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        return FactError(f"expected JSON, found a syntax error in column {error.colno}: {error.msg}")
    except (_RepeatedKeyError, RecursionError, ValueError) as error:  # numbers of thousands of digits are a ValueError
        return FactError(str(error) if isinstance(error, _RepeatedKeyError) else f"expected JSON, found {error}")


def _is_record(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        return bool(json.loads(line))
    except (ValueError, RecursionError):
        return False


def _record(text: str, at: int) -> tuple[Any, int]:
    """The value that starts there in JSON text, and where it ends; a FactError if it contradicts itself."""
    try:
        return _CAREFUL.raw_decode(text, at)
    except _RepeatedKeyError as error:
        return FactError(str(error)), _DECODER.raw_decode(text, at)[1]


def _array(text: str, start: int) -> Iterator[Placed]:
    """The elements of the array that starts there, in valid JSON, each with its line."""
    line, counted, at = 1, 0, _after_gap(text, start + 1)
    while text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        record, at = _record(text, at)
        yield line, record
        at = _after_gap(text, at)


class _Member(NamedTuple):
    key: str
    start: int
    value: Any


def _members(text: str) -> Iterator[_Member]:
    """The keys of the object that the text, which is valid JSON, consists of, and where their values start."""
    at = _after_gap(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        start = _after_gap(text, at)
        value, at = _DECODER.raw_decode(text, start)
        yield _Member(key, start, value)
        at = _after_gap(text, at)


def _wrapped(text: str, whole: dict[str, Any]) -> Iterator[Placed]:
    """The records that an object holds, in an array or by name, if there is no doubt which they are.

    Raises:
        FactError: It holds several arrays of records.
    """
    members = list(_members(text))
    arrays = [m for m in members if isinstance(m.value, list) and any(isinstance(item, dict) for item in m.value)]
    named = [m for m in members if isinstance(m.value, dict) and form_of(m.value) is not None]
    if len(arrays) > 1:
        raise FactError(
            f"expected one list of records, found {len(arrays)}: {listed(repr(m.key) for m in arrays)}; "
            "write the one that is meant into a file of its own"
        )
    if arrays and not named:
        yield from _array(text, arrays[0].start)
    elif named and len(named) == len(members):
        yield from ((_line_of(text, m.start), _record(text, m.start)[0]) for m in members)
    else:
        yield _line_of(text, text.index("{")), whole


def _relation(file: Path, text: str) -> Iterator[Placed]:
    """The samples of a file in the form of Hernandez et al. 2023, as plain records."""
    relation = json.loads(text)
    try:
        prompt, *paraphrases = templates_of(relation)
        start = next(m.start for m in _members(text) if m.key == "samples" and isinstance(m.value, list))
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise FactError(
            f"expected a relation with prompt_templates, prompt_templates_zs and samples in {file}, "
            f"found {type(error).__name__}: {error}"
        ) from error
    for line, sample in _array(text, start):
        if isinstance(sample, dict):
            sample = {**sample, "prompt": prompt, "paraphrases": paraphrases, "relation": file.stem}
        yield line, sample


def _after_gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _line_of(text: str, at: int) -> int:
    return 1 + text.count("\n", 0, at)
