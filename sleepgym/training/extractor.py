"""LedgerExtractor: reads the ledger as a set of facts, for policies of Stable-Baselines3 and sb3-contrib."""

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
    """Pools facts, so that it does not matter in which row one stands, nor how many rows are empty.

    Every row goes through the same small network ("Deep Sets", Zaheer et al. 2017). What comes out is pooled by mean
    and by maximum, over the facts that are written and over those that wait; the four vectors and ``stats`` go through
    one more layer. A flat network would have to learn anew for every row what a degraded fact looks like.

    ::

        MaskablePPO("MultiInputPolicy", envs, policy_kwargs={"features_extractor_class": LedgerExtractor})

    Args:
        observation_space: Of a SleepEnv: ``ledger [rows, features]`` and ``stats [features]``.
        row_dim: Units that describe a fact.
        features_dim: Units that come out.

    Raises:
        TypeError: The space is another; :class:`~sleepgym.env.wrappers.FlattenLedger` needs no extractor.
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
        """Features ``[batch, features_dim]``.

        Args:
            observations: ``ledger [batch, rows, features]`` and ``stats [batch, features]``.
        """
        ledger = observations["ledger"]
        present, pending = ledger[..., PRESENT], ledger[..., PENDING]
        # Facts stand in the first rows: those behind the last fact of the whole batch need not be computed.
        used = _used(present)
        present, pending = present[:, :used], pending[:, :used]
        rows = self.row(ledger[:, :used])
        written = _pool(rows, present * (1 - pending))
        waiting = _pool(rows, present * pending)
        return cast(Tensor, self.mix(torch.cat([*written, *waiting, observations["stats"]], dim=-1)))


def _pool(rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum over the rows whose weight is 1, both 0 if there are none.

    Args:
        rows: ``[batch, rows, units]``, none below 0, so that a row that is masked to 0 is no maximum.
        weights: ``[batch, rows]`` of 0 and 1.
    """
    masked = rows * weights.unsqueeze(-1)
    return masked.sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp(min=1), masked.amax(dim=1)


def _used(present: Tensor) -> int:
    """Rows up to the last one that is in use anywhere in the batch, at least 1."""
    used = torch.nonzero(present.any(dim=0))
    return int(used[-1]) + 1 if len(used) else 1
