"""JSON records of measurements, with the circumstances under which they were taken."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markdown import Markdown

from sleepgym import __version__

Record = dict[str, Any]
"""Content of a JSON file of results."""

ROOT = Path(__file__).parents[2]
"""Root of the repository, where ``docs`` lies."""

BUSY = 1.5
"""Load average from which a machine counts as shared with other work."""


def machine(device: str = "cpu") -> str:
    """Processor or GPU, cores, threads and torch version, in words.

    Of a CPU the widest vectors that torch uses are named: results differ between them once a sum is rounded otherwise.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    cpu = f"{platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"
    name = torch.cuda.get_device_name() if device.startswith("cuda") else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def command(arguments: list[str] | None = None, places: Mapping[str, Path | None] | None = None) -> str:
    """Command line of the running script, as typed from the root of the repository.

    Args:
        arguments: Script and arguments; by default those of this process.
        places: Files and folders of this machine, by the name that stands for each.
    """
    script, *rest = arguments if arguments is not None else sys.argv
    path = Path(script).absolute()
    shown = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    text = shlex.join(["python", shown, *rest])
    for name, place in (places or {}).items():
        text = text.replace(str(place), name)
    return text


def circumstances(seeds: int | None = None, device: str = "cpu") -> Record:
    """Machine, version, command and load average at this moment: the first keys of every record.

    Args:
        seeds: Number of draws, where there are several.
        device: ``cpu`` or ``cuda``.
    """
    found: Record = {
        "machine": machine(device),
        "version": __version__,
        "command": command(),
        "load before": round(os.getloadavg()[0], 2),
    }
    return found if seeds is None else found | {"seeds": seeds}


def was_busy(record: Mapping[str, Any]) -> bool:
    """Whether other programs were running when a measurement began."""
    return bool(record["load before"] > BUSY)


def load_in_words(record: Mapping[str, Any]) -> str:
    """Whether a measurement shared the machine, and the load average before it."""
    shared = "shared with other work" if was_busy(record) else "otherwise idle"
    return f"{shared} (load {record['load before']:.1f} before)"


def present(record: Mapping[str, Any], table: str, out: Path | None) -> None:
    """Prints the table of a record, and writes the record.

    Args:
        record: Content.
        table: Markdown of it.
        out: JSON file; None for none.
    """
    Console(width=150).print(Markdown(table))
    if out is not None:
        write(out, record)


def write(path: Path, record: Mapping[str, Any], indent: int | None = 1) -> None:
    """Writes a record, making its folder if needed.

    Args:
        path: JSON file.
        record: Content.
        indent: Spaces per level; None for one line, for records of many numbers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=indent) + "\n", encoding="utf-8")


def read(path: Path) -> Record:
    """Content of a record.

    Raises:
        ValueError: The file holds something else than a JSON object.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object in {path}, found a {type(record).__name__}")
    return record
