"""Record of an episode by tick, from which pictures and logs are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sleepgym.episode.stream import Rhythm


class Standing(StrEnum):
    """Status of an arrived fact: whether a question about it would be answered, and if not, why.

    The values are single letters, so that those of a tick form a short string, which copies by reference and is JSON.
    """

    RIGHT = "r"
    """The fact was written and is recalled."""
    WRONG = "w"
    """The fact was written and is not recalled."""
    OUTDATED = "o"
    """An earlier version of the fact was written; the current one is pending or was dropped."""
    WAITING = "p"
    """The fact was never written and is pending in the inbox, or noted."""
    LOST = "l"
    """The fact was never written and was dropped from the full inbox."""


@dataclass
class History:
    """Record of the ticks that have passed; all lists have one entry per tick.

    Attributes:
        rhythm: Day and night of the episode.
        doing: Name of the action.
        offline: Whether no question was answered.
        arrivals: Number of facts that arrived.
        standings: One letter of :class:`Standing` per arrived fact, in order of first arrival.
        served: Probability that a question was answered correctly.
        budget_left: Share of the edit budget left.
        pressure: Sleep pressure, 0 to 1.
        perplexity_ratio: Perplexity relative to the bare model.

    Raises:
        ValueError: The lists differ in length.
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
        """True recall over all arrived facts, per tick; 1 before the first arrival."""
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
        """Appends a tick; arguments are as the attributes."""
        self.doing.append(doing)
        self.offline.append(offline)
        self.arrivals.append(arrivals)
        self.standings.append(standings)
        self.served.append(served)
        self.budget_left.append(budget_left)
        self.pressure.append(pressure)
        self.perplexity_ratio.append(perplexity_ratio)

    def copy(self) -> History:
        """Returns an independent copy."""
        return History(self.rhythm, **{name: list(values) for name, values in self.columns().items()})

    def columns(self) -> dict[str, list[Any]]:
        """Returns the lists by name."""
        return {name: values for name, values in vars(self).items() if name != "rhythm"}
