"""The two kinds of model that a response is made of: a linear one with Gaussian noise, and a logistic one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.features import expanded, weighted

_RIDGE = 1.0
"""Precision of the prior of every weight, in samples; features are of order 1."""

_KEPT = 2048
"""Samples whose differences from the model are kept."""


@dataclass(frozen=True)
class Linear:
    """Linear model of several targets with correlated noise.

    Forms are compared as if noise were Gaussian. It is drawn from what was left over in the samples: margins change
    little most of the time and much sometimes, and a Gaussian of the same variance would cross 0 too often.

    Attributes:
        form: See :data:`sleepgym.sim.features.FORMS`.
        weights: ``[inputs, targets]``.
        noise: Lower triangular factor of the noise's covariance, ``[targets, targets]``.
        left: Differences of samples from what the model expects, at random, ``[kept, targets]``; none for Gaussian
            noise.
    """

    form: str
    weights: NDArray[np.float32]
    noise: NDArray[np.float32]
    left: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))

    def mean(self, features: NDArray[np.float32], names: tuple[str, ...]) -> NDArray[np.float32]:
        """Returns the expected targets, ``[samples, targets]``."""
        return weighted(features, names, self.form, self.weights)

    def draw(
        self, features: NDArray[np.float32], names: tuple[str, ...], noise: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """Returns targets with noise, ``[samples, targets]``.

        Args:
            features: ``[samples, features]``.
            names: Names of the features.
            noise: Draws from the standard normal distribution, ``[samples, targets]``.
        """
        off = noise.astype(np.float64) @ self.noise.T.astype(np.float64)
        return self.mean(features, names) + off.astype(np.float32)

    def redraw(
        self, features: NDArray[np.float32], names: tuple[str, ...], drawn: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Returns targets with noise out of :attr:`left`, ``[samples, targets]``.

        Args:
            features: ``[samples, features]``.
            names: Names of the features.
            drawn: Uniform draws from (0, 1), ``[samples]``.
        """
        return self.mean(features, names) + self.left[(drawn * len(self.left)).astype(np.int64)]

    def likelihood(
        self, features: NDArray[np.float32], names: tuple[str, ...], targets: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Returns the log-likelihood of each sample (nats), ``[samples]``."""
        off = (targets - self.mean(features, names)).astype(np.float64)
        scaled = np.linalg.solve(self.noise.astype(np.float64), off.T).T
        constant = np.log(np.diag(self.noise)).sum() + 0.5 * off.shape[1] * np.log(2 * np.pi)
        return -0.5 * (scaled**2).sum(1) - constant


@dataclass(frozen=True)
class Logistic:
    """Logistic model of a probability.

    Attributes:
        form: See :data:`sleepgym.sim.features.FORMS`.
        weights: ``[inputs]``.
    """

    form: str
    weights: NDArray[np.float32]

    def chance(self, features: NDArray[np.float32], names: tuple[str, ...]) -> NDArray[np.float64]:
        """Returns the probabilities, ``[samples]``."""
        return _sigmoid(weighted(features, names, self.form, self.weights))

    def likelihood(
        self, features: NDArray[np.float32], names: tuple[str, ...], targets: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Returns the log-likelihood of each sample (nats), ``[samples]``."""
        chance = np.clip(self.chance(features, names), 1e-6, 1 - 1e-6)
        return np.log(np.where(targets, chance, 1 - chance))


def fit_linear(
    features: NDArray[np.float32], names: tuple[str, ...], targets: NDArray[np.float32], form: str
) -> Linear:
    """Fits a linear model by ridge regression.

    Without samples, its targets are 0 with next to no noise.

    Args:
        features: ``[samples, features]``.
        names: Names of the features.
        targets: ``[samples, targets]``.
        form: Form of the model.
    """
    inputs = expanded(features, names, form).astype(np.float64)
    normal = inputs.T @ inputs + _RIDGE * np.eye(inputs.shape[1])
    weights = np.linalg.solve(normal, inputs.T @ targets)
    off = targets - inputs @ weights
    # A little noise of its own, so that a target that never varies has a likelihood.
    covariance = (off.T @ off + 1e-4 * np.eye(off.shape[1])) / max(len(off), 1)
    noise = np.linalg.cholesky(covariance + 1e-8 * np.eye(off.shape[1]))
    kept = np.random.default_rng(0).permutation(len(off))[:_KEPT]
    return Linear(form, weights.astype(np.float32), noise.astype(np.float32), off[kept].astype(np.float32))


def fit_logistic(
    features: NDArray[np.float32], names: tuple[str, ...], targets: NDArray[np.bool_], form: str
) -> Logistic:
    """Fits a logistic model by Newton's method with the same prior; without samples, its chances are 0.5.

    Args:
        features: ``[samples, features]``.
        names: Names of the features.
        targets: bool ``[samples]``.
        form: Form of the model.
    """
    inputs = expanded(features, names, form).astype(np.float64)
    weights = np.zeros(inputs.shape[1])
    prior = _RIDGE * np.eye(len(weights))
    for _ in range(50):
        chance = _sigmoid(inputs @ weights)
        slope = inputs.T @ (targets - chance) - prior @ weights
        curve = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + prior
        change = np.linalg.solve(curve, slope)
        # Bounded: a full step from afar can overshoot.
        weights += change * min(1.0, 5.0 / max(1e-12, float(np.abs(change).max())))
        if np.abs(change).max() < 1e-6:
            break
    return Logistic(form, weights.astype(np.float32))


def _sigmoid(value: NDArray[np.floating]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(0.5 * value.astype(np.float64)))
