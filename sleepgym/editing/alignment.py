"""Alignment of residuals with keys: facts with similar keys get similar residuals (EAMET, arXiv:2505.11876).

For a fact with cosine similarities ``c_k`` of its key to the keys of other facts and ``c_r`` of its residual to their
residuals, the loss of its target gains, with weight ``w``,

    w KL(softmax(c_k / tau) || softmax(c_r / tau)) + 4 w sum_j p_j (c_k,j - c_r,j)^2,

where ``j`` runs over the 50 most similar keys and ``p = softmax(c_k / tau)`` over these; ``tau`` is 0.07, and ``w``
is 2 in the paper. The divergence has the direction that it has in the authors' code.

Departures: the paper solves for the facts of a batch one after another, each aligned with those before it. Here all
facts of a call are optimised together, each aligned with all others and with what was written before; the gradient
takes the others as constant. Residuals start at zero, where they have no direction yet, instead of along the
activation, and are clamped by the activation's norm, as in all recipes, instead of by the key's.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TEMPERATURE = 0.07
_NEAREST = 50
_SQUARES = 4.0
"""Weight of the squared differences relative to that of the divergence."""


class Alignment:
    """Loss of ``n`` residuals whose similarities differ from those of their keys.

    Args:
        keys: Keys of the facts, ``[n, d_in]``.
        written_keys: Keys of facts that were written before, ``[m, d_in]``.
        written_residuals: Their residuals, ``[m, d_out]``.
        weight: ``w``.
    """

    def __init__(self, keys: Tensor, written_keys: Tensor, written_residuals: Tensor, weight: float) -> None:
        n, every = len(keys), len(keys) + len(written_keys)
        of_others = ~torch.eye(n, every, dtype=torch.bool, device=keys.device)
        similar = (_unit(keys) @ _unit(torch.cat([keys, written_keys])).T)[of_others].view(n, every - 1)
        self._others = of_others.nonzero()[:, 1].view(n, every - 1)
        self._log_p = (similar / _TEMPERATURE).log_softmax(-1)
        self._cosines, self._nearest = similar.topk(min(_NEAREST, every - 1))
        self._shares = (self._cosines / _TEMPERATURE).softmax(-1)
        self._written, self._weight = _unit(written_residuals), weight

    def __call__(self, residuals: Tensor, every: Tensor, chosen: Tensor) -> Tensor:
        """Returns the loss of some facts.

        Args:
            residuals: Their residuals, ``[k, d_out]``.
            every: Residuals of all ``n`` facts at present, ``[n, d_out]``; they receive no gradient.
            chosen: Indices of those some, ``[k]``.

        Returns:
            The loss per fact, ``[k]``; 0 for a fact without others.
        """
        others = torch.cat([_unit(every.detach()), self._written.to(every)])
        cosines = (_unit(residuals) @ others.T).gather(1, self._others[chosen])
        log_p = self._log_p[chosen].to(cosines)
        divergence = (log_p.exp() * (log_p - (cosines / _TEMPERATURE).log_softmax(-1))).sum(-1)
        apart = self._cosines[chosen].to(cosines) - cosines.gather(1, self._nearest[chosen])
        squares = (self._shares[chosen].to(cosines) * apart.square()).sum(-1)
        return self._weight * (divergence + _SQUARES * squares)


def _unit(rows: Tensor) -> Tensor:
    """Returns rows of length 1; a row of zeros stays as it is, and passes no gradient."""
    length = rows.norm(dim=-1, keepdim=True)
    return rows / length.where(length > 0, torch.inf)
