"""SleepingLM: a language model that is taught facts, forgets some, sleeps, and recalls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sleepgym.consolidation import night
from sleepgym.consolidation.night import Night
from sleepgym.consolidation.spec import SleepSpec, nights_for
from sleepgym.editing import EditError, EditSpec, spec_for, upkeep
from sleepgym.editing.base import Base, Progress, make_base, silent
from sleepgym.editing.calibration import RECIPE, recipe_document
from sleepgym.editing.checks import agreed, keys_in
from sleepgym.facts.fact import Fact
from sleepgym.lm import LanguageModel, Sampling, Scores, continuations, load, perplexity, score, wrap
from sleepgym.lm.encoding import Encoded, Turn
from sleepgym.lm.prompts import texts_of, turns_of
from sleepgym.lm.quantization import Quantization
from sleepgym.memory import checkpoint
from sleepgym.memory.export.adapter import export_adapter
from sleepgym.memory.export.merged import export_merged
from sleepgym.memory.ledger import Entry, Key
from sleepgym.memory.owners import owner_of, row_of
from sleepgym.memory.reports import AuditReport, InjectReport, PruneReport, Reasons, RefreshReport, SleepReport
from sleepgym.memory.settled import Settled
from sleepgym.memory.state import State

__all__ = ["Base", "SleepingLM", "audit_together", "make_base", "prepare_together", "sleep_together"]


class SleepingLM:
    """A causal LM with a memory that is written awake and settled asleep.

    The model's own weights are never written. Every operator either returns a frozen report, or raises and
    leaves memory, ledger and random state exactly as they were.

    Args:
        base: The shared part; :meth:`from_pretrained` makes it.
        sleep_spec: Numbers of a night; by default those that suit the edits, see
            :func:`sleepgym.consolidation.spec.nights_for`.
        capacity: Largest number of facts in the ledger.
        seed: Seed of the learner's random draws (adapter initialisation, rehearsal).
        known: Facts of the base that nights must leave recalled.
    """

    def __init__(
        self,
        base: Base,
        sleep_spec: SleepSpec | None = None,
        capacity: int = 256,
        seed: int = 0,
        known: Sequence[Fact] = (),
    ) -> None:
        self.base = base
        self.sleep_spec = sleep_spec or nights_for(base.editor.spec)
        self.known = tuple(known)
        self.state = State.fresh(capacity, seed)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "tiny",
        *,
        edit: EditSpec | None = None,
        gate: float | None = None,
        sleep: SleepSpec | None = None,
        capacity: int = 256,
        seed: int = 0,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        quantization: Quantization | None = None,
        progress: Progress = silent,
    ) -> SleepingLM:
        """Loads a model (see :func:`sleepgym.lm.load`), measures it once, and gives it an empty memory.

        Args:
            name_or_path: ``"tiny"``, ``"gemma-3-270m"``, a folder, a GGUF file or a hub id.
            edit: How facts are written; by default what was calibrated for the model, see
                :func:`sleepgym.editing.spec_for`.
            gate: Gate of edits in place of that of ``edit``, see :class:`sleepgym.editing.EditSpec`. Models that are
                not calibrated get 0.5, with which they keep far more of what they know; a memory that is to be exported
                is best taught with 0.
            sleep: How nights go; by default gated if edits are.
            capacity: Largest number of facts.
            seed: Seed of the learner.
            device: See :func:`sleepgym.lm.load`.
            dtype: See :func:`sleepgym.lm.load`.
            quantization: See :func:`sleepgym.lm.load`.
            progress: Called as ``(what, done, total)`` while statistics are measured.

        Raises:
            ModelLoadError: Nothing there can be loaded, or the device is not there.
            ArchitectureError: The model has no MLP that can be edited, or is no decoder.
            EditError: ``edit`` names blocks that the model does not have, or its statistics cannot be used.
        """
        lm = load(name_or_path, device=device, dtype=dtype, quantization=quantization)
        edit = edit or spec_for(lm)
        if gate is not None:
            edit = replace(edit, gate=gate)
        return cls(make_base(lm, edit, progress), sleep, capacity, seed)

    @classmethod
    def from_model(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "a model in memory",
        *,
        edit: EditSpec | None = None,
        sleep: SleepSpec | None = None,
        capacity: int = 256,
        seed: int = 0,
        progress: Progress = silent,
    ) -> SleepingLM:
        """Gives an empty memory to a model and a tokenizer that are in memory already.

        The model is put into eval mode and its weights are frozen; nothing is ever written to them.

        Args:
            model: A causal LM of transformers, without adapters on it.
            tokenizer: Its tokenizer, a fast one.
            name: What errors, checkpoints and exports call it.
            edit: See :meth:`from_pretrained`.
            sleep: How nights go.
            capacity: Largest number of facts.
            seed: Seed of the learner.
            progress: Called as ``(what, done, total)`` while statistics are measured.

        Raises:
            ModelLoadError: It is no causal LM of transformers, has adapters on it, or its tokenizer is a slow one.
            ArchitectureError: The model has no MLP that can be edited, or is no decoder.
        """
        lm = wrap(model, tokenizer, name)
        return cls(make_base(lm, edit or spec_for(lm), progress), sleep, capacity, seed)

    # ----------------------------------------------------------------- copies

    def __copy__(self) -> SleepingLM:
        return self._twin()

    def __deepcopy__(self, memo: dict[int, Any]) -> SleepingLM:
        return self._twin()

    def _twin(self) -> SleepingLM:
        """An independent learner on the same base, equal in everything."""
        twin = type(self)(self.base, self.sleep_spec, self.state.ledger.capacity, known=self.known)
        twin.state = self.state.copy()
        return twin

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        # Of a pickle, which holds the memory and the name of the model, not the model.
        self.__dict__.update(attributes)
        self.state.memory = self.state.memory.placed(self.base.lm)

    # ---------------------------------------------------------------- queries

    @property
    def lm(self) -> LanguageModel:
        """The frozen model."""
        return self.base.lm

    @overload
    def ask(  # type: ignore[overload-overlap]  # a text is a sequence of texts to the type checker
        self,
        question: str,
        max_new_tokens: int = 16,
        *,
        system: str = "",
        history: Sequence[Turn] = (),
        sampling: Sampling | None = None,
        stream: Callable[[str], object] | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> str: ...

    @overload
    def ask(
        self,
        question: Sequence[str],
        max_new_tokens: int = 16,
        *,
        system: str = "",
        history: Sequence[Turn] = (),
        sampling: Sampling | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> list[str]: ...

    def ask(
        self,
        question: str | Sequence[str],
        max_new_tokens: int = 16,
        *,
        system: str = "",
        history: Sequence[Turn] = (),
        sampling: Sampling | None = None,
        stream: Callable[[str], object] | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> str | list[str]:
        """The model's answer to a question in its chat format, or its answers to several.

        A model without a chat template does not know where its turn ends: its first line is taken.

        Args:
            question: One, or a sequence of them that are asked independently in the same passes.
            max_new_tokens: Length of an answer at most.
            system: Turn of the system before all others.
            history: Earlier questions with their answers.
            sampling: How tokens are drawn; None takes the likeliest.
            stream: Called with pieces of the answer as they are written; of one question only.
            template: Further variables of the chat template, such as ``{"enable_thinking": False}``.

        Raises:
            FactError: A question is no text, fills all positions of the model, or the template refuses the turns.
        """
        single, questions = texts_of(question, "question")
        turns = list(turns_of(history))
        prompts = [self.lm.chat(text, system, turns, template) for text in questions]
        written = self._continued(prompts, max_new_tokens, sampling, stream)
        if not self.lm.tokenizer.chat_template:
            written = [text.partition("\n")[0].strip() for text in written]
        return written[0] if single else written

    @overload
    def generate(  # type: ignore[overload-overlap]
        self,
        prompt: str,
        max_new_tokens: int = 16,
        *,
        sampling: Sampling | None = None,
        stream: Callable[[str], object] | None = None,
    ) -> str: ...

    @overload
    def generate(
        self, prompt: Sequence[str], max_new_tokens: int = 16, *, sampling: Sampling | None = None
    ) -> list[str]: ...

    def generate(
        self,
        prompt: str | Sequence[str],
        max_new_tokens: int = 16,
        *,
        sampling: Sampling | None = None,
        stream: Callable[[str], object] | None = None,
    ) -> str | list[str]:
        """Continuation of a text, or of each of several; greedy unless it is sampled. See :meth:`ask`.

        Raises:
            FactError: A prompt is no text, or fills all positions of the model.
        """
        single, prompts = texts_of(prompt, "prompt")
        written = self._continued(prompts, max_new_tokens, sampling, stream)
        return written[0] if single else written

    def _continued(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        sampling: Sampling | None,
        stream: Callable[[str], object] | None,
    ) -> list[str]:
        with self.lm.guard.usual(), self.base.overlay.use(self.state.memory):
            found = continuations(self.lm, prompts, max_new_tokens, sampling=sampling, stream=stream)
        return [text.strip() for text in found]

    def score(self, probes: Sequence[Encoded]) -> Scores:
        """Scores encoded prompts with objects under the current memory."""
        return score(self.lm, probes, self.base.overlay.asked(self.state.memory))

    def perplexity(
        self, texts: Sequence[Sequence[int]] | None = None, columns: Sequence[Sequence[int]] | None = None
    ) -> float:
        """Perplexity on token rows, by default on the model's held-out text.

        Args:
            texts: Token rows; None for the held-out text.
            columns: Per row the positions whose next tokens count; None for all.
        """
        texts = self.base.statistics.held_out if texts is None else texts
        return perplexity(self.lm, texts, columns=columns, logits=self.base.overlay.asked(self.state.memory))

    # -------------------------------------------------------------- operators

    def inject(self, facts: Iterable[Fact]) -> InjectReport:
        """Writes facts into memory. A known ``(subject, relation)`` is superseded by its new object.

        Args:
            facts: At least one fact; no two objects for one ``(subject, relation)``.

        Raises:
            EditError: No facts, something else than facts, contradicting facts, or a failed optimisation.
            FactError: A fact cannot be tokenised as needed.
            LedgerFullError: More facts than the ledger has room for.
        """
        facts = agreed(facts)
        with self._transaction() as state:
            state.ledger.require_room(facts)
            superseded = tuple(
                state.ledger[f.key].fact
                for f in facts
                if f.key in state.ledger and state.ledger[f.key].fact.object != f.object
            )
            margins = upkeep.write(self.base, state, facts, self._protected).tolist()
            for fact in facts:
                writes = state.ledger[fact.key].writes + 1 if fact.key in state.ledger else 1
                state.ledger.put(Entry(fact, written_at=state.tick, writes=writes))
                state.settled.pop(fact.key, None)
            missed = [fact for fact, margin in zip(facts, margins, strict=True) if not margin > 0]
            why = Reasons(missed, partial(self._why_missed, state.copy())) if missed else Reasons()
            return InjectReport(tuple(facts), superseded, tuple(margins), edits=len(facts), missed=why)

    def audit(self) -> AuditReport:
        """Probes every fact of the ledger and notes what it saw: the nap."""
        return audit_together([self])[0]

    def refresh(self, keys: Iterable[Key] | None = None) -> RefreshReport:
        """Re-solves facts jointly from the frozen base, holding the keys of all others still.

        Args:
            keys: Facts to re-solve; by default all that the last audit found degraded.

        Raises:
            EditError: Something is no key, or not in the ledger.
        """
        with self._transaction() as state:
            chosen = tuple(state.ledger.degraded) if keys is None else keys_in(state.ledger, keys)
            return upkeep.refresh(self.base, state, chosen)

    def sleep(self, progress: Progress = silent, edits: int | None = None, length: float = 1.0) -> SleepReport:
        """One night: health, audit, maintain, consolidate, rem, gate, dissolve, validate.

        If perplexity on held-out text rises by more than ``max_perplexity_ratio``, or recall falls by more
        than ``max_recall_drop``, everything is undone and the report says so. The next night then draws differently.

        Args:
            progress: Called as ``(step of the night, done, total)``.
            edits: Edits that it may spend on refreshing, the worst facts first; None for as many as it takes.
            length: How long it is relative to the spec's, see :meth:`SleepSpec.lasting`.

        Raises:
            SleepError: The model was ill before, or training diverged.
        """
        return sleep_together([self], progress, [edits], length)[0]

    def prune(self, keys: Iterable[Key] | None = None) -> PruneReport:
        """Takes facts out of the ledger: their edits are reverted exactly and their entries removed.

        Args:
            keys: Facts to forget, settled ones too: no later night holds what slow weights may know of them, and of a
                gated adapter their rows are removed, so that they are forgotten exactly. By default
                those that slow weights hold alone (last stage). Their edit is off anyway, and they settle: their
                questions are kept, and later nights hold slow weights to the answers.

        Raises:
            EditError: Something is no key, or neither in the ledger nor settled.
        """
        with self._transaction() as state:
            if keys is None:
                return PruneReport(*2 * (self._settle(state),))
            chosen = keys_in([*state.ledger, *state.settled], keys)
            for key in chosen:
                state.settled.pop(key, None)
                if row_of(key) in state.memory.terms:
                    state.memory.remove(row_of(key))
                if key in state.ledger:
                    _remove(state, key)
            return PruneReport(chosen)

    def _settle(self, state: State) -> tuple[Key, ...]:
        """Takes the facts of the last stage out of the ledger and keeps their questions; returns their keys."""
        chosen = tuple(state.ledger.of_stage(self.sleep_spec.last_stage))
        for key in chosen:
            entry = _remove(state, key)
            state.settled[key] = Settled.of(entry.fact, entry.trained_at)
        return chosen

    # ------------------------------------------------------------- life cycle

    def reset(self, seed: int = 0) -> None:
        """Forgets everything: the bare model again."""
        self.state = State.fresh(self.state.ledger.capacity, seed)

    def save(self, folder: str | Path) -> None:
        """Writes memory, ledger and random state as safetensors and JSON, all or nothing.

        Raises:
            CheckpointError: The folder cannot be written; an earlier checkpoint in it is whole.
        """
        checkpoint.save(Path(folder), self.state, self.lm)

    def load(self, folder: str | Path) -> None:
        """Reads what :meth:`save` wrote.

        Raises:
            CheckpointError: The files are missing, damaged, or of another model; the state is as before.
        """
        self.state = checkpoint.load(Path(folder), self.lm)

    def export_adapter(self, folder: str | Path) -> None:
        """Writes the memory, edits and all, as a PEFT adapter that loads onto the untouched base model."""
        export_adapter(self.lm, self.state.memory, Path(folder), self.state.ledger.facts)

    def export_merged(self, folder: str | Path) -> None:
        """Writes a standalone model whose weights hold the memory, and its tokenizer, for stock transformers.

        Raises:
            ValueError: The base is quantized.
        """
        export_merged(self.lm, self.state.memory, Path(folder), {RECIPE: recipe_document(self.base.editor.spec)})

    # --------------------------------------------------------------- internal

    def _why_missed(self, state: State, fact: Fact) -> str:
        """Why a fact that was just written is not recalled, as far as can be told."""
        others = [other for other in state.ledger.facts if other.subject != fact.subject]
        found = self.base.editor.intruder(state.memory, fact, others)
        if found is not None and found[1] > _TOO_FAR:
            other, acts = found
            return (
                f"the edit of {other.subject!r} acts on its prompt as well ({acts:.2f} times as much as on its own): "
                "their names share pieces that the model hardly tells apart; a night can hold both"
            )
        return (
            "its edit alone does not bring it about: the object may be out of reach for one edit, or text outvotes it; "
            "try another phrasing, a larger clamp or a lower covariance_weight, or let a night teach it"
        )

    @property
    def _protected(self) -> Sequence[Fact]:
        """Facts whose keys an injection holds still; the editor leaves out those that are written anew."""
        return self.state.ledger.facts if self.base.editor.spec.protect else ()

    @contextmanager
    def _transaction(self) -> Iterator[State]:
        """A draft of the state, taken over in one assignment at the end: whatever is raised, nothing has changed."""
        with self.lm.guard.usual():
            draft = self.state.copy()
            yield draft
            self.state = draft


def _remove(state: State, key: Key) -> Entry:
    """Takes an entry out of the ledger and its edit out of the memory; returns the entry."""
    entry = state.ledger.remove(key)
    owner = owner_of(entry.fact)
    if owner in state.memory.terms:
        state.memory.remove(owner)
    return entry


def prepare_together(
    learners: Sequence[SleepingLM], facts: Sequence[Sequence[Fact]], later: Sequence[Sequence[Fact]] = ()
) -> None:
    """Optimises in one batch what several learners on one base need to inject facts; each then injects its own.

    Args:
        learners: On one base.
        facts: What each is going to inject.
        later: Facts that each may inject later, at another time than any other.

    Raises:
        EditError: A failed optimisation, or the learners are on several bases.
        FactError: A fact cannot be tokenised as needed.
    """
    base = _one_base(learners)
    now = [(each, learner._protected) for learner, each in zip(learners, facts, strict=True)]
    alone = [([fact], learner._protected) for learner, each in zip(learners, later, strict=False) for fact in each]
    base.editor.prepare([*now, *alone])


def audit_together(learners: Sequence[SleepingLM]) -> list[AuditReport]:
    """Audits several learners on one base in the same passes; each sees what it would see alone.

    Raises:
        EditError: The learners are on several bases.
    """
    base = _one_base(learners)
    with base.lm.guard.usual():
        drafts = [learner.state.copy() for learner in learners]
        reports = upkeep.audit(base, drafts)
        for learner, draft in zip(learners, drafts, strict=True):
            learner.state = draft
    return reports


def sleep_together(
    learners: Sequence[SleepingLM],
    progress: Progress = silent,
    edits: Sequence[int | None] | None = None,
    length: float = 1.0,
) -> list[SleepReport]:
    """Lets several learners sleep in one loop; each comes out as if it had slept alone.

    Args:
        learners: On one base and with one spec.
        progress: Called as ``(step of the night, done, total)``.
        edits: What each may spend, see :meth:`SleepingLM.sleep`.
        length: How long all of the nights are, see :meth:`SleepingLM.sleep`.

    Returns:
        One report per learner.

    Raises:
        SleepError: A night failed; all learners are as before.
    """
    with _one_base(learners).lm.guard.usual():
        return _slept(learners, progress, [None] * len(learners) if edits is None else edits, length)


def _slept(
    learners: Sequence[SleepingLM], progress: Progress, limits: Sequence[int | None], length: float
) -> list[SleepReport]:
    drafts = [_reseeded_after_rollback(learner.state.copy()) for learner in learners]
    nights = {
        i: Night(learner.base, learner.sleep_spec.lasting(length), state, learner.known, limit)
        for i, (learner, state, limit) in enumerate(zip(learners, drafts, limits, strict=True))
        if state.ledger
    }
    if nights:
        night.sleep(list(nights.values()), progress)
    reports = [nights[i].report() if i in nights else _nothing_to_do(learner) for i, learner in enumerate(learners)]
    for learner, draft, report in zip(learners, drafts, reports, strict=True):
        if report.rolled_back:
            learner.state.undone += 1
        else:
            draft.undone = 0
            learner.state = draft
    return reports


def _one_base(learners: Sequence[SleepingLM]) -> Base:
    """What all learners share.

    Raises:
        EditError: They are on several bases.
    """
    bases = {id(learner.base): learner.base for learner in learners}
    if len(bases) != 1:
        found = [f"{base.lm.name}, {base.editor.spec}" for base in bases.values()]
        raise EditError(f"expected learners on one base, found {len(bases)} ({found}); make all of them with one Base")
    return next(iter(bases.values()))


def _reseeded_after_rollback(draft: State) -> State:
    """Draws anew after an undone night, so that a repeated night can succeed."""
    if draft.undone:
        draft.rng = np.random.default_rng([int(draft.rng.integers(2**62)), draft.undone])
    return draft


def _nothing_to_do(learner: SleepingLM) -> SleepReport:
    """The report of a night without facts."""
    rows = learner.base.statistics.held_out[: learner.sleep_spec.validation_rows]
    found = learner.perplexity(rows)
    return SleepReport((), (), (), (), (), 1.0, 1.0, found, found, None, 0, 0.0, 0, 0.0, rolled_back=False)


_TOO_FAR = 0.25
"""How far another fact's edit may act on a prompt, relative to its own, before it is blamed."""
