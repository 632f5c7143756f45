"""Draws the rooms of the package and what they import, into docs/architecture.md.

    python scripts/architecture.py

An arrow leads from a room to one that it imports. Where a room is reached through another one, the direct arrow is left
out.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sleepgym"
BEGIN, END = "<!-- begin: written by `make docs` -->\n", "<!-- end -->"


@dataclass
class Args:
    page: Path = ROOT / "docs" / "architecture.md"
    """page with the two marks that the diagram goes between"""


def main(args: Args) -> None:
    before, _, rest = args.page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    args.page.write_text(f"{before}{BEGIN}{diagram(reduced(rooms()))}{END}{after}", encoding="utf-8")


@cache
def modules() -> dict[str, Path]:
    """Returns the file of every module of the package, by name."""
    return {
        ".".join(("sleepgym", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def imported(path: Path) -> frozenset[str]:
    """Returns the names of all modules that a file imports, wherever in it."""
    known, found = modules(), set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # What is taken from a package may be a module of it.
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in inner.values()}
    return frozenset(found)


def room_of(module: str) -> str:
    """Returns the room of a module, a folder or file directly in the package; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def rooms() -> dict[str, set[str]]:
    """Returns the rooms that each room imports, without the package's own files, which all may use."""
    graph: dict[str, set[str]] = {}
    for name, path in modules().items():
        room = room_of(name)
        others = {room_of(other) for other in imported(path) if other.split(".")[0] == "sleepgym"}
        graph.setdefault(room, set()).update(others - {room})
    return {
        room: {other for other in others if is_folder(other)}
        for room, others in sorted(graph.items())
        if is_folder(room)
    }


def is_folder(room: str) -> bool:
    """Tells rooms that are drawn from small files: those that everything uses, and old names."""
    return room == "sleeper" or (room not in ("", "moved") and (PACKAGE / room).is_dir())


def reduced(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Leaves out arrows that a longer way replaces (the transitive reduction of a graph without circles)."""

    def reached(room: str) -> set[str]:
        return {room}.union(*(reached(other) for other in graph[room]))

    return {
        room: {other for other in others if not any(other in reached(via) for via in others - {other})}
        for room, others in graph.items()
    }


def diagram(graph: Mapping[str, set[str]]) -> str:
    """Returns the graph as a Mermaid block, the uppermost room first."""
    order = list(TopologicalSorter({room: sorted(others) for room, others in graph.items()}).static_order())[::-1]
    lines = [f"    {room} --> {other}" for room in order for other in sorted(graph[room])]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```", ""])


if __name__ == "__main__":
    main(tyro.cli(Args))
