"""Where files that can be recomputed are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(kind: str) -> Path:
    """The folder for one kind of cached file, made if needed.

    It is ``$SLEEPGYM_CACHE/kind``, or ``$XDG_CACHE_HOME/sleepgym/kind``, or ``~/.cache/sleepgym/kind``.
    """
    root = os.environ.get("SLEEPGYM_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sleepgym"
    folder = base / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder
