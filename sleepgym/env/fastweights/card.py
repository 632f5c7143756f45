"""Cards of FastWeights environments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from sleepgym.episode.card import read_card
from sleepgym.episode.card_sections import Section, Share
from sleepgym.fastweights.task import ASKED_TOGETHER
from sleepgym.files import card_paths
from sleepgym.settings import require

FOLDER = "fastweights"
"""Folder of the cards."""


class ModelCard(Section):
    """The model.

    Attributes:
        file: Name of a model that comes with the package, or a file of ``sleepgym.fastweights.train``.
        device: Device that it runs on.
    """

    file: str
    device: str = "cpu"


class StreamCard(Section):
    """Documents and readers.

    Attributes:
        documents: Number of documents of an episode.
        window_ticks: Ticks that a window can be read before it is gone.
        busy_ticks: Mean length of a busy time; lengths are geometric.
        quiet_ticks: Mean length of a quiet time.
        quiet_traffic: Questions in a quiet tick, relative to a busy one.
    """

    documents: PositiveInt
    window_ticks: PositiveInt
    busy_ticks: Annotated[float, Field(ge=1)]
    quiet_ticks: Annotated[float, Field(ge=1)]
    quiet_traffic: Share


class PassesCard(Section):
    """What the agent chooses from.

    Attributes:
        choices: Passes of each action, ascending from 0.
        most: Most passes over one window, in all.
    """

    choices: tuple[NonNegativeInt, ...]
    most: PositiveInt


class QuestionsCard(Section):
    """What is asked.

    Attributes:
        public: Number of a document's questions whose right answer the agent is told.
    """

    public: Annotated[int, Field(ge=1, le=ASKED_TOGETHER)]


class RewardCard(Section):
    """Reward.

    Attributes:
        invalid: What an action that is not allowed costs.
    """

    invalid: NonNegativeFloat


class FastWeightsCard(Section):
    """Settings of a FastWeights environment."""

    model: ModelCard
    stream: StreamCard
    passes: PassesCard
    questions: QuestionsCard
    reward: RewardCard

    @model_validator(mode="after")
    def _choices_begin_with_waiting(self) -> Self:
        choices = list(self.passes.choices)
        ascending = choices == sorted(set(choices)) and choices[:1] == [0] and len(choices) > 1
        require(ascending, "passes.choices", "ascending numbers that begin with 0", choices)
        require(choices[-1] <= self.passes.most, "passes.most", f"at least {choices[-1]}", self.passes.most)
        return self


def load_fast_card(path_or_id: str | Path | FastWeightsCard, **overrides: Mapping[str, Any]) -> FastWeightsCard:
    """Reads a card.

    Args:
        path_or_id: Registered id, TOML file, or card.
        **overrides: Keys to replace by section, such as ``stream={"documents": 2}``.

    Raises:
        CardError: The card is missing or not TOML, or a key is unknown, missing or has an invalid value.
        UnknownArgumentError: A keyword is no section; a CardError and a TypeError.
    """
    return read_card(FastWeightsCard, card_paths(FOLDER), path_or_id, overrides)
