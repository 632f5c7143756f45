"""SleepingLM: a language model that is taught facts, forgets some, sleeps, and recalls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from sleepgym import checkpoint
from sleepgym.cache import cache_dir
from sleepgym.consolidation import adapter_io, cycle, merged
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing import EditError, Editor, EditSpec, ModelStatistics, owner_of, spec_for, statistics_for
from sleepgym.facts.fact import Fact
from sleepgym.ledger import Entry, Key
from sleepgym.lm import LanguageModel, Scores, generate, load, perplexity, score
from sleepgym.lm.language_model import Encoded
from sleepgym.lm.loading import Quantization
from sleepgym.overlay import Overlay
from sleepgym.reports import AuditReport, InjectReport, PruneReport, RefreshReport, SleepReport
from sleepgym.state import State

Progress = Callable[[str, int, int], None]


def _silent(what: str, done: int, total: int) -> None:
    """The default progress callback."""


@dataclass(frozen=True, eq=False)
class Base:
    """What learners share: the frozen model with its hooks, its statistics, and the editor's caches."""

    lm: LanguageModel
    overlay: Overlay
    statistics: ModelStatistics
    editor: Editor


class SleepingLM:
    """A causal LM with a memory that is written awake and settled asleep.

    The model's own weights are never written. Every operator either returns a frozen report, or raises and
    leaves memory, ledger and random state exactly as they were.

    Args:
        base: The shared part; :meth:`from_pretrained` makes it.
        sleep_spec: Numbers of a night.
        capacity: Largest number of facts in the ledger.
        seed: Seed of the learner's random draws (adapter initialisation, rehearsal).
    """

    def __init__(self, base: Base, sleep_spec: SleepSpec | None = None, capacity: int = 256, seed: int = 0) -> None:
        self.base = base
        self.sleep_spec = sleep_spec or SleepSpec()
        self.state = State.fresh(capacity, seed)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "tiny",
        *,
        edit: EditSpec | None = None,
        sleep: SleepSpec | None = None,
        capacity: int = 256,
        seed: int = 0,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        quantization: Quantization | None = None,
        progress: Progress = _silent,
    ) -> SleepingLM:
        """Loads a model (see :func:`sleepgym.lm.load`), measures it once, and gives it an empty memory.

        Args:
            name_or_path: ``"tiny"``, ``"gemma-3-270m"``, a folder, a GGUF file or a hub id.
            edit: How facts are written; by default what was calibrated for the model, see
                :func:`sleepgym.editing.spec_for`.
            sleep: How nights go.
            capacity: Largest number of facts.
            seed: Seed of the learner.
            device: See :func:`sleepgym.lm.load`.
            dtype: See :func:`sleepgym.lm.load`.
            quantization: See :func:`sleepgym.lm.load`.
            progress: Called as ``(what, done, total)`` while statistics are measured.
        """
        lm = load(name_or_path, device=device, dtype=dtype, quantization=quantization)
        return cls(make_base(lm, edit or spec_for(lm), progress), sleep, capacity, seed)

    # ---------------------------------------------------------------- queries

    @property
    def lm(self) -> LanguageModel:
        """The frozen model."""
        return self.base.lm

    def ask(self, question: str, max_new_tokens: int = 16) -> str:
        """The model's answer to a question in its chat format, greedily decoded.

        A model without a chat template does not know where its turn ends: its first line is taken.
        """
        answer = self.generate(self.lm.chat(question), max_new_tokens)
        return answer if self.lm.tokenizer.chat_template else answer.partition("\n")[0].strip()

    def generate(self, prompt: str, max_new_tokens: int = 16) -> str:
        """Greedy continuation of a text."""
        with self.base.overlay.use(self.state.memory):
            return generate(self.lm, prompt, max_new_tokens)

    def score(self, probes: Sequence[Encoded]) -> Scores:
        """Scores encoded prompts with objects under the current memory."""
        with self.base.overlay.use(self.state.memory):
            return score(self.lm, probes)

    def perplexity(self, texts: Sequence[Sequence[int]] | None = None) -> float:
        """Perplexity on token rows, by default on the model's held-out text."""
        with self.base.overlay.use(self.state.memory):
            return perplexity(self.lm, self.base.statistics.held_out if texts is None else texts)

    # -------------------------------------------------------------- operators

    def inject(self, facts: Sequence[Fact]) -> InjectReport:
        """Writes facts into memory. A known ``(subject, relation)`` is superseded by its new object.

        Args:
            facts: At least one fact; no two objects for one ``(subject, relation)``.

        Raises:
            EditError: No facts, contradicting facts, or a failed optimisation.
            FactError: A fact cannot be tokenised as needed.
            LedgerFullError: More facts than the ledger has room for.
        """
        facts = _agreed(facts)
        with self._transaction() as state:
            state.ledger.require_room(facts)
            superseded = tuple(
                state.ledger[f.key].fact
                for f in facts
                if f.key in state.ledger and state.ledger[f.key].fact.object != f.object
            )
            new = {f.key for f in facts}
            others = [f for f in state.ledger.facts if f.key not in new]
            protected = others if self.base.editor.spec.protect else ()
            margins = self.base.editor.write(state.memory, facts, protected).tolist()
            for fact in facts:
                writes = state.ledger[fact.key].writes + 1 if fact.key in state.ledger else 1
                state.ledger.put(Entry(fact, written_at=state.tick, writes=writes))
            return InjectReport(tuple(facts), superseded, tuple(margins), edits=len(facts))

    def audit(self) -> AuditReport:
        """Probes every fact of the ledger and notes what it saw: the nap."""
        with self._transaction() as state:
            return self._audit(state)

    def refresh(self, keys: Sequence[Key] | None = None) -> RefreshReport:
        """Re-solves facts jointly from the frozen base, holding the keys of all others still.

        Args:
            keys: Facts to re-solve; by default all that the last audit found degraded.

        Raises:
            KeyError: A key is not in the ledger.
        """
        with self._transaction() as state:
            chosen = tuple(dict.fromkeys(state.ledger.degraded if keys is None else keys))
            return self._refresh(state, chosen)

    def sleep(self, progress: Progress = _silent) -> SleepReport:
        """One night: audit, refresh what is degraded, consolidate, gate, dissolve, validate.

        If perplexity on held-out text rises by more than ``max_perplexity_ratio``, or recall falls by more
        than ``max_recall_drop``, everything is undone and the report says so.

        Args:
            progress: Called as ``(step of the night, done, total)``.

        Raises:
            SleepError: Training diverged.
        """
        spec = self.sleep_spec
        before = self.state.copy()
        with self._transaction() as state:
            ppl_before = self.perplexity()
            audit = self._audit(state)
            refreshed = tuple(audit.degraded) if spec.refresh else ()
            if refreshed:
                self._refresh(state, refreshed)
            if not state.ledger:
                return SleepReport((), (), (), (), 1.0, 1.0, ppl_before, ppl_before, 0, 0.0, rolled_back=False)
            training = cycle.consolidate(self.base.overlay, state, self.base.statistics.rehearsal, spec, progress)
            passed = cycle.gate(self.base.overlay, state)
            advanced, retreated, released = cycle.dissolve(state, passed, spec)
            after = self._audit(state)
            if after.degraded:
                # Slow weights and half-dissolved edits together can say something else than either alone.
                cycle.retreat(state, after.degraded, spec)
                retreated += [key for key in after.degraded if key not in retreated]
                advanced, released = ([k for k in keys if k not in retreated] for keys in (advanced, released))
                after = self._audit(state)
            ppl_after = self.perplexity()
            # "not within" rather than "beyond": a perplexity that is not a number counts as harm.
            within = ppl_after <= ppl_before * spec.max_perplexity_ratio
            harmful = not within or after.recall < audit.recall - spec.max_recall_drop
            if harmful:
                # The random state moves on: a repeated night must not fail in the same way again.
                before.rng.bit_generator.state = state.rng.bit_generator.state
                self.state = before
                advanced, retreated, released, refreshed = [], [], [], ()
            return SleepReport(
                refreshed=refreshed,
                advanced=tuple(advanced),
                retreated=tuple(retreated),
                released=tuple(released),
                recall_before=audit.recall,
                recall_after=audit.recall if harmful else after.recall,
                perplexity_before=ppl_before,
                perplexity_after=ppl_after,
                steps=training.steps,
                nll=training.nll,
                rolled_back=harmful,
            )

    def prune(self, keys: Sequence[Key] | None = None) -> PruneReport:
        """Forgets facts: their edits are reverted exactly and their entries removed.

        Args:
            keys: Facts to forget; by default those that slow weights hold alone (last stage), whose edit is
                off anyway: they stay known, and make room.

        Raises:
            KeyError: A key is not in the ledger.
        """
        with self._transaction() as state:
            if keys is None:
                keys = [k for k, e in state.ledger.items() if e.stage == self.sleep_spec.last_stage]
            for key in keys:
                owner = owner_of(state.ledger.remove(key).fact)
                if owner in state.memory.terms:
                    state.memory.remove(owner)
            return PruneReport(tuple(keys))

    # ------------------------------------------------------------- life cycle

    def reset(self, seed: int = 0) -> None:
        """Forgets everything: the bare model again."""
        self.state = State.fresh(self.state.ledger.capacity, seed)

    def save(self, folder: str | Path) -> None:
        """Writes memory, ledger and random state as safetensors and JSON."""
        checkpoint.save(Path(folder), self.state, self.lm)

    def load(self, folder: str | Path) -> None:
        """Reads what :meth:`save` wrote.

        Raises:
            CheckpointError: The files are missing, damaged, or of another model; the state is as before.
        """
        self.state = checkpoint.load(Path(folder), self.lm)

    def export_adapter(self, folder: str | Path) -> None:
        """Writes the memory, edits and all, as a PEFT adapter that loads onto the untouched base model."""
        adapter_io.export_adapter(self.lm, self.state.memory, Path(folder))

    def export_merged(self, folder: str | Path) -> None:
        """Writes a standalone model whose weights hold the memory, and its tokenizer, for stock transformers.

        Raises:
            ValueError: The base is quantized.
        """
        merged.export_merged(self.lm, self.state.memory, Path(folder))

    # --------------------------------------------------------------- internal

    @contextmanager
    def _transaction(self) -> Iterator[State]:
        """The state to work on; put back as it was if anything is raised, an interrupt included."""
        before = self.state.copy()
        try:
            yield self.state
        except BaseException:
            self.state = before
            raise

    def _audit(self, state: State) -> AuditReport:
        if not state.ledger:
            return AuditReport({}, ())
        margins = cycle.judged_margins(self.base.overlay, state)
        for key, margin in margins.items():
            state.ledger.update(key, margin=margin, audited_at=state.tick)
        return AuditReport(margins, tuple(state.ledger.degraded))

    def _refresh(self, state: State, keys: tuple[Key, ...]) -> RefreshReport:
        if not keys:
            return RefreshReport((), 1.0, 1.0, edits=0)
        facts = [state.ledger[key].fact for key in keys]
        chosen = set(keys)
        before = self.score([cycle.raw_probe(self.lm, f) for f in facts]).recall
        others = [e.fact for k, e in state.ledger.items() if k not in chosen]
        margins = self.base.editor.write(state.memory, facts, others)
        for key in keys:
            # A refreshed edit is at full strength again, so the fact starts its way down anew.
            state.ledger.update(key, stage=0, scale=1.0, writes=state.ledger[key].writes + 1)
        return RefreshReport(keys, before, float((margins > 0).float().mean()), edits=len(facts))


def make_base(lm: LanguageModel, edit: EditSpec, progress: Progress = _silent) -> Base:
    """Hooks, statistics and editor for a model; shared by every learner on it."""
    overlay = Overlay(lm)
    statistics = statistics_for(lm, edit.layers, progress=progress)
    return Base(lm, overlay, statistics, Editor(overlay, statistics, edit, cache_dir("targets")))


def _agreed(facts: Sequence[Fact]) -> list[Fact]:
    """The facts without repetitions.

    Raises:
        EditError: There are none, or two of them contradict each other.
    """
    if not facts:
        raise EditError(
            "expected at least one fact to inject, found none; skip the call when there is nothing to write"
        )
    by_key: dict[Key, Fact] = {}
    for fact in facts:
        known = by_key.setdefault(fact.key, fact)
        if known.object != fact.object:
            raise EditError(
                f"expected one object for {fact.key}, found {known.object!r} and {fact.object!r} in one call; "
                "inject only the one that is true now"
            )
    return list(by_key.values())
