"""Fits a response model to records, and says how well each form of each of its models predicts held-out episodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.actions import Action
from sleepgym.errors import SleepGymError
from sleepgym.sim.features import FORMS, Around, of_entries_to_facts
from sleepgym.sim.fitted import (
    CHANCES,
    DAMAGE,
    EPISODE,
    FACT,
    MARGINS,
    SURE,
    SURENESS,
    FittedResponse,
    Read,
    with_next_stage,
)
from sleepgym.sim.models import Linear, Logistic, fit_linear, fit_logistic
from sleepgym.sim.replay import Change, changes_of

if TYPE_CHECKING:
    from sleepgym.sim.recorder import Record

_NEEDED = {"inject.written": "INJECT", "night.passes": "SLEEP"}
"""Models that nothing can be said without, and the actions whose records they are fitted to."""


class FitError(SleepGymError, ValueError):
    """Records are too few to fit a response model, or a fit cannot be read."""


@dataclass(frozen=True)
class Samples:
    """Samples of one model.

    Attributes:
        features: ``[samples, features]``.
        targets: ``[samples, 2]`` of a linear model, bool ``[samples]`` of a logistic one.
    """

    features: NDArray[np.float32]
    targets: NDArray[Any]


@dataclass(frozen=True)
class Tried:
    """A form that was tried for a model.

    Attributes:
        model: Name of the model.
        form: The form.
        samples: Number of samples of the held-out episodes.
        likelihood: Their mean log-likelihood (nats); NaN without any.
        chosen: Whether the response has this form.
    """

    model: str
    form: str
    samples: int
    likelihood: float
    chosen: bool


def fit_response(
    records: Sequence[Record], held_out: float = 0.25, forms: Sequence[str] = FORMS
) -> tuple[FittedResponse, list[Tried]]:
    """Fits every form of every model to some of the episodes, chooses by the others, and fits again to all.

    Args:
        records: At least two, of one model.
        held_out: Share of the episodes that forms are compared on.
        forms: Forms to try.

    Returns:
        The response, and what was tried.

    Raises:
        FitError: There are too few records, or none of an action that the response cannot do without.
    """
    return fit_samples([dict(samples_of(changes_of(each))) for each in records], held_out, forms, read_in(records))


def read_in(records: Sequence[Record]) -> Read | None:
    """Returns what was read in the notes of recorded streams, each stream once; None without notes."""
    by_seed = {(record.about.seed, record.about.split): record.streams for record in records}
    right, tokens = (
        np.concatenate([getattr(streams, name)[0] for streams in by_seed.values()])
        for name in ("note_right", "note_tokens")
    )
    # Versions that came are the first of their numbers; others have no tokens.
    there = tokens > 0
    return Read(right[there], tokens[there]) if there.any() else None


def fit_samples(
    each: Sequence[Mapping[str, Samples]],
    held_out: float = 0.25,
    forms: Sequence[str] = FORMS,
    read: Read | None = None,
) -> tuple[FittedResponse, list[Tried]]:
    """Does the work of :func:`fit_response` on the samples of its records, by model.

    Args:
        each: Samples of each episode.
        held_out: Share of the episodes that forms are compared on.
        forms: Forms to try.
        read: See :func:`read_in`.

    Raises:
        FitError: There are too few records, or none of an action that the response cannot do without.
    """
    if len(each) < 2:
        raise FitError(f"expected at least two records, found {len(each)}; record more episodes")
    every = max(2, round(1 / held_out))
    # Every policy has a share in both parts, since records come sorted by policy and seed.
    train, test = ([part for i, part in enumerate(each) if (i % every == 0) is wanted] for wanted in (False, True))
    names = {**dict.fromkeys(MARGINS, FACT), **dict.fromkeys(DAMAGE, EPISODE), **CHANCES}
    if any(SURE in part for part in each):
        names[SURE] = SURENESS
    linear: dict[str, Linear] = {}
    logistic: dict[str, Logistic] = {}
    tried: list[Tried] = []
    for model, features in names.items():
        joined = [_joined(part, model, features) for part in (train, test, each)]
        fitted, compared = _chosen(model, features, joined[0], joined[1], joined[2], forms)
        tried += compared
        if isinstance(fitted, Linear):
            linear[model] = fitted
        else:
            logistic[model] = fitted
    return FittedResponse(linear, logistic, read), tried


def samples_of(changes: Iterable[Change]) -> Iterator[tuple[str, Samples]]:
    """Yields the samples of each model, by its name, that changes of one episode hold.

    Args:
        changes: Changes of one episode.
    """
    found: dict[str, list[tuple[NDArray[np.float32], NDArray[Any]]]] = {}
    for change in changes:
        for name, features, targets in _samples(change):
            found.setdefault(name, []).append((features, targets))
    for name, parts in found.items():
        features, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
        yield name, Samples(features, targets)


def _samples(change: Change) -> Iterator[tuple[str, NDArray[np.float32], NDArray[Any]]]:
    at, kind = change.at, {Action.INJECT: "inject", Action.REFRESH: "refresh", Action.SLEEP: "night"}[change.action]
    chosen = change.chosen if kind == "inject" else of_entries_to_facts(at, change.chosen)
    around = Around(at, chosen, of_entries_to_facts(at, change.trained), change.held, change.steps)
    of_episodes = around.of_episodes()
    if change.night is not None:
        yield "night.undone", of_episodes, change.night.undone
        if change.night.undone[0]:
            # What it would have done is not known.
            return
        yield from _of_stages(change, around, of_episodes)
    before, after = at.state.mind, change.after
    if (notes := at.setting.card.notes) is not None:
        row, fact = np.nonzero((around.ever_written | around.chosen) & (after.chat <= -notes.sure_nats))
        yield SURE, around.of_sureness(row, fact, after, of_episodes), after.sure[row, fact]
    damage = np.stack((np.log(after.ratio) - np.log(before.ratio), after.known - before.known), 1)
    yield f"{kind}.damage", of_episodes, damage.astype(np.float32)
    for name, of_facts in _roles(change, around).items():
        row, fact = np.nonzero(of_facts)
        fresh = name == "inject.written"
        margins = [
            new[row, fact] - (0 if fresh else old[row, fact])
            for new, old in ((after.raw, before.raw), (after.chat, before.chat))
        ]
        yield name, around.of_facts(row, fact, of_episodes), np.stack(margins, 1)


def _roles(change: Change, around: Around) -> Mapping[str, NDArray[np.bool_]]:
    """Returns the facts that each model of margins is about, bool ``[1, facts]`` by its name."""
    others = around.ever_written & ~around.chosen
    if change.action == Action.INJECT:
        return {"inject.written": around.chosen, "inject.others": others}
    if change.action == Action.REFRESH:
        return {"refresh.chosen": around.chosen, "refresh.others": others}
    assert change.night is not None
    passed = of_entries_to_facts(change.at, change.night.passed)
    return {
        "night.passed": around.edited & passed,
        "night.failed": around.edited & ~passed,
        "night.settled": around.ever_written & ~around.edited,
    }


def _of_stages(
    change: Change, around: Around, of_episodes: NDArray[np.float32]
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[Any]]]:
    """Yields the samples of who passes the gate, goes further, and has its edit switched off."""
    night, at = change.night, change.at
    assert night is not None
    row, fact = np.nonzero(around.edited)
    entry, last = at.state.facts.entry[row, fact], at.setting.card.sleep.last_stage
    features, passed, stage = around.of_facts(row, fact, of_episodes), night.passed[row, entry], night.stage[row, entry]
    yield "night.passes", features, passed
    yield "night.off", features[~passed], (night.scale[row, entry] == 0)[~passed]
    first = np.minimum(at.state.ledger.stage[row, entry] + 1, last)
    for tried in range(1, last):
        trial = passed & (tried >= first) & (tried <= stage)
        inputs = with_next_stage(features[trial], np.full(trial.sum(), tried), last)
        yield "night.further", inputs, (stage > tried)[trial]


def _joined(parts: Sequence[Mapping[str, Samples]], model: str, names: tuple[str, ...]) -> Samples:
    """Joins the samples of a model over episodes; empty arrays if there are none."""
    found = [part[model] for part in parts if model in part]
    empty = np.empty(0, bool) if model in (*CHANCES, SURE) else np.empty((0, 2), np.float32)
    features = np.concatenate([np.empty((0, len(names)), np.float32), *(each.features for each in found)])
    return Samples(features, np.concatenate([empty, *(each.targets for each in found)]))


def _chosen(
    model: str, names: tuple[str, ...], train: Samples, test: Samples, everything: Samples, forms: Sequence[str]
) -> tuple[Linear | Logistic, list[Tried]]:
    """Fits a model in the form whose held-out likelihood is best."""
    if model in _NEEDED and not len(train.targets):
        raise FitError(
            f"expected records with {_NEEDED[model]}, found none in the episodes to fit to; "
            "record more episodes, of policies that take it (nights that undo themselves say nothing of what others do)"
        )
    scores = {}
    for form in forms:
        fitted = _fitted(model, names, train, form)
        likelihood = fitted.likelihood(test.features, names, test.targets)
        scores[form] = float(likelihood.mean()) if len(likelihood) else float("nan")
    # NaN compares false: without held-out samples, the simplest form stays.
    best = forms[0]
    for form in forms[1:]:
        if scores[form] > scores[best]:
            best = form
    tried = [Tried(model, form, len(test.targets), score, form == best) for form, score in scores.items()]
    return _fitted(model, names, everything, best), tried


def _fitted(model: str, names: tuple[str, ...], samples: Samples, form: str) -> Linear | Logistic:
    if model in (*CHANCES, SURE):
        targets = samples.targets.astype(bool)
        if not len(targets):
            # What was never seen does not happen.
            never = fit_logistic(samples.features, names, targets, "constant")
            return Logistic("constant", never.weights - 10)
        return fit_logistic(samples.features, names, targets, form)
    return fit_linear(samples.features, names, samples.targets.astype(np.float32), form)
