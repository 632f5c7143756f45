"""Files of fitted responses: one safetensors file with the weights, and in its metadata a card that says of what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sleepgym import files
from sleepgym._version import __version__
from sleepgym.sim.fit import FitError, Tried
from sleepgym.sim.fitted import CHANCES, DAMAGE, MARGINS, PASSING, FittedResponse
from sleepgym.sim.models import Linear, Logistic
from sleepgym.sim.recorder import Record, metadata


class TriedForm(BaseModel):
    """A form that was tried for a model; see :class:`~sleepgym.sim.fit.Tried`."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    model: str
    form: str
    samples: int
    likelihood: float
    chosen: bool


class FitCard(BaseModel):
    """What a fit is of.

    Attributes:
        format: Version of the format.
        card_id: Id of the card that was played; empty if it has none.
        model: Name of the language model.
        fingerprint: Hash of it.
        sleepgym: Version of the package that recorded the episodes.
        episodes: Number of episodes.
        policies: Policies that played them.
        date: Day of the fit, as ``2026-01-31``.
        tried: Forms with their held-out likelihoods.
        features: Names of the features, which have to be those of the package that loads it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    format: int = 1
    card_id: str
    model: str
    fingerprint: str
    sleepgym: str
    episodes: int
    policies: tuple[str, ...]
    date: str
    tried: tuple[TriedForm, ...]
    features: tuple[str, ...] = PASSING


def card_of(card_id: str, records: Sequence[Record], tried: Sequence[Tried]) -> FitCard:
    """Returns the card of a fit.

    Args:
        card_id: Id of the card that was played.
        records: Records that it was fitted to.
        tried: Forms that were tried.

    Raises:
        FitError: The records are of several models.
    """
    models = {(record.about.model, record.about.fingerprint) for record in records}
    if len(models) != 1:
        raise FitError(f"expected records of one model, found {sorted(models)}; fit each of them alone")
    model, fingerprint = next(iter(models))
    return FitCard(
        card_id=card_id,
        model=model,
        fingerprint=fingerprint,
        sleepgym=__version__,
        episodes=len(records),
        policies=tuple(sorted({record.about.policy for record in records})),
        date=date.today().isoformat(),
        tried=tuple(TriedForm(**asdict(each)) for each in tried),
    )


def save_fit(path: Path, response: FittedResponse, card: FitCard) -> None:
    """Writes a fit, all or nothing.

    Raises:
        OSError: It cannot be written.
    """
    tensors = {f"{name}.weights": model.weights for name, model in response.logistic.items()}
    tensors |= {f"{name}.weights": model.weights for name, model in response.linear.items()}
    tensors |= {f"{name}.noise": model.noise for name, model in response.linear.items()}
    tensors |= {f"{name}.left": model.left for name, model in response.linear.items()}
    forms = {name: model.form for name, model in response.linear.items()}
    forms |= {name: model.form for name, model in response.logistic.items()}
    about = {"card": card.model_dump_json(), "forms": json.dumps(forms)}
    files.write(path, save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, about))


def load_fit(path: Path) -> tuple[FittedResponse, FitCard]:
    """Reads what :func:`save_fit` wrote.

    Raises:
        FitError: The file is missing, no fit, or one with other features.
    """
    try:
        data = path.read_bytes()
        about = metadata(data)
        card, forms, tensors = FitCard.model_validate_json(about["card"]), json.loads(about["forms"]), load(data)
        if card.features != PASSING:
            raise ValueError(f"features {card.features} instead of {PASSING}")
        linear = {
            name: Linear(forms[name], *(tensors[f"{name}.{part}"] for part in ("weights", "noise", "left")))
            for name in (*MARGINS, *DAMAGE)
        }
        logistic = {name: Logistic(forms[name], tensors[f"{name}.weights"]) for name in CHANCES}
        return FittedResponse(linear, logistic), card
    except (OSError, SafetensorError, ValidationError, ValueError, KeyError) as error:
        raise FitError(
            f"expected a fit in {path}, found {type(error).__name__}: {error}; make one with sleepgym fit-sim"
        ) from error
