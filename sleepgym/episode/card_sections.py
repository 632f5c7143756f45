"""Sections of an environment card: what settings there are, and what values they may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing.spec import EditSpec
from sleepgym.lm.quantization import Quantization
from sleepgym.settings import SettingError, require


def _ordered(value: tuple[Any, Any]) -> tuple[Any, Any]:
    require(value[0] <= value[1], "", "a range [lowest, highest]", list(value))
    return value


def _ascending(value: tuple[int, ...]) -> tuple[int, ...]:
    require(bool(value) and list(value) == sorted(set(value)), "", "at least one number, ascending", list(value))
    return value


def _every_field_of(spec: type) -> BeforeValidator:
    """Returns a validator that requires a section to have exactly the fields of a dataclass as keys.

    Fields with a default of None may be left out, since TOML has no null.
    """
    names = {field.name for field in fields(spec)}
    needed = {field.name for field in fields(spec) if field.default is not None}

    def check(section: Any) -> Any:
        if not isinstance(section, Mapping):
            return section
        for key in sorted(section.keys() - names):
            raise SettingError(key, f"one of the keys {', '.join(sorted(names))}", key)
        for key in sorted(needed - section.keys()):
            raise SettingError(key, "a value", None)
        # Pydantic validates what a Python validator returns outside JSON mode, where strict tuples must be tuples.
        return {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}

    return BeforeValidator(check)


Share = Annotated[float, Field(ge=0, le=1)]
FloatRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ordered)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(_ordered)]
IntRange = Annotated[tuple[NonNegativeInt, NonNegativeInt], AfterValidator(_ordered)]
Ascending = Annotated[tuple[PositiveInt, ...], AfterValidator(_ascending)]
CheckedEditSpec = Annotated[EditSpec, _every_field_of(EditSpec)]
CheckedSleepSpec = Annotated[SleepSpec, _every_field_of(SleepSpec)]


class Section(BaseModel):
    """Table of a card: frozen, without unknown keys and without conversions between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelCard(Section):
    """The language model; see :func:`sleepgym.lm.load`.

    Attributes:
        name: ``"tiny"``, ``"gemma-3-270m"``, a folder, a GGUF file or a hub id.
        device: Device that it runs on; by default CUDA if available. ``"auto"`` distributes it over all devices.
        dtype: Floating-point type; by default float32 on the CPU and bfloat16 elsewhere.
        quantization: Quantization of its weights (extra ``quant``); by default none.
    """

    name: str
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    quantization: Quantization | None = None


class StreamCard(Section):
    """Arrivals of facts and traffic of questions. Ranges are sampled once per episode.

    Attributes:
        source: ``"world"`` (people of the bundled model's world) or ``"real"`` (changed facts of the real world).
        path: File of source ``"real"``, in the format of ``sleepgym/facts/real.toml``, which is the default.
        ticks_per_day: Ticks per day.
        arrival_rate: Mean arrivals of facts per tick, over a day.
        update_share: Share of arrivals that change an earlier fact.
        night_start: Tick of the day at which the night begins.
        night_ticks: Length of the night.
        night_traffic: Traffic at night relative to its peak.
        lull_share: Share of the time, by day and by night, in which traffic is as low as at night, for no reason that
            a clock shows; 0 for none.
        lull_ticks: Mean length of such a lull; lengths are geometric.
        burst: Number of facts that arrive together.
        popularity_exponent: Exponent of the Pareto distribution of popularity; smaller is more unequal.
        popularity_cap: Maximum popularity, in units of the minimum.
        recency_boost: Relative increase of a fact's question rate when it arrives: the rate is multiplied by
            1 + boost.
        recency_ticks: Time constant of the boost's exponential decay.
        max_new_facts: Maximum number of new facts per episode; later arrivals are updates or are left out.
        known_facts: Number of pretrained facts that are asked, out of those that the bare model recalls; all of them if
            there are fewer.
        known_share: Share of the questions that ask pretrained facts.
    """

    source: Literal["world", "real"]
    path: str = ""
    ticks_per_day: PositiveInt
    arrival_rate: FloatRange
    update_share: ShareRange
    night_start: IntRange
    night_ticks: IntRange
    night_traffic: Share
    lull_share: Annotated[float, Field(ge=0, lt=1)]
    lull_ticks: Annotated[float, Field(ge=1)]
    burst: PositiveInt
    popularity_exponent: PositiveFloat
    popularity_cap: Annotated[float, Field(ge=1)]
    recency_boost: NonNegativeFloat
    recency_ticks: PositiveFloat
    max_new_facts: PositiveInt
    known_facts: NonNegativeInt
    known_share: Share

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        day, starts, lengths = self.ticks_per_day, list(self.night_start), list(self.night_ticks)
        require(starts[1] < day, "night_start", f"ticks of a day of {day}", starts)
        require(lengths[1] < day, "night_ticks", f"a night shorter than a day of {day}", lengths)
        between = self.lull_ticks * (1 - self.lull_share)
        require(self.lull_share <= between, "lull_share", f"lulls of {self.lull_ticks} ticks apart", self.lull_share)
        require(self.source == "real" or not self.path, "path", "no path for source 'world'", self.path)
        return self


class BudgetCard(Section):
    """Limits on writing facts.

    Attributes:
        edits: Edit budget per expected arrival; the range is sampled once per episode.
        capacity: Maximum number of facts in the ledger.
        pending: Maximum number of facts in the inbox; a further arrival drops the oldest.
        inject: Maximum number of facts per INJECT.
        refresh: Maximum number of facts per REFRESH.
    """

    edits: FloatRange
    capacity: PositiveInt
    pending: PositiveInt
    inject: PositiveInt
    refresh: PositiveInt


class TicksCard(Section):
    """Duration of each action in ticks, and the actions during which no question is answered."""

    wait: PositiveInt
    inject: PositiveInt
    refresh: PositiveInt
    nap: PositiveInt
    sleep: PositiveInt
    prune: PositiveInt
    offline: tuple[Literal["inject", "refresh", "nap", "sleep", "prune"], ...]


class PressureCard(Section):
    """Sleep pressure: a sum of three terms, each of which saturates at its weight.

    Attributes:
        edits: Sum of the scales of all edits at which the first term saturates.
        ticks: Ticks since the last night at which the second term saturates.
        perplexity: Relative rise of perplexity at which the third term saturates.
        edits_weight: Weight of the first term.
        ticks_weight: Weight of the second term.
        perplexity_weight: Weight of the third term.
        exponent: Exponent of the first term; above 1, few edits contribute little.
    """

    edits: PositiveFloat
    ticks: PositiveFloat
    perplexity: PositiveFloat
    edits_weight: NonNegativeFloat
    ticks_weight: NonNegativeFloat
    perplexity_weight: NonNegativeFloat
    exponent: PositiveFloat


class ParametersCard(Section):
    """Parameters that the agent chooses with the operator, in the order of the action space.

    Attributes:
        facts: Options for the maximum number of facts that INJECT and REFRESH write, ascending; ``budget.inject`` and
            ``budget.refresh`` are among them.
        sleep: Options for the ticks that SLEEP takes, ascending; ``ticks.sleep`` is among them. The training steps of a
            night are those of section ``sleep``, in proportion to its ticks.
    """

    facts: Ascending
    sleep: Ascending


class NotesCard(Section):
    """Notes beside the weights, and what it costs to look them up.

    A question that is looked up is answered by the bare model, which reads the note of its fact. Such an answer is
    worth less than one of the weights by ``look_up_price``, and by ``token_price`` for each token that the note adds
    to the context; it is never worth less than nothing.

    Attributes:
        capacity: Maximum number of notes. Where they are full, notes of facts that slow weights hold alone go into an
            archive, which is not looked up.
        ticks: Ticks that NOTE takes.
        token_price: Price of a token of context, as a share of the worth of an answer.
        look_up_price: Price of a look-up's latency, as a share of the worth of an answer.
        sure_nats: Sureness of the weights' own answer (nats at its least sure token) from which a question is not
            looked up if notes are looked up when unsure.
        while_offline: Whether notes answer questions while the model is offline, unless they are never looked up.
    """

    capacity: PositiveInt
    ticks: PositiveInt
    token_price: Share
    look_up_price: Share
    sure_nats: NonNegativeFloat
    while_offline: bool


class RewardCard(Section):
    """Weights of the reward's terms, per tick (served, drift) and per invalid action."""

    served: NonNegativeFloat
    drift: NonNegativeFloat
    invalid: NonNegativeFloat


class EpisodeCard(Section):
    """Length, termination and measurements of an episode.

    Attributes:
        days: Length of the episode in days.
        max_perplexity_ratio: Perplexity relative to the bare model above which the episode terminates.
        perplexity_rows: Rows of held-out text on which perplexity is measured.
        perplexity_tokens: Number of their tokens, a fixed sample, on which it is measured after every change of the
            memory; all of them count when an episode ends.
        served_memory_ticks: Time constant of the exponential mean ``lately_served``, in ticks.
    """

    days: PositiveInt
    perplexity_rows: PositiveInt
    perplexity_tokens: PositiveInt
    max_perplexity_ratio: Annotated[float, Field(gt=1)]
    served_memory_ticks: PositiveFloat
