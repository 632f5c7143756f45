"""The parts of a response: models recover what data were drawn from, and random numbers are what they should be."""

from __future__ import annotations

import numpy as np
import pytest

from sleepgym.sim.dice import derived, integers, keys_of, normal, normal_pairs_at, uniform, uniform_at
from sleepgym.sim.features import FORMS, expanded, weighted
from sleepgym.sim.models import fit_linear, fit_logistic

NAMES = ("one", "raw", "load")


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate((np.ones((4000, 1)), rng.standard_normal((4000, 2))), 1).astype(np.float32)


def test_a_linear_model_recovers_weights_and_noise(features: np.ndarray) -> None:
    weights = np.array([[1.0, -1.0], [0.5, 0.0], [0.0, 2.0]])
    noise = np.array([[0.3, 0.0], [0.2, 0.1]])
    targets = features @ weights + np.random.default_rng(1).standard_normal((4000, 2)) @ noise.T
    model = fit_linear(features, NAMES, targets.astype(np.float32), "linear")
    np.testing.assert_allclose(model.weights, weights, atol=0.03)
    np.testing.assert_allclose(model.noise, noise, atol=0.02)
    drawn = model.draw(features, NAMES, np.random.default_rng(2).standard_normal((4000, 2)))
    # Its own draws are as likely as what it was fitted to.
    ours, theirs = (model.likelihood(features, NAMES, each.astype(np.float32)).mean() for each in (drawn, targets))
    assert ours == pytest.approx(theirs, abs=0.05)


def test_noise_is_drawn_from_what_was_left_over_tails_and_all(features: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    # Rarely much, and together: no Gaussian.
    jumps = np.where(rng.random((4000, 1)) < 0.02, 5.0, 0.0) * [1.0, -1.0]
    targets = (features @ np.array([[1.0, 0.0], [0.5, 0.0], [0.0, 2.0]]) + jumps).astype(np.float32)
    model = fit_linear(features, NAMES, targets, "linear")
    off = model.redraw(features, NAMES, rng.random(4000)) - model.mean(features, NAMES)
    assert (np.abs(off) > 2.5).mean() == pytest.approx(0.02, abs=0.008)
    np.testing.assert_allclose(off[:, 0], -off[:, 1], atol=0.3)
    np.testing.assert_allclose(off.std(0), jumps.std(0), rtol=0.25)
    assert len(model.left) == 2048 and np.array_equal(fit_linear(features, NAMES, targets, "linear").left, model.left)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("targets", [(), (2,)])
def test_a_model_of_products_is_summed_without_laying_them_out(
    form: str, targets: tuple[int, ...], features: np.ndarray
) -> None:
    inputs = expanded(features, NAMES, form)
    weights = np.random.default_rng(0).standard_normal((inputs.shape[1], *targets)).astype(np.float32)
    found = weighted(features, NAMES, form, weights)
    assert found.dtype == np.float32 and found.shape == (len(features), *targets)
    np.testing.assert_allclose(found, inputs.astype(np.float64) @ weights, rtol=1e-6, atol=1e-6)
    assert weighted(features[:0], NAMES, form, weights).shape == (0, *targets)


def test_a_logistic_model_recovers_chances(features: np.ndarray) -> None:
    chance = 1 / (1 + np.exp(-(features @ [0.5, 1.0, -1.0])))
    targets = np.random.default_rng(1).random(4000) < chance
    model = fit_logistic(features, NAMES, targets, "linear")
    np.testing.assert_allclose(model.weights, [0.5, 1.0, -1.0], atol=0.15)
    assert np.abs(model.chance(features, NAMES) - chance).mean() < 0.02


def test_the_form_of_the_data_is_the_likeliest(features: np.ndarray) -> None:
    targets = (features[:, [1]] * features[:, [2]]).repeat(2, 1) + 0.1 * features[:, [1, 2]]
    scores = {
        form: fit_linear(features[:3000], NAMES, targets[:3000], form)
        .likelihood(features[3000:], NAMES, targets[3000:])
        .mean()
        for form in FORMS
    }
    assert max(scores, key=lambda form: scores[form]) == "interactions"


def test_without_samples_nothing_changes() -> None:
    none = np.empty((0, 3), np.float32)
    model = fit_linear(none, NAMES, np.empty((0, 2), np.float32), "linear")
    drawn = model.draw(np.ones((5, 3), np.float32), NAMES, np.ones((5, 2)))
    assert np.abs(drawn).max() < 0.05


def test_draws_are_uniform_normal_and_those_of_their_keys_alone() -> None:
    keys = keys_of(np.arange(500, dtype=np.uint64))
    flat, bell = uniform(keys, 0, 40), normal(keys, 0, 41)
    assert flat.min() > 0 and flat.max() < 1
    assert abs(flat.mean() - 0.5) < 0.01 and abs(flat.var() - 1 / 12) < 0.002
    assert abs(bell.mean()) < 0.03 and abs(bell.std() - 1) < 0.02
    assert np.array_equal(uniform(keys[3:4], 0, 10)[0], flat[3, :10])
    row, place = np.array([4, 0, 499]), np.array([39, 7, 0])
    assert np.array_equal(uniform_at(keys, 0, row, place), flat[row, place])
    every = np.repeat(np.arange(500), 20), np.tile(np.arange(20), 500)
    pairs = normal_pairs_at(keys, 0, *every)
    assert np.abs(np.cov(pairs.T) - np.eye(2)).max() < 0.05 and np.abs(pairs.mean(0)).max() < 0.03
    correlations = np.corrcoef(
        np.concatenate((flat[:, :5], uniform(keys, 1, 5), uniform(derived(keys, np.arange(500)), 0, 5)), 1).T
    )
    assert np.abs(correlations - np.eye(15)).max() < 0.2
    assert sorted(set(integers(flat.ravel(), 2, 5).tolist())) == [2, 3, 4, 5]
