"""The record of an episode, tick by tick; what pictures and logs are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sleepgym.episode.stream import Rhythm


class Standing(StrEnum):
    """What would become of a question about a fact that has arrived.

    The values are single letters: those of a tick make a short string, which copies by reference and is JSON.
    """

    RIGHT = "r"
    """It is answered with exactly the fact's object."""
    WRONG = "w"
    """The fact was written, and is not recalled."""
    OUTDATED = "o"
    """An earlier version of the fact was written; the present one waits or was lost."""
    WAITING = "p"
    """The fact was never written and waits in the inbox."""
    LOST = "l"
    """The fact was never written, and the inbox was too full to keep it."""


@dataclass
class History:
    """What happened at each tick; all lists have one entry per tick that has passed.

    Attributes:
        rhythm: The episode's day, for the shading of nights.
        doing: Name of the action.
        offline: Whether no question was answered.
        arrivals: Facts that arrived.
        standings: A letter of :class:`Standing` per fact that had arrived, in order of first arrival.
        served: Probability that a question was answered correctly.
        budget_left: Share of the edit budget left.
        pressure: Sleep pressure, 0 to 1.
        perplexity_ratio: Perplexity relative to the bare model.

    Raises:
        ValueError: The lists are of different lengths.
    """

    rhythm: Rhythm
    doing: list[str] = field(default_factory=list)
    offline: list[bool] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    standings: list[str] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    budget_left: list[float] = field(default_factory=list)
    pressure: list[float] = field(default_factory=list)
    perplexity_ratio: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.columns().items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected one entry per tick in every list, found {lengths}")

    def __len__(self) -> int:
        return len(self.doing)

    @property
    def recall(self) -> list[float]:
        """True recall over all facts that had arrived, per tick; 1 before the first."""
        return [tick.count(Standing.RIGHT) / len(tick) if tick else 1.0 for tick in self.standings]

    def append(
        self,
        *,
        doing: str,
        offline: bool,
        arrivals: int,
        standings: str,
        served: float,
        budget_left: float,
        pressure: float,
        perplexity_ratio: float,
    ) -> None:
        """Adds a tick."""
        self.doing.append(doing)
        self.offline.append(offline)
        self.arrivals.append(arrivals)
        self.standings.append(standings)
        self.served.append(served)
        self.budget_left.append(budget_left)
        self.pressure.append(pressure)
        self.perplexity_ratio.append(perplexity_ratio)

    def copy(self) -> History:
        """An independent record, equal in everything."""
        return History(self.rhythm, **{name: list(values) for name, values in self.columns().items()})

    def columns(self) -> dict[str, list[Any]]:
        """The lists by name."""
        return {name: values for name, values in vars(self).items() if name != "rhythm"}
