"""Calibration tries, keeps the best, and is found again."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sleepgym.editing import Calibration, EditSpec, calibrate, preset, spec_for, statistics_for
from sleepgym.editing.calibration import (
    CalibrationError,
    Trial,
    calibration_path,
    read_recipe,
    recipe_document,
    windows,
)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SLEEPGYM_CACHE", str(tmp_path))


def model(depth, starts):
    """What settings are guessed by."""
    encoder = SimpleNamespace(starts=starts)
    return SimpleNamespace(blocks=range(depth), fingerprint="unknown", folder=None, encoder=encoder)


def few_held_out(lm, layers):
    statistics = statistics_for(lm, layers)
    return replace(statistics, held_out=statistics.held_out[:16])


@pytest.fixture(scope="module")
def calibration(base, facts, world):
    known = world.known_facts()
    taught = [replace(f, neighbours=tuple((k.prompt, k.object) for k in known[i : i + 2])) for i, f in enumerate(facts)]
    lines: list[str] = []
    start = EditSpec(steps=10, prefixes=1)
    with pytest.MonkeyPatch.context() as patch:
        # Drift on a few rows: on all of the held-out text it takes most of the time.
        patch.setattr("sleepgym.editing.calibration.statistics_for", few_held_out)
        found = calibrate(
            base.overlay, taught[:2], start, layers=[(0,), (1,)], clamps=(0.3, 1.5), covariance_weights=(300.0, 3e5),
            progress=lines.append,
        )  # fmt: skip
    assert len(lines) == len(found.trials) == 2 * 2 + 2 + 2 + 2
    return found


def test_the_best_of_what_was_tried_is_chosen(calibration):
    quality = {trial.changed: trial.quality for trial in calibration.trials}
    by_layers = {k: v for k, v in quality.items() if k.startswith("layers")}
    assert str(calibration.spec.layers[0]) in max(by_layers, key=by_layers.get).split(",")[0]
    assert calibration.spec.covariance_weight == 300.0


def test_it_survives_the_disk(calibration, tmp_path):
    calibration.save(tmp_path / "c.json")
    assert Calibration.read(tmp_path / "c.json") == calibration


def test_calibrated_settings_are_found_again(base, calibration, own_cache):
    assert spec_for(base.lm) != calibration.spec
    calibration.save(calibration_path(base.lm))
    assert spec_for(base.lm) == calibration.spec


def test_calibration_of_another_model_is_not_used(base, calibration, own_cache):
    before = spec_for(base.lm)
    replace(calibration, fingerprint="another").save(calibration_path(base.lm))
    assert spec_for(base.lm) == before


def test_bundled_model_ships_with_settings_that_were_calibrated_for_it(base, own_cache):
    shipped = Calibration.read(base.lm.folder / "calibration.json")
    assert shipped.fingerprint == base.lm.fingerprint and spec_for(base.lm) == shipped.spec


@pytest.mark.parametrize(
    ("depth", "starts", "layers"),
    [
        (18, True, (3, 4, 5, 6, 7, 8)),
        (18, False, (1, 2, 3, 4, 5, 6)),
        (2, True, (0,)),
        (2, False, (0,)),
        (1, False, (0,)),
    ],
)
def test_unknown_model_gets_a_third_of_its_blocks_early_ones_without_a_start_token(depth, starts, layers, own_cache):
    assert spec_for(model(depth, starts)).layers == layers


def test_recipe_of_an_earlier_version_is_read_with_later_settings_off(tmp_path):
    document = json.loads(recipe_document(EditSpec(clamp=0.7)))
    for name in ("protect_weight", "anchor", "alignment"):
        del document["edit"][name]
    (tmp_path / "recipe.json").write_text(json.dumps(document))
    assert read_recipe(tmp_path / "recipe.json") == EditSpec(clamp=0.7)


@pytest.mark.parametrize("spec", [preset("nas"), preset("eamet")], ids=["nas", "eamet"])
def test_published_recipe_survives_the_disk(tmp_path, spec):
    (tmp_path / "recipe.json").write_bytes(recipe_document(spec))
    assert read_recipe(tmp_path / "recipe.json") == spec


@pytest.mark.parametrize("text", ["{}", '{"fingerprint": "x", "spec": {"layers": [0], "colour": 1}, "trials": []}'])
def test_something_else_is_refused(text, tmp_path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(CalibrationError, match="expected a calibration"):
        Calibration.read(tmp_path / "c.json")


def test_drift_outweighs_recall_and_unknown_shares_do_not_count():
    nan = float("nan")
    assert Trial("", 1.0, nan, nan, nan, 0.0).quality == 1.0
    assert Trial("", 1.0, 0.5, nan, nan, 0.05).quality == pytest.approx(0.75 - 0.2)


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 4, 18, 32])
def test_windows_are_runs_within_the_model(depth, starts):
    lm = model(depth, starts)
    found = windows(lm)
    for run in found:
        assert run and run == tuple(range(run[0], run[-1] + 1)) and run[-1] < depth
    assert spec_for(lm).layers[0] in {run[0] for run in found}
