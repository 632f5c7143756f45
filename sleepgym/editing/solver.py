"""Regularised least squares for edits.

The update of Meng et al. 2023, eq. 14, ``D = R K^T M^-1`` with the normal matrix ``M + K K^T``, whose terms
compose: text (``lambda C``), a ridge (``rho I``), the keys of memories to protect (``K_p K_p^T``), and the
projection onto keys that text does not use (Fang et al. 2025, eq. 11).

``D`` is never formed. With ``M^-1 = W W^T`` and whitened keys ``Z = K W``, the push-through identity gives
``D = R A`` with ``A = (I + Z Z^T)^-1 Z W^T``: every key owns one row of ``A``, and its term can be reverted or
scaled alone. ``W`` is computed once per model. The Cholesky factor of ``I + Z Z^T`` grows by a row with each key,
so the n-th fact costs ``O(d^2 + n d + n^2)`` instead of the ``O(n^2 d + n^3)`` of solving for all again. That this adds
up to the joint solve is recursive least squares, as in RLSEdit (arXiv:2601.15686).

All computations are in float64: ``I + Z Z^T`` is near singular when the keys of two subjects are similar.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sleepgym.editing.spec import EditError


class NormalMatrix:
    """``M = lambda C + rho I``, stored as its Cholesky factor, which whitens keys.

    Args:
        second_moment: ``C = E[k k^T]`` over text, ``[d_in, d_in]``.
        covariance_weight: ``lambda``: weight of ``C`` against one fact, in text tokens.
        ridge: ``rho`` in units of the mean eigenvalue of ``C``.
        null_space: Multiple of the mean eigenvalue of ``C`` above which eigenvectors are projected out (Fang et al.
            2025, eq. 8); None for no projection.

    Raises:
        EditError: ``M`` is not positive definite, or the projection leaves no direction.
    """

    def __init__(
        self, second_moment: Tensor, covariance_weight: float, ridge: float, null_space: float | None = None
    ) -> None:
        C = second_moment.double()
        mean = C.diagonal().mean()
        U: Tensor | None = None
        if null_space is not None:
            eigenvalues, vectors = torch.linalg.eigh(C)
            U = vectors[:, eigenvalues <= null_space * mean]
            if U.shape[1] == 0:
                raise EditError(
                    f"expected keys that text leaves unused, found every eigenvalue of C above {null_space} of the "
                    "mean; raise null_space"
                )
            C = U.T @ C @ U
        M = covariance_weight * C
        M.diagonal().add_(ridge * mean)
        factor, info = torch.linalg.cholesky_ex(M)
        if info.item() != 0:
            raise EditError(
                f"expected a positive definite normal matrix, found a failure at pivot {int(info)}; "
                "raise ridge, or collect the second moment over more text"
            )
        self._factor, self._open = factor, U

    def empty(self) -> Solved:
        """Returns the system without keys."""
        k = len(self._factor)
        return Solved(self._factor.new_zeros(0, k), self._factor.new_zeros(0, 0))

    def whiten(self, keys: Tensor) -> Tensor:
        """Returns ``Z = K W`` for keys ``K [n, d_in]``, shape ``[n, k]``."""
        # One by one, so that results are bitwise independent of how many keys are whitened together.
        columns = [key[:, None] if self._open is None else self._open.T @ key[:, None] for key in keys]
        return torch.stack([torch.linalg.solve_triangular(self._factor, k, upper=False)[:, 0] for k in columns])

    def unwhiten(self, white: Tensor) -> Tensor:
        """Returns ``Z W^T`` for rows ``Z [n, k]`` in whitened coordinates, shape ``[n, d_in]``."""
        rows = torch.linalg.solve_triangular(self._factor.T, white.T, upper=True).T
        return rows if self._open is None else rows @ self._open.T

    def solve(self, keys: Tensor, protected: Tensor | None = None) -> Tensor:
        """Solves for rows ``A`` such that ``sum_i r_i A_i`` maps key ``i`` to about ``r_i`` (Meng et al. 2023, eq. 14).

        Args:
            keys: Keys of the facts to write, ``[n, d_in]``.
            protected: Keys whose outputs should stay unchanged, ``[m, d_in]``.

        Returns:
            ``A [n, d_in]`` in float64.
        """
        solved = self.empty() if protected is None else self.empty().extended(self.whiten(protected))
        return self.unwhiten(solved.extended(self.whiten(keys)).rows(len(keys)))


@dataclass(frozen=True)
class Solved:
    """Whitened keys and the Cholesky factor of their ``I + Z Z^T``, which can be extended by further keys.

    Attributes:
        white: Whitened keys ``Z [n, k]``.
        factor: Lower Cholesky factor of ``I + Z Z^T``, ``[n, n]``.
    """

    white: Tensor
    factor: Tensor

    def extended(self, white: Tensor) -> Solved:
        """Returns the system with ``m`` further whitened keys ``[m, k]``.

        The Cholesky factor is extended row by row, so that a system is bitwise independent of the number of calls that
        extended it.
        """
        n, m = len(self.white), len(white)
        Z = torch.cat([self.white, white])
        L = white.new_zeros(n + m, n + m)
        L[:n, :n] = self.factor
        for i in range(n, n + m):
            if i:
                inner = (Z[:i] @ Z[i])[:, None]
                L[i, :i] = torch.linalg.solve_triangular(L[:i, :i], inner, upper=False)[:, 0]
            # The pivot is at least 1 in exact arithmetic; the clamp guards against rounding.
            L[i, i] = (1.0 + Z[i] @ Z[i] - L[i, :i] @ L[i, :i]).clamp(min=1e-12).sqrt()
        return Solved(Z, L)

    def rows(self, count: int) -> Tensor:
        """Returns the last ``count`` rows of ``(I + Z Z^T)^-1 Z``, ``[count, k]``.

        Earlier keys count as facts with zero residual: the solve is joint, and only these rows of it are returned.
        """
        n = len(self.white)
        select = torch.eye(n, dtype=self.factor.dtype, device=self.factor.device)[:, n - count :]
        return torch.cholesky_solve(select, self.factor).T @ self.white
