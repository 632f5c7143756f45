"""A folder of notes whose clock is set by hand."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from sleepgym.notes import NoteStore, Retriever


class Clock:
    """Says what it was told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 9, 30)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> NoteStore:
    return NoteStore(tmp_path / "notes", clock=clock)


@pytest.fixture
def retriever(store: NoteStore, tmp_path: Path) -> Retriever:
    return Retriever(store, index=tmp_path / "index.sqlite")
