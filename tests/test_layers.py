"""Imports go in one direction, and the names that rooms offer are the ones that are listed here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from scripts.architecture import imported, modules, room_of

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(layer.split())
    for layer in (
        "_version errors lazily",
        "files reading settings",
        "facts",
        "fastweights lm notes",
        "memory",
        "editing",
        "consolidation",
        "sleeper",
        "episode",
        "env",
        "record sim",
        "schedulers",
        "evaluation",
        "training",
        "leaderboard",
        "cli",
        "__main__",
    )
)
"""Rooms and files of the package, the lowest first; those of one layer know nothing of each other."""

LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
FREE_OF_GYMNASIUM = [name for name in sorted(LEVEL) if LEVEL[name] < LEVEL["env"]]


def test_every_room_has_a_layer() -> None:
    there = {room_of(name) for name in modules()} - {"", "moved"}
    assert there == set(LEVEL)


@pytest.mark.parametrize(("name", "path"), modules().items(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_imports_from_its_own_room_and_those_below(name: str, path: Path) -> None:
    room = room_of(name)
    if room in ("", "moved"):  # the package itself, and the names of what has moved
        return
    for other in imported(path):
        if other.split(".")[0] != "sleepgym":
            continue
        below = room_of(other)
        assert below in LEVEL, f"{name} imports {other}: the package itself is not to be imported from within"
        assert below == room or LEVEL[below] < LEVEL[room], f"{name} imports {other}, which lies above or beside it"


@pytest.mark.parametrize("room", FREE_OF_GYMNASIUM)
def test_what_lies_below_the_environment_does_not_know_gymnasium(room: str) -> None:
    for name, path in modules().items():
        if room_of(name) == room:
            assert not any(other.split(".")[0] == "gymnasium" for other in imported(path)), name


def test_modules_do_not_import_each_other_in_circles() -> None:
    names = modules()
    graph = {
        name: {other for other in imported(path) if other in names and other != name}
        | {parent for other in imported(path) if (parent := other.rpartition(".")[0]) in names and parent != name}
        for name, path in names.items()
    }
    # Packages list what their modules offer; a module that imports from its own package's list would be a circle.
    packages = {name for name, path in names.items() if path.name == "__init__.py"}
    graph = {
        name: {other for other in of if other not in packages} for name, of in graph.items() if name not in packages
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


PUBLIC = {
    "sleepgym": "EditSpec Fact SleepGymError SleepSpec SleepingLM World __version__",
    "sleepgym.env": "Action ActionMask FlattenLedger LEDGER_FEATURES PadLedger RLlibActionMask RecordSleepStatistics "
    "STATS_FEATURES SleepEnv SleepVectorEnv act_together column stat",
    "sleepgym.facts": "Fact FactError FactSet Malformed World chat_turn load_facts",
    "sleepgym.fastweights": "Batch CheckpointError FastState FastStateError FastWeightModel Hops ModelSpec Rule110 "
    "Task TaskError Trained load_model save_model shipped task_named",
    "sleepgym.leaderboard": "Played Player PlayerNameError Submission frozen_seeds play player_named",
    "sleepgym.notes": "Edit FactNotes NoteStore NotesError Retrieved Retriever",
    "sleepgym.sim": "FitError Record Response SimEnv SimVectorEnv fit_response load_fit record_episode save_fit",
    "sleepgym.record": "Recorder Recording RecordingError",
}
"""What the main rooms offer. To take a name away breaks somebody's program: leave it under its old name."""


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_those_that_are_promised(module: str) -> None:
    found = import_module(module)
    assert sorted(found.__all__) == sorted(PUBLIC[module].split())
    assert all(getattr(found, name) is not None for name in found.__all__)


LISTS = sorted(name for name, path in modules().items() if path.name == "__init__.py")


@pytest.mark.parametrize("package", LISTS)
def test_every_name_that_a_package_lists_is_there(package: str) -> None:
    found = import_module(package)
    listed = getattr(found, "__all__", [])
    assert len({*listed}) == len(listed)
    for name in listed:
        assert hasattr(found, name), f"{package} lists {name}, and has no such name"
    # What is imported on first use has its home there: no module of the same name can come between.
    for name, home in getattr(found, "_EXPORTS", {}).items():
        assert name in listed and getattr(import_module(home), name) is getattr(found, name)
