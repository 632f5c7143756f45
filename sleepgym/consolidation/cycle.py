"""A night: maintain, consolidate, gate, dissolve, validate. Every step works on a state it may spoil.

The caller owns the transaction: it hands in a copy and keeps the original until the night has succeeded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from sleepgym.consolidation.lora import Training, new_adapter, train_adapter
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing.editor import owner_of
from sleepgym.facts.fact import Fact
from sleepgym.ledger import Entry, Key
from sleepgym.lm.language_model import Encoded, LanguageModel
from sleepgym.lm.probes import score
from sleepgym.overlay import Overlay
from sleepgym.state import State

ADAPTER = "lora"
"""Owner name of the adapter in a memory."""

Progress = Callable[[str, int, int], None]


def chat_probe(lm: LanguageModel, fact: Fact) -> Encoded:
    """The fact asked in chat: its first question, or its prompt as the user's turn if it has none."""
    return lm.encode(lm.chat(fact.questions[0] if fact.questions else fact.prompt), fact.object)


def raw_probe(lm: LanguageModel, fact: Fact) -> Encoded:
    """The fact asked by letting the model complete its prompt."""
    return lm.encode(fact.prompt, fact.object)


def judged_probe(lm: LanguageModel, entry: Entry) -> Encoded:
    """What an audit asks: a fact that has begun to sink is judged on the chat pathway.

    A dissolved edit is meant to be weak: judged on the raw prompt it would look degraded, be refreshed, and
    the night's work be thrown away.
    """
    return chat_probe(lm, entry.fact) if entry.stage > 0 else raw_probe(lm, entry.fact)


def lessons(lm: LanguageModel, facts: Sequence[Fact]) -> list[Encoded]:
    """The rows an adapter is trained on: each fact as a statement and as an answer, both brought to an end."""
    rows = []
    for fact in facts:
        chat = chat_probe(lm, fact)
        end = lm.tokenizer.eos_token_id
        if lm.tokenizer.chat_template and end is not None:
            chat = replace(chat, ids=(*chat.ids, end))
        rows += [lm.encode(fact.prompt, fact.object + "."), chat]
    return rows


def consolidate(
    overlay: Overlay,
    state: State,
    rehearsal: Sequence[Sequence[int]],
    spec: SleepSpec,
    progress: Progress,
) -> Training:
    """Trains the adapter on every fact of the ledger with all edits switched off, and puts it in place.

    With the edits on, a lesson would already be known and teach nothing.
    """
    without_edits = state.memory.without([owner_of(f) for f in state.ledger.facts] + [ADAPTER])
    held = state.memory.terms.get(ADAPTER)
    adapter = held.factors if held is not None else new_adapter(overlay.lm, spec, state.rng)
    training = train_adapter(
        overlay,
        without_edits,
        adapter,
        lessons(overlay.lm, state.ledger.facts),
        rehearsal,
        spec,
        state.rng,
        progress=lambda step, steps: progress("consolidate", step, steps),
    )
    state.memory.put(ADAPTER, training.factors)
    return training


def gate(overlay: Overlay, state: State) -> dict[Key, bool]:
    """Whether slow weights alone recall each fact, raw and in chat, with all edits switched off."""
    lm, facts = overlay.lm, state.ledger.facts
    asked = [probe(lm, fact) for fact in facts for probe in (raw_probe, chat_probe)]
    with overlay.use(state.memory.without([owner_of(f) for f in facts])):
        correct = score(lm, asked).correct.view(-1, 2).all(1)
    return {fact.key: bool(passed) for fact, passed in zip(facts, correct.tolist(), strict=True)}


def dissolve(state: State, passed: dict[Key, bool], spec: SleepSpec) -> tuple[list[Key], list[Key], list[Key]]:
    """Moves each fact one stage up or back to 0, and sets the scale of its edit.

    An edit at the last stage is kept at scale 0 until it is gone for good, so that a fact that fails a
    later gate gets its edit back at full strength.

    Returns:
        Keys that advanced, retreated, and reached the last stage.
    """
    advanced, retreated, released = [], [], []
    for key, entry in list(state.ledger.items()):
        if passed[key]:
            stage = min(entry.stage + 1, spec.last_stage)
            if stage > entry.stage:
                advanced.append(key)
                if stage == spec.last_stage:
                    released.append(key)
        else:
            stage = 0
            retreated.append(key)
        _set_stage(state, key, stage, spec.scales[stage])
    return advanced, retreated, released


def retreat(state: State, keys: Sequence[Key], spec: SleepSpec) -> None:
    """Puts facts back to stage 0, with their edits at full strength."""
    for key in keys:
        _set_stage(state, key, stage=0, scale=spec.scales[0])


def _set_stage(state: State, key: Key, stage: int, scale: float) -> None:
    state.ledger.update(key, stage=stage, scale=scale)
    owner = owner_of(state.ledger[key].fact)
    if owner in state.memory.terms:
        state.memory.scale(owner, scale)


@torch.no_grad()
def judged_margins(overlay: Overlay, state: State) -> dict[Key, float]:
    """Margin of every fact on the pathway it is judged on."""
    probes = [judged_probe(overlay.lm, entry) for entry in state.ledger.values()]
    with overlay.use(state.memory):
        margins = score(overlay.lm, probes).margin.tolist()
    return dict(zip(state.ledger, margins, strict=True))
