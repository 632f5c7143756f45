"""What environments of the sim are made from: a card and a fit, which an id brings or a keyword names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sleepgym.episode.card import Card, load_card, require_sections
from sleepgym.files import card_paths
from sleepgym.sim.fit import FitError
from sleepgym.sim.fit_files import load_fit
from sleepgym.sim.response import Response
from sleepgym.sim.setting import Setting

FITS = Path(__file__).parent / "fits"
"""Folder of the fits that are shipped, each under the id of its card."""

OWN = ("card", "fit", "flat", "split")
"""Arguments of a simulated environment that are no sections of its card."""


def setting_and_response(
    card: str | Path | Card, fit: str | Path | Response | None, overrides: Mapping[str, Mapping[str, Any]]
) -> tuple[Setting, Response]:
    """Reads a card and the fit that stands in for its model.

    Args:
        card: Id of a card, path of a TOML file, or a card that has been read.
        fit: File of a fit, or a response; None for the one that is shipped for the card.
        overrides: Sections of the card with the keys to replace.

    Raises:
        CardError: The card cannot be read, or a key is unknown, missing or has an impossible value.
        UnknownArgumentError: An argument is no section of a card; a CardError and a TypeError.
        FitError: There is no such fit, or none for the card.
    """
    name = "card" if isinstance(card, Card) else Path(card).name
    require_sections(overrides, name, OWN)
    setting = Setting.of(load_card(card, **overrides))
    if fit is None:
        fit = FITS / f"{name}.safetensors"
        if not fit.exists():
            raise FitError(
                f"expected a fit for {name}, found none; shipped are fits for {', '.join(shipped()) or 'no card'}; "
                f"make one by sleepgym fit-sim --env {name} --episodes DIR --out FILE, and pass fit=FILE"
            )
    if not isinstance(fit, str | Path):
        return setting, fit
    response, _ = load_fit(Path(fit))
    if setting.card.notes is not None and response.read is None:
        raise FitError(f"expected a fit of a card with notes in {fit}, found one of a card without them; fit {name}")
    return setting, response


def shipped() -> list[str]:
    """Returns the ids of the cards that a fit is shipped for."""
    return [card_id for card_id in card_paths() if (FITS / f"{card_id}.safetensors").exists()]
