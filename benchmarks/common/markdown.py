"""Pages of a person's words and generated tables: the tables stand between markers, the words around them.

A marked block is written as::

    <!-- NAME: written by benchmarks/SCRIPT.py -->

    table

    <!-- end of NAME -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Blocks = Mapping[str, str]
"""Generated Markdown by the name of its markers."""

_BLOCK = re.compile(
    r"(<!-- (?P<name>[^\n:]+): written by [^\n]+ -->\n)(?P<content>.*?)(<!-- end of (?P=name) -->)", re.S
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def interval(found: Mapping[str, Any], form: str = ".2f", middle: str = "median") -> str:
    """A figure with its range in brackets.

    Args:
        found: Has ``lowest``, ``highest`` and the figure.
        form: How each is formatted.
        middle: Key of the figure.
    """
    low, high = found["lowest"], found["highest"]
    return f"{found[middle]:{form}} ({low:{form}} to {high:{form}})"


def blocks(text: str) -> dict[str, str]:
    """Content of every marked block of a page, by name."""
    return {found["name"]: found["content"].strip("\n") for found in _BLOCK.finditer(text)}


def filled(text: str, contents: Blocks, page: str = "the page") -> str:
    """A page with the content of some of its blocks replaced.

    Args:
        text: The page.
        contents: New contents; blocks with other names stay as they are.
        page: What an error calls it.

    Raises:
        ValueError: A block is not in the page.
    """
    if missing := sorted(set(contents) - set(blocks(text))):
        raise ValueError(
            f"expected <!-- {missing[0]}: written by ... --> and <!-- end of {missing[0]} --> in {page}, found no such "
            "pair; put it where the table belongs"
        )

    def put(found: re.Match[str]) -> str:
        content = contents.get(found["name"])
        if content is None:
            return found[0]
        body = content.strip("\n")
        return f"{found[1]}\n{body}\n\n{found[4]}" if body else found[1] + found[4]

    return _BLOCK.sub(put, text)


def skeleton(title: str, script: str, names: Iterable[str]) -> str:
    """A page with nothing but a heading and empty blocks."""
    marks = [f"<!-- {name}: written by {script} -->\n<!-- end of {name} -->" for name in names]
    return "\n\n".join([f"# {title}", *marks]) + "\n"


def write(path: Path, contents: Blocks, title: str, script: str) -> None:
    """Fills a page's blocks; a page that does not exist is begun with a heading and nothing else.

    Args:
        path: Markdown file.
        contents: Contents by block.
        title: Heading of a new page.
        script: Who the markers of a new page say writes them.

    Raises:
        ValueError: The page exists and lacks a block.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else skeleton(title, script, contents)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(filled(text, contents, path.name), encoding="utf-8")
