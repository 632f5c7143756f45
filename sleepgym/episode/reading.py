"""What the bare model reads in the notes of an episode's facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sleepgym.episode.stream import Stream
from sleepgym.facts.fact import Fact
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.probes import score
from sleepgym.memory.asking import chat_probe, noted_probe

_TOGETHER = 16
"""Facts per pass."""


@dataclass(frozen=True, eq=False)
class Readings:
    """Answers of the bare model to questions about an episode's facts, with the note of each before its question.

    Notes are read with the memory off, as in a conversation: what the weights were taught could only be in their way.
    So nothing that happens in an episode changes an answer, and each note is read once. Passes are over batches of the
    stream alone, so that the answers are the same, bit for bit, whenever they are measured.

    Attributes:
        right: Whether each fact is answered with exactly its object.
        tokens: Tokens that its note adds to the context.
    """

    right: Mapping[Fact, bool]
    tokens: Mapping[Fact, int]

    @classmethod
    def of(cls, lm: LanguageModel, stream: Stream) -> Readings:
        """Reads the notes of all facts that arrive in a stream.

        Args:
            lm: The model.
            stream: Its arrivals.
        """
        facts = list(dict.fromkeys(arrival.fact for arrived in stream.arrivals for arrival in arrived))
        probes = {fact: noted_probe(lm, fact) for fact in facts}
        right: dict[Fact, bool] = {}
        for start in range(0, len(facts), _TOGETHER):
            batch: list[Fact] = facts[start : start + _TOGETHER]
            found = score(lm, [probes[fact] for fact in batch]).correct.tolist()
            right.update(zip(batch, found, strict=True))
        return cls(right, {fact: _added(lm, fact, probe) for fact, probe in probes.items()})


def _added(lm: LanguageModel, fact: Fact, probe: Encoded) -> int:
    return probe.object_start - chat_probe(lm, fact).object_start
