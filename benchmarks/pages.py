"""Rebuilds the tables of every page, and its pictures, from committed records; no model is run.

    python benchmarks/pages.py
    python benchmarks/pages.py --check
    python benchmarks/pages.py --only docs/sleep.md

Words around the tables are a person's and stay. ``--check`` changes nothing, and ends with status 1 if a table is not
what its record says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from benchmarks import (
    architectures,
    candidates,
    dreams_page,
    editing_report,
    fastweights_page,
    headroom,
    keeping_page,
    learners,
    notes,
    notes_page,
    results_page,
    sim_page,
    sleep_report,
    soak,
    throughput_page,
    tiny_page,
    tuning_page,
    wear,
)
from benchmarks.common import markdown, plots, records
from benchmarks.common.markdown import Blocks


def editing(root: Path) -> editing_report.Args:
    return editing_report.Args(root / "docs/editing", root / "docs/editing.md")


def results(root: Path) -> results_page.Args:
    return results_page.Args(root / "docs/results", root / "docs/results.md", root / "agents/pretrained")


def notes_policies(root: Path) -> Blocks:
    return notes.policies(records.read(root / "docs/environments/notes.json"), root)


def sleep(root: Path) -> sleep_report.Args:
    return sleep_report.Args(root / "docs/sleep", root / "docs/sleep.md")


def tiny(root: Path) -> tiny_page.Args:
    models = root / "docs/models"
    return tiny_page.Args(models / "tiny.json", models / "tiny.md", models / "tiny.png")


def _beside(page: str, contents: Callable[[records.Record], Blocks]) -> Callable[[Path], Blocks]:
    """Blocks of a page whose record has the same name."""
    return lambda root: contents(records.read((root / page).with_suffix(".json")))


PAGES: Mapping[str, Callable[[Path], Blocks]] = {
    "agents/pretrained/README.md": lambda root: {**results_page.policies(results(root)), **notes_policies(root)},
    "docs/architectures.md": _beside("docs/architectures.md", architectures.contents),
    "docs/dreams.md": lambda root: dreams_page.contents(root / "docs/dreams"),
    "docs/editing.md": lambda root: editing_report.contents(editing(root)),
    "docs/environments/candidates.md": _beside("docs/environments/candidates.md", candidates.contents),
    "docs/environments/headroom.md": lambda root: headroom.recorded(root / "docs/environments/headroom.json"),
    "docs/environments/notes.md": _beside("docs/environments/notes.md", notes.contents),
    "docs/environments/sim.md": _beside("docs/environments/sim.md", sim_page.contents),
    "docs/environments/throughput.md": _beside("docs/environments/throughput.md", throughput_page.contents),
    "docs/environments/tuning.md": _beside("docs/environments/tuning.md", tuning_page.contents),
    "docs/environments/wear.md": _beside("docs/environments/wear.md", wear.contents),
    "docs/fastweights.md": lambda root: fastweights_page.contents(root / "docs/fastweights"),
    "docs/learners.md": _beside("docs/learners.md", learners.contents),
    "docs/models/tiny.md": _beside("docs/models/tiny.md", tiny_page.contents),
    "docs/notes.md": lambda root: notes_page.contents(root / "docs/notes"),
    "docs/real_model.md": lambda root: keeping_page.contents(root / "docs/real_model"),
    "docs/results.md": lambda root: results_page.contents(results(root)),
    "docs/robustness.md": _beside("docs/robustness.md", soak.contents),
    "docs/sleep.md": lambda root: sleep_report.contents(sleep(root)),
}
"""Generated blocks of every page, as a function of the root of the repository."""

PICTURES: Mapping[str, Callable[[Path], Mapping[Path, Figure]]] = {
    "docs/editing.md": lambda root: editing_report.pictures(editing(root)),
    "docs/environments/notes.md": lambda root: notes.pictures(root / "docs/environments/notes.json"),
    "docs/environments/wear.md": lambda root: wear.pictures(root / "docs/environments/wear.json"),
    "docs/models/tiny.md": lambda root: tiny_page.pictures(tiny(root)),
    "docs/results.md": lambda root: results_page.pictures(results(root)),
    "docs/sleep.md": lambda root: sleep_report.pictures(sleep(root)),
}
"""Pictures of pages, by file."""


@dataclass
class Args:
    root: Path = records.ROOT
    """folder that docs are in"""
    only: tuple[str, ...] = field(default_factory=lambda: tuple(PAGES))
    """pages, by default all"""
    check: bool = False
    """say whether tables are up to date instead of writing them"""
    pictures: bool = True
    """draw pictures as well"""


def rebuilt(root: Path, page: str) -> str:
    """Text of a page as it should be."""
    return markdown.filled((root / page).read_text(encoding="utf-8"), PAGES[page](root), page)


def main(args: Args) -> None:
    if unknown := sorted(set(args.only) - set(PAGES)):
        raise SystemExit(f"expected --only among {', '.join(PAGES)}, found {', '.join(unknown)}")
    texts = {args.root / page: rebuilt(args.root, page) for page in args.only}
    stale = {path: text for path, text in texts.items() if path.read_text(encoding="utf-8") != text}
    if args.check:
        if stale:
            names = " and ".join(path.name for path in stale)
            sys.exit(f"expected what the records say, found something else in {names}; run `make pages`")
        return
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    if args.pictures:
        for page in set(args.only) & set(PICTURES):
            for path, figure in PICTURES[page](args.root).items():
                plots.save(figure, path)


if __name__ == "__main__":
    main(tyro.cli(Args))
