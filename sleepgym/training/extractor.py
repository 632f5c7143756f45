"""LedgerExtractor: permutation-invariant features of the ledger, for Stable-Baselines3 and sb3-contrib."""

from __future__ import annotations

from typing import cast

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from sleepgym.env.observation import LEDGER_FEATURES

PRESENT = list(LEDGER_FEATURES).index("present")
PENDING = list(LEDGER_FEATURES).index("pending")


class LedgerExtractor(BaseFeaturesExtractor):
    """Features extractor that pools facts, invariant to the order of rows and to the number of empty ones.

    Every row is encoded by the same small network ("Deep Sets", Zaheer et al. 2017). Encodings are pooled by mean and
    by maximum, separately over written and over pending facts; the four vectors and ``stats`` are mixed by one more
    layer. A network on flat observations would have to learn the features of a fact separately for every row.

    ::

        MaskablePPO("MultiInputPolicy", envs, policy_kwargs={"features_extractor_class": LedgerExtractor})

    Args:
        observation_space: Space of a SleepEnv: ``ledger [rows, features]`` and ``stats [features]``.
        row_dim: Width of a fact's encoding.
        features_dim: Number of output features.

    Raises:
        TypeError: The space is not that of a SleepEnv; flat observations need no extractor.
    """

    def __init__(self, observation_space: spaces.Space, row_dim: int = 32, features_dim: int = 64) -> None:
        if not isinstance(observation_space, spaces.Dict) or not {"ledger", "stats"} <= observation_space.keys():
            raise TypeError(
                "expected observations that are dictionaries of ledger and stats, found "
                f"{type(observation_space).__name__} {observation_space.shape}; leave FlattenLedger out"
            )
        super().__init__(observation_space, features_dim)
        _, columns = cast(tuple[int, int], observation_space["ledger"].shape)
        (stats,) = cast(tuple[int], observation_space["stats"].shape)
        self.row = nn.Sequential(nn.Linear(columns, row_dim), nn.ReLU(), nn.Linear(row_dim, row_dim), nn.ReLU())
        self.mix = nn.Sequential(nn.Linear(4 * row_dim + stats, features_dim), nn.Tanh())

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Returns features ``[batch, features_dim]``.

        Args:
            observations: ``ledger [batch, rows, features]`` and ``stats [batch, features]``.
        """
        ledger = observations["ledger"]
        present, pending = ledger[..., PRESENT], ledger[..., PENDING]
        # Facts are in the first rows: rows after the last fact of the whole batch are skipped.
        used = _used(present)
        present, pending = present[:, :used], pending[:, :used]
        rows = self.row(ledger[:, :used])
        written = _pool(rows, present * (1 - pending))
        waiting = _pool(rows, present * pending)
        return cast(Tensor, self.mix(torch.cat([*written, *waiting, observations["stats"]], dim=-1)))


def _pool(rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and maximum over the rows with weight 1, ``[batch, units]`` each; both 0 without such rows.

    Args:
        rows: Non-negative encodings ``[batch, rows, units]``, so that rows masked to 0 do not affect the maximum.
        weights: ``[batch, rows]`` of 0 and 1.
    """
    masked = rows * weights.unsqueeze(-1)
    return masked.sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp(min=1), masked.amax(dim=1)


def _used(present: Tensor) -> int:
    """Returns the number of rows up to the last one with a fact anywhere in the batch, at least 1."""
    used = torch.nonzero(present.any(dim=0))
    return int(used[-1]) + 1 if len(used) else 1
