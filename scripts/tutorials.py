"""Makes a page and a notebook of each tutorial: of ``examples/tutorials/NAME.py``, in ``docs/tutorials``.

    python scripts/tutorials.py

The scripts are in the percent format, which editors run cell by cell. Needs the extra `docs`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
import tyro

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "examples" / "tutorials"
CHECKERS = re.compile(r"  # (?:type: ignore|noqa).*$", flags=re.MULTILINE)
"""Comments for type checker and linter, which readers need not see."""


@dataclass
class Args:
    out: Path = ROOT / "docs" / "tutorials"
    """folder of the pages and notebooks"""


def main(args: Args) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    for script in sorted(SCRIPTS.glob("*.py")):
        for name, text in made_of(script).items():
            (args.out / name).write_text(text, encoding="utf-8")


def made_of(script: Path) -> dict[str, str]:
    """Returns the page and the notebook of a script, by the names of their files."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    parts = []
    for number, cell in enumerate(notebook.cells):
        # Not drawn at random, or every run would change every file.
        cell.id, cell.metadata = f"cell-{number}", {}
        cell.source = CHECKERS.sub("", cell.source)
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
    title, _, first = parts[0].partition("\n")
    where = f"[Notebook]({script.stem}.ipynb) · [script](../../examples/tutorials/{script.name})"
    page = "\n\n".join([title, where, first.strip(), *parts[1:]]) + "\n"
    return {f"{script.stem}.md": page, f"{script.stem}.ipynb": nbformat.writes(notebook, indent=1) + "\n"}


if __name__ == "__main__":
    main(tyro.cli(Args))
