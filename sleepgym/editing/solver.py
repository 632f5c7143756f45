"""One solver for all edits: least squares that fits new keys, outvoted by what should stay.

The update of Meng et al. 2023, eq. 14, ``D = R K^T (lambda C + K K^T)^-1``, with composable terms in the
normal matrix: text (``lambda C``), a ridge (``rho I``), and the keys of memories to protect (``K_p K_p^T``).
It is never formed. By the push-through identity ``D = R A`` with ``A = (I + K^T M^-1 K)^-1 K^T M^-1``, so a
solve costs one triangular solve per key against a Cholesky factor that is computed once per model, and every
key owns one row of ``A``: its term can be reverted or scaled alone.

Everything is float64: ``K^T M^-1 K`` is near singular when two subjects are much alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sleepgym.editing.spec import EditError


class NormalMatrix:
    """``M = covariance_weight C + ridge tr(C)/d I``, factored once.

    Args:
        second_moment: ``C = E[k k^T]`` over text, ``[d_in, d_in]``.
        covariance_weight: How many text tokens' keys one fact has to outvote.
        ridge: Multiple of the identity in units of the mean eigenvalue of ``C``.

    Raises:
        EditError: ``M`` is not positive definite.
    """

    def __init__(self, second_moment: Tensor, covariance_weight: float, ridge: float) -> None:
        C = second_moment.double()
        M = covariance_weight * C
        M.diagonal().add_(ridge * C.diagonal().mean())
        factor, info = torch.linalg.cholesky_ex(M)
        if info.item() != 0:
            raise EditError(
                f"expected a positive definite normal matrix, found a failure at pivot {int(info)}; "
                "raise ridge, or collect the second moment over more text"
            )
        self._factor = factor

    def inverse_times(self, keys: Tensor) -> Tensor:
        """``M^-1 K^T`` for keys ``[n, d_in]``; shape ``[d_in, n]``."""
        return torch.cholesky_solve(keys.T, self._factor)

    def solve(self, keys: Tensor, protected: Tensor | None = None) -> Tensor:
        """Rows ``A`` such that adding ``r_i A_i`` per key maps key ``i`` to about ``r_i`` and little else.

        Args:
            keys: ``[n, d_in]`` of the facts to write.
            protected: ``[m, d_in]`` whose outputs should stay as they are. They enter like facts with zero
                residual: the solve is the joint one over all ``n + m`` keys, of which only ``n`` rows are kept.

        Returns:
            ``A [n, d_in]`` in float64.
        """
        K = keys if protected is None else torch.cat([keys, protected])
        X = self.inverse_times(K)
        G = K @ X
        G.diagonal().add_(1.0)
        # Only rows of the facts to write are needed: A = [I 0] G^-1 X^T.
        select = torch.eye(len(K), len(keys), dtype=K.dtype, device=K.device)
        return torch.linalg.solve(G, select).T @ X.T
