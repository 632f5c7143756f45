"""Calibration of an editor for a model: coordinate search over blocks, key token, clamp and lambda, in that order."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sleepgym import files
from sleepgym.editing.editor import Editor
from sleepgym.editing.measure import EditProbes
from sleepgym.editing.spec import EditError, EditSpec
from sleepgym.editing.statistics import statistics_for
from sleepgym.errors import SleepGymError
from sleepgym.facts.fact import Fact
from sleepgym.files import cache_dir
from sleepgym.lm import LanguageModel, perplexity
from sleepgym.lm.catalogue import CATALOGUE
from sleepgym.memory.overlay import Memory, Overlay
from sleepgym.reading import found_in, read_json


class CalibrationError(SleepGymError, ValueError):
    """A file is no calibration."""


DRIFT_WEIGHT = 4.0
"""Weight of relative perplexity drift against recall: one percent of drift counts as four percent of recall."""


def quality(recalls: Sequence[float], drift: float) -> float:
    """Returns the mean of the recalls that are not NaN, minus :data:`DRIFT_WEIGHT` times positive drift.

    Args:
        recalls: Shares in [0, 1], or NaN where unmeasured; at least one measured.
        drift: Relative change of perplexity on held-out text.
    """
    measured = [recall for recall in recalls if not math.isnan(recall)]
    return sum(measured) / len(measured) - DRIFT_WEIGHT * max(drift, 0.0)


@dataclass(frozen=True)
class Trial:
    """Result of one setting on the calibration facts, all written at once.

    Attributes:
        changed: Name and value of the varied setting.
        efficacy: Recall on the prompts that were written.
        paraphrase: Recall on unseen phrasings (NaN if the facts have none).
        question: Recall on chat questions (NaN if the facts have no questions).
        kept: Share of the neighbours recalled by the bare model that are still recalled (NaN if there are none).
        drift: Relative change of perplexity on held-out text.
    """

    changed: str
    efficacy: float
    paraphrase: float
    question: float
    kept: float
    drift: float

    @property
    def quality(self) -> float:
        """See :func:`quality`."""
        return quality((self.efficacy, self.paraphrase, self.question, self.kept), self.drift)

    def __str__(self) -> str:
        return (
            f"{self.changed:<28} recall {self.efficacy:.2f}  unseen {self.paraphrase:.2f}  asked {self.question:.2f}  "
            f"neighbours kept {self.kept:.2f}  perplexity {100 * self.drift:+.1f} %  quality {self.quality:.3f}"
        )


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration.

    Attributes:
        fingerprint: Fingerprint of the model.
        spec: The chosen settings.
        trials: All trials, in order.
    """

    fingerprint: str
    spec: EditSpec
    trials: tuple[Trial, ...]

    def save(self, path: Path) -> None:
        """Writes the calibration as JSON.

        Raises:
            OSError: The file cannot be written.
        """
        files.write(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Reads the JSON that :meth:`save` wrote.

        Raises:
            CalibrationError: The file is no calibration, or cannot be read.
        """
        try:
            raw = read_json(path)
            trials = TypeAdapter(tuple[Trial, ...]).validate_python(raw["trials"])
            return cls(str(raw["fingerprint"]), _spec_of(raw["spec"]), trials)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"expected a calibration in {path}, found {found_in(error)}; delete the file and calibrate again"
            ) from error


def calibration_path(lm: LanguageModel) -> Path:
    """Returns the path of a model's calibration, in the folder of its statistics."""
    return cache_dir("statistics") / f"{lm.fingerprint[:32]}.calibration.json"


def spec_for(lm: LanguageModel) -> EditSpec:
    """Settings for a model: those of :func:`calibrated`, else a default.

    The default edits a third of the blocks, from :func:`first_block` on, with gated terms: what is off elsewhere leaves
    alone what a pretrained model knows of others, whatever lambda is.

    Raises:
        CalibrationError: A calibration file is malformed.
    """
    depth, first = len(lm.blocks), first_block(lm)
    layers = tuple(range(first, first + max(1, depth // 2 - depth // 6)))
    usual = EditSpec(layers=layers, prefixes=3, clamp=0.8, covariance_weight=2000.0, gate=0.5)
    return calibrated(lm) or usual


def first_block(lm: LanguageModel) -> int:
    """Index of the first block to edit, where nothing better is known.

    It is at a sixth of the depth: the blocks up to half of it are where Meng et al. 2023 find factual recall. Where
    texts have no start token, it is the second block: a few later, the first word of a text is an attention sink, whose
    keys are alike whatever it says.
    """
    first = len(lm.blocks) // 6
    return first if lm.encoder.starts else min(first, 1)


def calibrated(lm: LanguageModel) -> EditSpec | None:
    """Settings that were found for a model: calibrated here, else those of an exported model's base, else shipped ones.

    Returns:
        The settings; None for a model that nobody has calibrated.

    Raises:
        CalibrationError: A calibration file is malformed.
    """
    beside = None if lm.folder is None else lm.folder / RECIPE
    here = calibration_path(lm)
    if beside is not None and beside.is_file() and not here.is_file():
        return read_recipe(beside)
    shipped = [entry.calibration for entry in CATALOGUE.values() if entry.calibration is not None]
    for file in (here, *shipped):
        if file.is_file():
            calibration = Calibration.read(file)
            if calibration.fingerprint == lm.fingerprint:
                return calibration.spec
    return None


RECIPE = "sleepgym_edit.json"
"""File beside the weights of an exported model: the recipe that its base was edited with."""


def recipe_document(spec: EditSpec) -> bytes:
    """The content of :data:`RECIPE`."""
    return (json.dumps({"format": 1, "edit": asdict(spec)}, indent=1) + "\n").encode()


def read_recipe(path: Path) -> EditSpec:
    """Reads what :func:`recipe_document` made.

    Raises:
        EditError: It is something else.
    """
    try:
        return _spec_of(read_json(path)["edit"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EditError(
            f"expected the recipe of an exported model in {path}, found {found_in(error)}; "
            "delete the file to have a recipe guessed, or export the model again"
        ) from error


def _spec_of(raw: Mapping[str, Any]) -> EditSpec:
    """Settings as JSON has them.

    Raises:
        TypeError: A key is unknown.
        ValueError: A value has another type or is impossible.
    """
    spec = EditSpec(**{**raw, "layers": tuple(raw["layers"])})
    # Dataclasses take whatever they are given; JSON has to be of the types that they name.
    return TypeAdapter(EditSpec).validate_json(json.dumps(asdict(spec), allow_nan=False), strict=True)


def windows(lm: LanguageModel) -> list[tuple[int, ...]]:
    """Returns candidate runs of consecutive blocks: starts in the lower third times three lengths."""
    depth = len(lm.blocks)
    starts = (0, first_block(lm), depth // 6, depth // 3)
    lengths = (1, math.ceil(depth / 6), math.ceil(depth / 3))
    return sorted({tuple(range(start, min(start + length, depth))) for start in starts for length in lengths})


def calibrate(
    overlay: Overlay,
    facts: Sequence[Fact],
    start: EditSpec,
    layers: Sequence[tuple[int, ...]] | None = None,
    clamps: Sequence[float] = (0.5, 0.8, 1.5),
    covariance_weights: Sequence[float] = (100.0, 300.0, 1000.0, 2000.0, 4000.0, 8000.0),
    progress: Callable[[str], None] = print,
) -> Calibration:
    """Searches one setting at a time and keeps the best value by :attr:`Trial.quality`.

    Lambda is searched jointly with the blocks, since the best value depends on how many blocks are edited, and again at
    the end: targets do not depend on it, so that a trial of it needs no optimisation.

    Args:
        overlay: The model with hooks.
        facts: Facts to calibrate on; those without neighbours leave ``kept`` unmeasured.
        start: Initial settings; fields that are not searched keep their values.
        layers: Runs of blocks to try; by default :func:`windows`.
        clamps: Clamps to try.
        covariance_weights: Lambdas to try.
        progress: Called with a line of text per trial.

    Returns:
        The chosen settings and all trials.

    Raises:
        EditError: A trial failed.
        FactError: A fact cannot be tokenised as needed.
    """
    lm = overlay.lm
    probes = EditProbes(lm, facts)
    trials: list[Trial] = []
    held_out = statistics_for(lm, start.layers).held_out
    bare = perplexity(lm, held_out)

    def run_trial(spec: EditSpec, changed: str) -> Trial:
        memory = Memory()
        Editor(overlay, statistics_for(lm, spec.layers), spec, cache_dir("targets")).write(memory, facts)
        with overlay.use(memory):
            report, drift = probes.read(), perplexity(lm, held_out) / bare - 1
        readings = (report.efficacy.exact, report.paraphrase.exact, report.question.exact)
        trial = Trial(changed, *readings, report.kept, drift)
        trials.append(trial)
        progress(str(trial))
        return trial

    def choose(options: Sequence[EditSpec], describe: Callable[[EditSpec], str]) -> EditSpec:
        qualities = [run_trial(option, describe(option)).quality for option in options]
        return options[qualities.index(max(qualities))]

    weights = sorted(covariance_weights)
    middle = weights[len(weights) // 2]
    runs = windows(lm) if layers is None else layers
    spec = choose(
        [replace(start, layers=run, covariance_weight=weight) for run in runs for weight in (weights[0], middle)],
        lambda s: f"layers {_run(s.layers)}, lambda {s.covariance_weight:g}",
    )
    spec = choose(
        [replace(spec, key_token="subject"), replace(spec, key_token="prompt")], lambda s: f"key at the {s.key_token}"
    )
    spec = choose([replace(spec, clamp=clamp) for clamp in clamps], lambda s: f"clamp {s.clamp:g}")
    spec = choose(
        [replace(spec, covariance_weight=weight) for weight in weights], lambda s: f"lambda {s.covariance_weight:g}"
    )
    return Calibration(lm.fingerprint, spec, tuple(trials))


def _run(layers: Sequence[int]) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"
