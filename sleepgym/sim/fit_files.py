"""Files of fitted responses: one safetensors file with the weights, and in its metadata a card that says of what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import save

from sleepgym import files
from sleepgym._version import __version__
from sleepgym.reading import found_in, parsed_json, read_arrays, require_array
from sleepgym.sim.features import FORMS, expanded
from sleepgym.sim.fit import FitError, Tried
from sleepgym.sim.fitted import CHANCES, DAMAGE, EPISODE, FACT, MARGINS, PASSING, SURE, SURENESS, FittedResponse, Read
from sleepgym.sim.models import Linear, Logistic

if TYPE_CHECKING:
    from sleepgym.sim.recorder import Record

_MAX_BYTES = 64 * 2**20
"""Size of the largest fit that is read; those that are shipped have 100 kB."""

_READ = "notes.read."
"""How the names of arrays begin that say what was read in notes."""


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
    tensors |= {} if response.read is None else {f"{_READ}{name}": array for name, array in vars(response.read).items()}
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
        tensors, about = read_arrays(path, _MAX_BYTES)
        card, forms = FitCard.model_validate_json(about["card"]), parsed_json(about["forms"].encode(), path.name)
        if card.features != PASSING:
            raise ValueError(f"features {card.features} instead of {PASSING}")
        linear = {name: _linear(name, forms[name], FACT, tensors) for name in MARGINS}
        linear |= {name: _linear(name, forms[name], EPISODE, tensors) for name in DAMAGE}
        logistic = {name: _logistic(name, forms[name], of, tensors) for name, of in CHANCES.items()}
        if SURE in forms:
            logistic[SURE] = _logistic(SURE, forms[SURE], SURENESS, tensors)
        return FittedResponse(linear, logistic, _read(tensors) if SURE in forms else None), card
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FitError(f"expected a fit in {path}, found {found_in(error)}; make one with sleepgym fit-sim") from error


def _read(tensors: Mapping[str, NDArray[Any]]) -> Read:
    right, tokens = tensors[f"{_READ}right"], tensors[f"{_READ}tokens"]
    require_array(right, f"{_READ}right", np.bool_, -1)
    require_array(tokens, f"{_READ}tokens", np.int32, len(right))
    if not len(right) or tokens.min() < 0:
        raise ValueError("no notes that were read, or fewer than no tokens")
    return Read(right, tokens)


def _linear(name: str, form: str, features: tuple[str, ...], tensors: Mapping[str, NDArray[Any]]) -> Linear:
    def part(kind: str, *shape: int) -> NDArray[Any]:
        return require_array(tensors[f"{name}.{kind}"], f"{name}.{kind}", np.float32, *shape)

    return Linear(form, part("weights", _inputs(form, features), 2), part("noise", 2, 2), part("left", -1, 2))


def _logistic(name: str, form: str, features: tuple[str, ...], tensors: Mapping[str, NDArray[Any]]) -> Logistic:
    weights = f"{name}.weights"
    return Logistic(form, require_array(tensors[weights], weights, np.float32, _inputs(form, features)))


def _inputs(form: str, features: tuple[str, ...]) -> int:
    """Number of inputs of a model of a form.

    Raises:
        ValueError: There is no such form.
    """
    if form not in FORMS:
        raise ValueError(f"a form {form!r} that is none of {FORMS}")
    return expanded(np.zeros((0, len(features)), np.float32), features, form).shape[1]
