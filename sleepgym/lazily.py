"""Names of a package that are imported on first use, so that importing it loads little."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def on_first_use(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Makes the ``__getattr__`` of a package (PEP 562).

    No name may be that of a module of the package as well: importing the module would put it in the name's place.

    Args:
        package: Full name of the package.
        homes: Full name of the module that has a name, by name.

    Returns:
        A function that imports the module of a name, and returns what it calls so. For other names it raises an
        ``AttributeError``.
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
