"""Where the records of a data set come from: JSON, CSV, relation files, the hub. Each comes with its line."""

from __future__ import annotations

import csv
import io
import json
import reprlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sleepgym.facts.json_rows import json_rows
from sleepgym.facts.records import listed
from sleepgym.facts.texts import FactError
from sleepgym.reading import found_in, read_bytes

Form = Literal["counterfact", "zsre", "relations", "jsonl", "csv", "hub"]

HUB = "hub:"
MAX_BYTES = 256 * 2**20
"""Size of the largest file of records; what is parsed takes several times that in memory."""
_LISTS = ("paraphrases", "questions", "neighbours", "answers", "ground_truth", "rephrase_prompt")


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
    try:
        folder = path.is_dir() and form in (None, "relations")
        found = sorted(path.glob("*.json")) if folder else [path]
    except OSError as error:
        raise FactError(f"expected a readable file or folder {source!r}, found {error}") from error
    for file in found:
        try:
            # The -sig skips the byte order mark that spreadsheets write.
            text = read_bytes(file, MAX_BYTES).decode("utf-8-sig")
            if form == "csv" or (form is None and file.suffix.lower() == ".csv"):
                yield from _csv(str(file), text)
            else:
                relation = True if folder or form == "relations" else None if form is None else False
                yield from (Row(str(file), line, record) for line, record in json_rows(file, text, relation))
        except json.JSONDecodeError as error:
            raise FactError(f"{file}, line {error.lineno}: expected JSON, found a syntax error: {error.msg}") from error
        except FactError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise FactError(
                f"expected a readable UTF-8 file {file}, found {found_in(error)}; check its name and what is in it"
            ) from error


def _csv(source: str, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        twice = sorted(name for name, times in Counter(header).items() if times > 1)
        if twice:
            raise FactError(f"{source}, line 1: expected each column once, found {listed(twice)} twice; rename one")
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
            except (ValueError, RecursionError) as error:
                return FactError(f"expected a JSON array in {name!r}, found {reprlib.repr(record[name])}: {error}")
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
