"""Rendering: render modes of the environments, of which each says only what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sleepgym.env.render.window import Window


class Rendering:
    """Shows an environment in the modes ``human``, ``rgb_array`` and ``ansi``; a base beside ``gymnasium.Env``."""

    metadata: dict[str, Any]
    render_mode: str | None
    _window: Window | None = None

    def _text(self) -> str:
        """The episode so far as text."""
        raise NotImplementedError

    def _picture(self) -> NDArray[np.uint8]:
        """The episode so far as a picture, ``[height, width, 3]``."""
        raise NotImplementedError

    def _title(self) -> str:
        """Title of the window."""
        raise NotImplementedError

    def render(self) -> NDArray[np.uint8] | str | None:
        """The episode so far.

        Returns:
            In mode ``"rgb_array"`` a picture, ``[480, 640, 3]``; in mode ``"ansi"`` text with escape codes, 100 columns
            wide at most; in mode ``"human"`` nothing, since the picture is shown in a window.

        Raises:
            gymnasium.error.ResetNeeded: There is no episode yet.
            gymnasium.error.DependencyNotInstalled: A window cannot be opened here.
        """
        if self.render_mode is None:
            gym.logger.warn('expected a render mode, found none; make the environment with render_mode="rgb_array"')
            return None
        if self.render_mode == "ansi":
            return self._text()
        picture = self._picture()
        if self.render_mode == "rgb_array":
            return picture
        if self._window is None:
            # Here, because matplotlib takes long to load and training never renders.
            from sleepgym.env.render.window import Window

            self._window = Window(self._title(), 1 / self.metadata["render_fps"])
        self._window.show(picture)
        return None

    def close(self) -> None:
        """Closes the window, if there is one; the environment can still be used."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _show(self) -> None:
        """Keeps the window up to date in render mode ``"human"``."""
        if self.render_mode == "human":
            self.render()
