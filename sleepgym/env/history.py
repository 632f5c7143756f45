"""The record of an episode, tick by tick; what pictures and logs are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sleepgym.env.stream import Rhythm


@dataclass
class History:
    """What happened at each tick; all lists have one entry per tick that has passed.

    Attributes:
        rhythm: The episode's day, for the shading of nights.
        doing: Name of the action.
        arrivals: Facts that arrived.
        recall: True recall over all facts that have arrived.
        served: Probability that a question was answered correctly.
        budget_left: Share of the edit budget left.
        perplexity_ratio: Perplexity relative to the bare model.
    """

    rhythm: Rhythm
    doing: list[str] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    budget_left: list[float] = field(default_factory=list)
    perplexity_ratio: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.doing)

    def append(
        self,
        *,
        doing: str,
        arrivals: int,
        recall: float,
        served: float,
        budget_left: float,
        perplexity_ratio: float,
    ) -> None:
        """Adds a tick."""
        self.doing.append(doing)
        self.arrivals.append(arrivals)
        self.recall.append(recall)
        self.served.append(served)
        self.budget_left.append(budget_left)
        self.perplexity_ratio.append(perplexity_ratio)

    def copy(self) -> History:
        """An independent record, equal in everything."""
        return History(self.rhythm, **{name: list(values) for name, values in self.columns().items()})

    def columns(self) -> dict[str, list[Any]]:
        """The lists by name."""
        return {name: values for name, values in vars(self).items() if name != "rhythm"}
