"""Generates docs/environments and docs/schedulers.md from the code and the cards.

Sources are the docstrings of SleepEnv and FastWeightsEnv, their features and actions, the cards with the docstrings of
their sections, and the docstrings of the hand-written schedulers. ``--check`` writes nothing, and exits with status 1
if a page is out of date.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import tyro

from sleepgym.env.fastweights.card import FOLDER, FastWeightsCard, load_fast_card
from sleepgym.env.fastweights.env import FastWeightsEnv
from sleepgym.env.fastweights.features import FEATURES
from sleepgym.env.observation import (
    LEDGER_FEATURES,
    NOTES_LEDGER_FEATURES,
    NOTES_STATS_FEATURES,
    STATS_FEATURES,
    Feature,
    Observer,
)
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.spaces import Choices
from sleepgym.episode.actions import Action, NoteAction
from sleepgym.episode.card import Card, load_card
from sleepgym.episode.card_sections import NotesCard
from sleepgym.episode.reward import Reward
from sleepgym.files import card_paths
from sleepgym.schedulers import LookAhead, RandomScheduler, Scheduler
from sleepgym.schedulers.named import EVERY_RULE, LOOK_AHEAD, RANDOM

DEFAULT, WITH_NOTES, FAST = "SleepLLM-v0", "SleepLLM-Notes-v0", "FastWeights-v0"
BEGIN, END = "<!-- begin: written by `make docs` -->", "<!-- end -->"
NOTES = {
    "edit": f"`{DEFAULT}` departs from the recipe on purpose, so that edits only just hold: "
    "[decision 7](../decisions/0007-edits-that-only-just-hold.md)."
}
"""Further text of a section, with links, which docstrings do not have."""
SCHEDULERS: Mapping[str, type[Scheduler]] = {**EVERY_RULE, RANDOM: RandomScheduler, LOOK_AHEAD: LookAhead}
NOT_SET = {"env"}
"""Fields of schedulers that are not parameters."""


@dataclass
class Args:
    folder: Path = Path(__file__).parents[1] / "docs"
    """folder of the pages"""
    check: bool = False
    """check whether the pages are up to date instead of writing them"""


def main(args: Args) -> None:
    cards = {card_id: load_card(card_id) for card_id in card_paths()}
    fast = {card_id: load_fast_card(card_id) for card_id in card_paths(FOLDER)}
    index, schedulers = args.folder / "environments" / "README.md", args.folder / "schedulers.md"
    notes = args.folder / "environments" / "notes.md"
    pages = {
        args.folder / "environments" / "sleepllm.md": page(cards),
        args.folder / "environments" / "fastweights.md": fast_page(fast[FAST]),
        index: between_marks(index, f"{index_table(cards)}\n\n{fast_index_table(fast)}"),
        notes: between_marks(notes, notes_tables(cards)),
        schedulers: between_marks(schedulers, scheduler_tables(SCHEDULERS)),
    }
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if args.check and stale:
        names = " and ".join(path.name for path in stale)
        sys.exit(f"expected what the code and the cards say, found something else in {names}; run `make docs`")
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")
        print(f"wrote {path}")


# --------------------------------------------------------------------- pages


def page(cards: Mapping[str, Card]) -> str:
    """Renders the environment's page: the class docstring with tables in its sections."""
    default = cards[DEFAULT]
    sections = split_at_headings(inspect.getdoc(SleepEnv) or "")
    sections["Action Space"] = with_ticks(sections["Action Space"], default)
    sections["Observation Space"] += "\n\n" + "\n\n".join(
        feature_table(name, features) for name, features in (("ledger", LEDGER_FEATURES), ("stats", STATS_FEATURES))
    )
    sections["Rewards"] += "\n\n" + reward_table(default)
    history = sections.pop("Version History")
    sections |= {"Card": card_tables(default), "Variants": variant_table(cards), "Version History": history}
    parts = [
        "# SleepLLM",
        "<!-- Written by `make docs` from the docstrings of SleepEnv and of the cards' sections; change those. -->",
        sections.pop(""),
        summary_table(default),
        *(f"## {heading}\n\n{text}" for heading, text in sections.items()),
    ]
    return "\n\n".join(parts) + "\n"


def fast_page(card: FastWeightsCard) -> str:
    """Renders the page of fast weights: the class docstring with tables in its sections."""
    sections = split_at_headings(inspect.getdoc(FastWeightsEnv) or "")
    sections["Observation Space"] += "\n\n" + feature_table("observation", FEATURES)
    history = sections.pop("Version History")
    sections |= {"Card": card_tables(card, FAST), "Version History": history}
    rows = [
        ("Action space", f"`Discrete({len(card.passes.choices)})` with a mask"),
        ("Observation space", f"`Box{(len(FEATURES),)}`, float32"),
        ("Render modes", ", ".join(f"`{json.dumps(mode)}`" for mode in FastWeightsEnv.metadata["render_modes"])),
        ("Made with", f'`gymnasium.make("{FAST}")`'),
    ]
    parts = [
        "# FastWeights",
        "<!-- Written by `make docs` from the docstrings of FastWeightsEnv and of its card; change those. -->",
        sections.pop(""),
        table(("", ""), rows),
        *(f"## {heading}\n\n{text}" for heading, text in sections.items()),
    ]
    return "\n\n".join(parts) + "\n"


def between_marks(path: Path, text: str) -> str:
    """Returns the content of a file with the text between its marks replaced.

    Raises:
        ValueError: The file has no such marks.
    """
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"expected {BEGIN} and {END} in {path}, found no such pair; put them around the table")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


# -------------------------------------------------------------------- tables


def summary_table(card: Card) -> str:
    space = Observer(card).space
    shapes = ", ".join(f"{name}: Box{space[name].shape}" for name in ("ledger", "stats"))
    modes = ", ".join(f"`{json.dumps(mode)}`" for mode in SleepEnv.metadata["render_modes"])
    rows = [
        ("Action space", f"`{Choices(card).space}` with a mask"),
        ("Observation space", f"`Dict({shapes})`, float32"),
        ("Render modes", modes),
        ("Made with", f'`gymnasium.make("{DEFAULT}")`'),
        ("Variants", "[all ids](README.md)"),
    ]
    return table(("", ""), rows)


def with_ticks(section: str, card: Card) -> str:
    """Adds a column of the card's ticks to the docstring's table of actions.

    Raises:
        ValueError: The docstring has no table of all actions.
    """
    head = re.search(r"^\|\s*Num\s*\|\s*Action\s*\|.*\n(\|.*(\n|$))+", section, flags=re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in head[0].splitlines()] if head else []
    found = [(int(row[0]), row[1].strip("`")) for row in rows[2:]]
    if head is None or found != [(action.value, action.name) for action in Action]:
        raise ValueError(f"expected the docstring of SleepEnv to have a table of {list(Action)}, found {found}")
    for row, action in zip(rows[2:], Action, strict=True):
        name = action.name.lower()
        row.insert(2, f"{getattr(card.ticks, name)}{', offline' if name in card.ticks.offline else ''}")
    rows[0].insert(2, f"Ticks in `{DEFAULT}`")
    return section.replace(head[0], table(rows[0], rows[2:]) + "\n")


def feature_table(name: str, features: Mapping[str, Feature]) -> str:
    rows = [
        (str(i), f"`{feature}`", f"{each.low:g} to {each.high:g}", each.meaning)
        for i, (feature, each) in enumerate(features.items())
    ]
    return f"`{name}`, `[{'rows, ' if name == 'ledger' else ''}{len(features)}]`:\n\n" + table(
        ("Num", "Feature", "Range", "Meaning"), rows
    )


def reward_table(card: Card) -> str:
    rows = [
        (f"`{term.name}`", value(getattr(card.reward, term.name)), markdown(inspect.getdoc(type(term).__call__) or ""))
        for term in Reward.of(card).terms
    ]
    return table(("Term", f"Weight in `{DEFAULT}`", "Per tick"), rows)


def card_tables(card: Card | FastWeightsCard, name: str = DEFAULT) -> str:
    """Renders a table per section of a card: keys, values and meanings."""
    others = "; what other cards change is below" if name == DEFAULT else ""
    parts = [f"Every number is in the card. The values are those of `{name}`{others}."]
    values = card.model_dump(mode="json")
    for part, field in type(card).model_fields.items():
        section = next(kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type))
        about, meanings = docstring(section)
        usual = defaults(section) if is_dataclass(section) else {}
        head = ("Key", f"Value in `{name}`", f"Default of `{section.__name__}`") if usual else ("Key", "Value")
        rows = [
            (f"`{key}`", value(found), *([value(usual[key])] if usual else []), markdown(meanings.get(key, "")))
            for key, found in (values[part] or dict.fromkeys(meanings)).items()
        ]
        text = " ".join([markdown(about), *([NOTES[part]] if part in NOTES else [])])
        parts.append(f"### `[{part}]`\n\n{text}\n\n{table((*head, 'Meaning'), rows)}")
    return "\n\n".join(parts)


def notes_tables(cards: Mapping[str, Card]) -> str:
    """Renders what the card with notes has besides: actions, features, what everything costs, and other keys."""
    card, default = cards[WITH_NOTES], cards[DEFAULT]
    assert card.notes is not None
    about, effects = docstring(NoteAction)
    choices = Choices(card)
    actions = [
        (str(action.value), f"`{action.name}`", str(choices.of(action.value).ticks), markdown(effects[action.name]))
        for action in NoteAction
    ]
    features = [
        (f"`{name}`", f"`{feature}`", f"{each.low:g} to {each.high:g}", each.meaning)
        for name, of in (("ledger", NOTES_LEDGER_FEATURES), ("stats", NOTES_STATS_FEATURES))
        for feature, each in of.items()
    ]
    what, meanings = docstring(NotesCard)
    keys = [
        (f"`notes.{key}`", value(found), meanings[key]) for key, found in card.notes.model_dump(mode="json").items()
    ]
    elsewhere = {"budget": ("edits", "capacity", "inject", "refresh"), "ticks": (*default.ticks.model_dump(),)}
    for section, names in elsewhere.items():
        part = getattr(card, section)
        of, known = part.model_dump(mode="json"), docstring(type(part))[1]
        ticks = "Ticks that it takes." if section == "ticks" else ""
        asleep = "Actions during which the weights answer no question."
        keys += [
            (f"`{section}.{name}`", value(of[name]), known.get(name, asleep if name == "offline" else ticks))
            for name in names
        ]
    keys = [(key, found, markdown(meaning)) for key, found, meaning in keys]
    mine, usual = leaves(card), leaves(default)
    others = [
        (f"`{key}`", value(usual[key]), value(found)) for key, found in mine.items() if usual.get(key, found) != found
    ]
    parts = [
        markdown(about),
        table(("Num", "Action", "Ticks", "Effect"), actions),
        table(("Part", "Feature", "Range", "Meaning"), features),
        markdown(what),
        table(("Key", f"Value in `{WITH_NOTES}`", "Meaning"), keys),
        *([table(("Other key", f"`{DEFAULT}`", f"`{WITH_NOTES}`"), others)] if others else []),
    ]
    return "\n\n".join(parts)


def variant_table(cards: Mapping[str, Card]) -> str:
    """Renders the table of keys in which cards differ from the default, with a column per card."""
    default, *others = (leaves(cards[card_id]) for card_id in in_order(cards))
    rows = []
    for key in dict.fromkeys(key for card in (default, *others) for key in card):
        usual, unusual = default.get(key), [card.get(key) for card in others]
        if any(found != usual for found in unusual):
            cells = ["" if found == usual else value(found) for found in unusual]
            rows.append((f"`{key}`", value(usual), *cells))
    short = [card_id.removeprefix("SleepLLM-").removesuffix("-v0") for card_id in in_order(cards)[1:]]
    about = f"Only what is not as in `{DEFAULT}`. What each variant is for is in the [list of all ids](README.md)."
    return about + "\n\n" + table(("Key", f"`{DEFAULT}`", *short), rows)


def index_table(cards: Mapping[str, Card]) -> str:
    """Renders the table of all cards with their main figures."""
    head = ("Id", "Model", "Actions", "Days x ticks", "Facts per tick", "Updates", "Night, ticks", "Night traffic")
    rows = []
    for card_id in in_order(cards):
        card = cards[card_id]
        stream, budget = card.stream, card.budget
        rows.append(
            (
                f"`{card_id}`",
                card.model.name,
                f"`{Choices(card).space}`",
                f"{card.episode.days} x {stream.ticks_per_day}",
                span(stream.arrival_rate),
                f"{span(stream.update_share, 100)} %",
                span(stream.night_ticks),
                f"{100 * stream.night_traffic:g} %",
                span(budget.edits),
                f"{budget.capacity} + {budget.pending}",
            )
        )
    return table((*head, "Edits per fact", "Ledger + inbox"), rows)


def fast_index_table(cards: Mapping[str, FastWeightsCard]) -> str:
    """Renders the table of cards of fast weights with their main figures."""
    rows = [
        (
            f"`{card_id}`",
            card.model.file,
            f"`Discrete({len(card.passes.choices)})`",
            str(card.stream.documents),
            str(card.stream.window_ticks),
            ", ".join(map(str, card.passes.choices)),
        )
        for card_id, card in cards.items()
    ]
    return table(("Id", "Model", "Actions", "Documents", "Ticks a window", "Passes"), rows)


def scheduler_tables(schedulers: Mapping[str, type[Scheduler]]) -> str:
    """Renders the tables of schedulers with their sources, and of their fields.

    Raises:
        ValueError: A scheduler's docstring has no source.
    """
    rows, numbers = [], []
    for name, scheduler in schedulers.items():
        about, meanings = docstring(scheduler)
        what, found, source = about.partition(" Source: ")
        if not found:
            raise ValueError(f"expected 'Source: ...' in the docstring of {scheduler.__name__}, found none")
        source = source[0].upper() + source[1:]
        rows.append((f"`{name}`", f"`{scheduler.__name__}`", markdown(what), markdown(source)))
        for field, default in defaults(scheduler).items():
            if field not in NOT_SET:
                shown = "needed" if default is MISSING else f"`{'none' if default is None else default}`"
                numbers.append((f"`{name}`", f"`{field}`", shown, markdown(meanings[field])))
    every = table(("Name", "Class", "What it does", "Source"), rows)
    return f"{every}\n\n{table(('Scheduler', 'Field', 'Default', 'Meaning'), numbers)}"


# ---------------------------------------------------------------------- text


def split_at_headings(text: str) -> dict[str, str]:
    """Splits a text into sections by heading; text before the first heading has an empty one."""
    first, *rest = re.split(r"^## ", text, flags=re.MULTILINE)
    sections = {"": first.strip()}
    for part in rest:
        heading, _, body = part.partition("\n")
        sections[heading.strip()] = body.strip()
    return sections


def docstring(section: type) -> tuple[str, dict[str, str]]:
    """Splits a docstring into its description and the meanings of its attributes, each on one line."""
    about, _, rest = (inspect.getdoc(section) or "").partition("\nAttributes:\n")
    attributes, *_ = re.split(r"^\S", rest, maxsplit=1, flags=re.MULTILINE)
    entries = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", attributes, flags=re.MULTILINE)
    return " ".join(about.split()), {name: " ".join(meaning.split()) for name, meaning in entries}


def defaults(kind: type) -> dict[str, Any]:
    """Returns the defaults of the fields of a dataclass that are arguments of its constructor."""
    return {field.name: field.default for field in fields(kind) if field.init}


def markdown(text: str) -> str:
    """Converts a docstring's reStructuredText to Markdown on one line, escaped for a table."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text).replace("``", "`")
    return " ".join(text.split()).replace("|", r"\|")


def value(found: Any) -> str:
    return "" if found is None else f"`{json.dumps(found)}`"


def in_order(cards: Iterable[str]) -> list[str]:
    """Sorts ids by name, with the default first."""
    return sorted(cards, key=lambda card_id: (card_id != DEFAULT, card_id))


def leaves(card: Card) -> dict[str, Any]:
    sections = card.model_dump(mode="json").items()
    return {f"{name}.{key}": found for name, section in sections if section for key, found in section.items()}


def span(values: Sequence[float], unit: float = 1) -> str:
    low, high = (f"{each * unit:g}" for each in values)
    return low if low == high else f"{low} to {high}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(re.sub(r"\| +(?=\|)", "| ", f"| {' | '.join(cells)} |") for cells in lines)


if __name__ == "__main__":
    main(tyro.cli(Args))
