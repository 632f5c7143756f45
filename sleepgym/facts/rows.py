"""Where the records of a data set come from: JSON, CSV, relation files, the hub. Each comes with its line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sleepgym.facts.fact import FactError
from sleepgym.facts.real import templates_of

Form = Literal["counterfact", "zsre", "relations", "jsonl", "csv", "hub"]

HUB = "hub:"
_LISTS = ("paraphrases", "questions", "neighbours", "answers")
_GAP = re.compile(r"[\s,]*")
# Always a key: within a string the quotation marks would be escaped.
_SAMPLES = re.compile(r'"samples"\s*:\s*\[')


@dataclass(frozen=True)
class Row:
    """A record (whatever was found in its place; a FactError if it was not legible) and where it starts."""

    source: str
    line: int
    record: Any


def read_rows(source: str, form: Form | None) -> Iterator[Row]:
    """The records of a file, a folder of relation files, or ``hub:owner/name[:split]``.

    Raises:
        FactError: The source cannot be read; the message names it, and the line of a syntax error.
    """
    if form == "hub" or source.startswith(HUB):
        yield from _hub(HUB + source.removeprefix(HUB))
        return
    path = Path(source)
    folder = path.is_dir() and form in (None, "relations")
    for file in sorted(path.glob("*.json")) if folder else [path]:
        try:
            # The -sig skips the byte order mark that spreadsheets write.
            text = file.read_bytes().decode("utf-8-sig")
            if form == "csv" or (form is None and file.suffix.lower() == ".csv"):
                yield from _csv(str(file), text)
            elif folder or form == "relations" or (form is None and _is_relation(text)):
                yield from _relation(file, text)
            elif text.lstrip().startswith("["):
                json.loads(text)
                yield from (Row(str(file), line, record) for line, record in _array(text, text.index("[")))
            else:
                yield from _json_lines(str(file), text)
        except json.JSONDecodeError as error:
            raise FactError(f"{file}, line {error.lineno}: expected JSON, found a syntax error: {error.msg}") from error
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            raise FactError(f"expected a readable UTF-8 file {file}, found {type(error).__name__}: {error}") from error


def _array(text: str, start: int) -> Iterator[tuple[int, Any]]:
    """The elements of the array that starts there, in valid JSON, each with its line."""
    decoder = json.JSONDecoder()
    line, counted, at = 1, 0, _after_gap(text, start + 1)
    while text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        record, at = decoder.raw_decode(text, at)
        yield line, record
        at = _after_gap(text, at)


def _after_gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _json_lines(source: str, text: str) -> Iterator[Row]:
    # Not splitlines: it also splits at separators that JSON strings may contain.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                record = FactError(f"expected JSON, found a syntax error in column {error.colno}: {error.msg}")
            yield Row(source, number, record)


def _is_relation(text: str) -> bool:
    return text.lstrip().startswith("{") and _SAMPLES.search(text) is not None


def _relation(file: Path, text: str) -> Iterator[Row]:
    """The samples of a file in the form of Hernandez et al. 2023, as plain records."""
    relation, start = json.loads(text), _SAMPLES.search(text)
    try:
        prompt, *paraphrases = templates_of(relation)
        if start is None:
            raise KeyError("samples")
    except (KeyError, TypeError, ValueError) as error:
        raise FactError(
            f"expected a relation with prompt_templates, prompt_templates_zs and samples in {file}, "
            f"found {type(error).__name__}: {error}"
        ) from error
    for line, sample in _array(text, start.end() - 1):
        if isinstance(sample, dict):
            sample = {**sample, "prompt": prompt, "paraphrases": paraphrases, "relation": file.stem}
        yield Row(str(file), line, sample)


def _csv(source: str, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                yield Row(source, line, _csv_record(header, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise FactError(f"{source}, line {reader.line_num}: expected CSV, found a syntax error: {error}") from error


def _csv_record(header: list[str], cells: list[str]) -> dict[str, Any] | FactError:
    if len(cells) != len(header):
        return FactError(f"expected {len(header)} cells as in the header, found {len(cells)}; quote cells with commas")
    record: dict[str, Any] = dict(zip(header, cells, strict=True))
    for name in _LISTS:
        if record.get(name, "").lstrip().startswith("["):
            try:
                record[name] = json.loads(record[name])
            except json.JSONDecodeError as error:
                return FactError(f"expected a JSON array in {name!r}, found {record[name]!r}: {error.msg}")
    return record


def _hub(source: str) -> Iterator[Row]:
    name, _, split = source.removeprefix(HUB).partition(":")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise FactError(
            f"expected the package datasets to load {source}, found none; pip install 'sleepgym[hub]'"
        ) from error
    try:
        data = load_dataset(name, split=split or None)
    except Exception as error:  # the network, the hub and every file format have errors of their own
        raise FactError(
            f"expected a data set on the hub for {source}, found {type(error).__name__}: {error}"
        ) from error
    if isinstance(data, dict):
        if len(data) != 1:
            raise FactError(
                f"expected a split, since {source} has {', '.join(data)}; found none; "
                f"write for example {HUB}{name}:{next(iter(data), 'train')}"
            )
        (data,) = data.values()
    yield from (Row(source, number, dict(record)) for number, record in enumerate(data, 1))
