"""Options of a reset."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def known_options(options: dict[str, Any] | None, known: Collection[str]) -> dict[str, Any]:
    """Returns the options that a reset was given, none of which would be passed over in silence.

    Args:
        options: Options as given; None for none.
        known: What there is to be told.

    Raises:
        ValueError: An option is not known.
    """
    options = options or {}
    if unknown := sorted(str(key) for key in options.keys() - set(known)):
        raise ValueError(f"expected options out of {sorted(known)}, found {unknown}; leave them out")
    return options
