"""A window on the screen that shows one picture after the other."""

from __future__ import annotations

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from sleepgym.env.render import layout


class Window:
    """Shows pictures through whatever toolkit matplotlib finds: Tk, Qt, GTK, wx, macOS or a notebook's.

    A window that its user has closed stays closed, and the episode goes on without it.

    Args:
        title: Of the window.
        seconds: How long a picture stays at least; the window reacts to its user meanwhile.

    Raises:
        gymnasium.error.DependencyNotInstalled: There is no display, or no toolkit to open a window on it.
    """

    def __init__(self, title: str, seconds: float) -> None:
        self._seconds = seconds
        self._image: AxesImage | None = None
        size = (layout.WIDTH / layout.DPI, layout.HEIGHT / layout.DPI)
        try:
            with plt.rc_context({"toolbar": "None"}):
                self._figure = plt.figure(figsize=size, dpi=layout.DPI)
        except ImportError as error:  # a toolkit was asked for by name, and there is no display
            raise _no_window(str(error)) from error
        manager = self._figure.canvas.manager
        # Backends that only write files have the base class's manager, which shows nothing.
        if manager is None or type(manager).show is FigureManagerBase.show:
            self.close()
            raise _no_window(f"matplotlib's backend {plt.get_backend()!r}, which opens none")
        self._manager = manager
        manager.set_window_title(title)

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Shows a picture, ``[height, width, 3]``."""
        if not plt.fignum_exists(self._figure.number):
            return
        if self._image is None:
            axes = self._figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            self._image = axes.imshow(picture, aspect="auto")
            # Once only: every further time would raise the window above those its user works in.
            self._manager.show()
        self._image.set_data(picture)
        self._figure.canvas.draw_idle()
        self._figure.canvas.start_event_loop(self._seconds)

    def close(self) -> None:
        """Closes it; closing it twice changes nothing."""
        plt.close(self._figure)


def _no_window(found: str) -> gym.error.DependencyNotInstalled:
    return gym.error.DependencyNotInstalled(
        f"expected a display and a toolkit that opens windows on it (such as Tk), found {found}; "
        'use render_mode="rgb_array", or set DISPLAY, and MPLBACKEND (such as tkagg) to choose the toolkit'
    )
