"""On-screen window that shows a sequence of pictures."""

from __future__ import annotations

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from sleepgym.env.render import layout


class Window:
    """Window of the GUI toolkit that matplotlib finds: Tk, Qt, GTK, wx, macOS or a notebook's.

    A window that its user has closed stays closed; later pictures are ignored.

    Args:
        title: Title of the window.
        seconds: Minimum time that a picture is shown, in seconds; the window handles events meanwhile.

    Raises:
        gymnasium.error.DependencyNotInstalled: There is no display or no GUI toolkit.
    """

    def __init__(self, title: str, seconds: float) -> None:
        self._seconds = seconds
        self._image: AxesImage | None = None
        size = (layout.WIDTH / layout.DPI, layout.HEIGHT / layout.DPI)
        try:
            with plt.rc_context({"toolbar": "None"}):
                self._figure = plt.figure(figsize=size, dpi=layout.DPI)
        except ImportError as error:  # a toolkit was chosen explicitly, and there is no display
            raise _no_window(str(error)) from error
        manager = self._figure.canvas.manager
        # Backends without a GUI use the base class's manager, which shows nothing.
        if manager is None or type(manager).show is FigureManagerBase.show:
            self.close()
            raise _no_window(f"matplotlib's backend {plt.get_backend()!r}, which opens none")
        self._manager = manager
        manager.set_window_title(title)

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Shows a picture, uint8 ``[height, width, 3]``, unless the window was closed."""
        if not plt.fignum_exists(self._figure.number):
            return
        if self._image is None:
            axes = self._figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            self._image = axes.imshow(picture, aspect="auto")
            # Only once: showing it again would raise the window above others.
            self._manager.show()
        self._image.set_data(picture)
        self._figure.canvas.draw_idle()
        self._figure.canvas.start_event_loop(self._seconds)

    def close(self) -> None:
        """Closes the window; closing it again has no effect."""
        plt.close(self._figure)


def _no_window(found: str) -> gym.error.DependencyNotInstalled:
    return gym.error.DependencyNotInstalled(
        f"expected a display and a toolkit that opens windows on it (such as Tk), found {found}; "
        'use render_mode="rgb_array", or set DISPLAY, and MPLBACKEND (such as tkagg) to choose the toolkit'
    )
