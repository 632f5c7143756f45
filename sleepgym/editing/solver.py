"""One solver for all edits: least squares that fits new keys, outvoted by what should stay.

The update of Meng et al. 2023, eq. 14, ``D = R K^T M^-1`` with the normal matrix ``M + K K^T``, whose terms
compose: text (``lambda C``), a ridge (``rho I``), the keys of memories to protect (``K_p K_p^T``), and the
projection onto keys that text does not use (Fang et al. 2025, eq. 11).

``D`` is never formed. With ``M^-1 = W W^T`` and whitened keys ``Z = K W``, the push-through identity gives
``D = R A`` with ``A = (I + Z Z^T)^-1 Z W^T``: every key owns one row of ``A``, and its term can be reverted or
scaled alone. ``W`` is computed once per model. The Cholesky factor of ``I + Z Z^T`` grows by a row with each key,
so the n-th fact costs ``O(d^2 + n d + n^2)`` and never the ``O(n^2 d + n^3)`` of solving for all again.

Everything is float64: ``I + Z Z^T`` is near singular when two subjects are much alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sleepgym.editing.spec import EditError


class NormalMatrix:
    """``M``, kept as what whitens keys.

    Args:
        second_moment: ``C = E[k k^T]`` over text, ``[d_in, d_in]``.
        covariance_weight: How many text tokens' keys one fact has to outvote.
        ridge: Multiple of the identity in units of the mean eigenvalue of ``C``.
        null_space: Closes directions whose eigenvalue of ``C`` is above this multiple of the mean one.

    Raises:
        EditError: ``M`` is not positive definite, or nothing is left of the space of keys.
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
        """A system without keys yet."""
        k = len(self._factor)
        return Solved(self._factor.new_zeros(0, k), self._factor.new_zeros(0, 0))

    def whiten(self, keys: Tensor) -> Tensor:
        """``Z = K W`` for keys ``[n, d_in]``."""
        # One by one: how many keys are whitened together must not show in the last bits.
        columns = [key[:, None] if self._open is None else self._open.T @ key[:, None] for key in keys]
        return torch.stack([torch.linalg.solve_triangular(self._factor, k, upper=False)[:, 0] for k in columns])

    def unwhiten(self, white: Tensor) -> Tensor:
        """``Z W^T`` for rows ``[n, ...]`` in whitened coordinates; shape ``[n, d_in]``."""
        rows = torch.linalg.solve_triangular(self._factor.T, white.T, upper=True).T
        return rows if self._open is None else rows @ self._open.T

    def solve(self, keys: Tensor, protected: Tensor | None = None) -> Tensor:
        """Rows ``A`` such that adding ``r_i A_i`` per key maps key ``i`` to about ``r_i`` and little else.

        Args:
            keys: ``[n, d_in]`` of the facts to write.
            protected: ``[m, d_in]`` whose outputs should stay as they are.

        Returns:
            ``A [n, d_in]`` in float64.
        """
        solved = self.empty() if protected is None else self.empty().extended(self.whiten(protected))
        return self.unwhiten(solved.extended(self.whiten(keys)).rows(len(keys)))


@dataclass(frozen=True)
class Solved:
    """Whitened keys and the Cholesky factor of their ``I + Z Z^T``; grows without being redone.

    Attributes:
        white: ``Z [n, k]``.
        factor: Lower triangular, ``[n, n]``.
    """

    white: Tensor
    factor: Tensor

    def extended(self, white: Tensor) -> Solved:
        """The same with ``m`` more keys ``[m, k]``, row by row of a Cholesky factorisation.

        Row by row, so that a system is the same to the last bit in however many calls it was grown.
        """
        n, m = len(self.white), len(white)
        Z = torch.cat([self.white, white])
        L = white.new_zeros(n + m, n + m)
        L[:n, :n] = self.factor
        for i in range(n, n + m):
            if i:
                inner = (Z[:i] @ Z[i])[:, None]
                L[i, :i] = torch.linalg.solve_triangular(L[:i, :i], inner, upper=False)[:, 0]
            # What is left under the root is 1 plus something that only rounding could make negative.
            L[i, i] = (1.0 + Z[i] @ Z[i] - L[i, :i] @ L[i, :i]).clamp(min=1e-12).sqrt()
        return Solved(Z, L)

    def rows(self, count: int) -> Tensor:
        """The last ``count`` rows of ``(I + Z Z^T)^-1 Z``, ``[count, k]``.

        Keys before them enter like facts with zero residual: it is the joint solve, of which only these rows
        are kept.
        """
        n = len(self.white)
        select = torch.eye(n, dtype=self.factor.dtype, device=self.factor.device)[:, n - count :]
        return torch.cholesky_solve(select, self.factor).T @ self.white
