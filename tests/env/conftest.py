"""What tests of environments share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[NDArray[np.uint8]]]:
    """A display without a monitor, as a backend of matplotlib; what windows showed on it, picture by picture."""
    shown: list[NDArray[np.uint8]] = []

    class Manager(FigureManagerBase):
        def show(self) -> None: ...

    class Canvas(FigureCanvasAgg):
        manager_class = Manager  # type: ignore[assignment]

        def start_event_loop(self, timeout: float = 0) -> None:
            self.draw()
            shown.append(np.asarray(self.buffer_rgba())[..., :3].copy())

    backend = ModuleType("screen_of_the_tests")
    backend.FigureCanvas, backend.FigureManager = Canvas, Manager  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, backend.__name__, backend)
    before = plt.get_backend()
    plt.switch_backend(f"module://{backend.__name__}")
    yield shown
    plt.close("all")
    plt.switch_backend(before)
