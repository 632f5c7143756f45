"""Old import paths give the same objects, with a warning; policies that were saved under them load."""

from __future__ import annotations

import multiprocessing
import sys
from importlib import import_module
from pathlib import Path

import pytest

from sleepgym.moved import MOVED

EXTRA = {"sleepgym.training.rllib"}


@pytest.mark.parametrize("old", sorted(name for name, new in MOVED.items() if new not in EXTRA))
def test_an_old_name_is_the_module_in_its_new_place(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is {MOVED[old]} now"):
        found = import_module(old)
    assert found is import_module(MOVED[old])
    assert found.__name__ == MOVED[old] and found.__spec__ is not None and found.__spec__.name == MOVED[old]


def test_no_old_name_is_a_module_again() -> None:
    root = Path(__file__).parents[1]
    for old in MOVED:
        path = root / old.replace(".", "/")
        assert not path.with_suffix(".py").exists() and not (path / "__init__.py").exists(), old


def test_what_people_import_still_works() -> None:
    code = (
        "from sleepgym import SleepingLM, World\n"
        "from sleepgym.env.wrappers import FlattenLedger, RecordSleepStatistics\n"
        "from sleepgym.schedulers import NightOwl, scheduler_named\n"
        "from sleepgym.env.actions import Action\n"
        "from sleepgym.learning.extractor import LedgerExtractor\n"
        "from sleepgym.training.extractor import LedgerExtractor as New\n"
        "assert LedgerExtractor is New\n"
    )
    # A process in which no old name was imported before; the server that it is forked from has torch already.
    process = multiprocessing.get_context("forkserver").Process(target=exec, args=(code, {}))
    process.start()
    process.join()
    assert process.exitcode == 0
