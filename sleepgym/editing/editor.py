"""Writes facts into a memory as rank-one terms: targets, keys and solver put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sleepgym.editing.keys import subject_keys
from sleepgym.editing.solver import NormalMatrix
from sleepgym.editing.spec import EditError, EditSpec
from sleepgym.editing.statistics import ModelStatistics
from sleepgym.editing.target_cache import TargetCache
from sleepgym.editing.targets import contexts, optimize_targets
from sleepgym.facts.fact import Fact
from sleepgym.lm.architecture import features
from sleepgym.lm.language_model import Encoded
from sleepgym.overlay import Memory, Overlay

EDIT = "edit:"
"""Prefix of the owner names of edits; the rest of the name is the fact's key."""


def owner_of(fact: Fact) -> str:
    """Name under which a fact's edit stands in a memory."""
    return f"{EDIT}{fact.subject}|{fact.relation}"


class Editor:
    """MEMIT on an overlay. Holds no memory of its own: every call names the memory it writes to.

    Args:
        overlay: The model with hooks.
        statistics: Second moments and prefixes of that model.
        spec: Every number of the recipe.
        cache: Folder for targets; None keeps them in memory.

    Raises:
        EditError: The model has no such layer.
    """

    def __init__(
        self, overlay: Overlay, statistics: ModelStatistics, spec: EditSpec, cache: Path | None = None
    ) -> None:
        self.overlay, self.lm, self.spec = overlay, overlay.lm, spec
        if spec.layers[-1] >= len(self.lm.blocks):
            raise EditError(
                f"expected layers below {len(self.lm.blocks)} for {self.lm.name!r}, found {spec.layers}; "
                "choose blocks that the model has"
            )
        self.prefixes = statistics.prefixes[: spec.prefixes]
        self.cache = TargetCache(cache, self.lm.fingerprint, spec, self.prefixes)
        self._moments = statistics.moments
        self._normal: dict[int, NormalMatrix] = {}

    def targets(self, facts: Sequence[Fact]) -> Tensor:
        """Targets ``[n, layers, d_out]`` on the bare model: cached ones read, the others optimised together.

        Raises:
            EditError: A loss became NaN or infinite.
            FactError: A fact cannot be tokenised as needed.
        """
        missing = [fact for fact in facts if self.cache.get(fact) is None]
        if missing:
            with self.overlay.use(()):
                found = optimize_targets(self.lm, missing, self.prefixes, self.spec)
            for fact, target in zip(missing, found, strict=True):
                self.cache.put(fact, target)
        return torch.stack([t for t in map(self.cache.get, facts) if t is not None])

    def write(self, memory: Memory, facts: Sequence[Fact], protected: Sequence[Fact] = ()) -> None:
        """Solves for all facts jointly and puts one term per fact into the memory.

        Facts of one subject share its key: their terms differ in what they add, not in what they listen to,
        so each of them can be reverted alone. Their targets were optimised each on the bare model, though, and
        what they add together need not serve both: several facts about one subject are recalled less well
        than facts about different ones.

        Args:
            memory: Receives the terms; earlier terms of the same facts are replaced.
            facts: Facts to write.
            protected: Facts whose terms are in the memory and whose keys must not be disturbed. What their
                terms leak onto the new keys is made up for as well. Empty: a naive edit.
        """
        targets = self.targets(facts)
        # All work is done on a draft: a failed solve leaves the memory as it was.
        draft = memory.copy()
        for fact in facts:
            if owner_of(fact) in draft.terms:
                draft.remove(owner_of(fact))
        subjects = list(dict.fromkeys(fact.subject for fact in facts))
        others = [fact for fact in protected if fact.subject not in set(subjects)]
        factors: list[dict[str, tuple[Tensor, Tensor]]] = [{} for _ in facts]
        for depth, layer in enumerate(self.spec.layers):
            module = self.lm.blocks[layer].down_proj
            keys = self._keys(draft, facts, subjects, layer)
            held = self._keys(draft, others, list(dict.fromkeys(f.subject for f in others)), layer) if others else None
            A = self._normal_matrix(layer, keys.device).solve(keys, held)
            of_subject = torch.tensor([subjects.index(fact.subject) for fact in facts], device=keys.device)
            # A subject's facts share what others leak onto its key: each makes up for its part.
            share = 1 / torch.bincount(of_subject)[of_subject].double()
            leak = self._leak(draft, module, keys, others)[of_subject] * share[:, None]
            R = targets[:, depth].to(keys) - leak
            for i, fact in enumerate(facts):
                a, b = A[of_subject[i]][None], R[i][:, None]
                factors[i][module] = (a.to(self.lm.dtype), b.to(self.lm.dtype))
                draft.put(owner_of(fact), factors[i])
        for fact, pairs in zip(facts, factors, strict=True):
            memory.put(owner_of(fact), pairs)

    def _keys(self, memory: Memory, facts: Sequence[Fact], subjects: Sequence[str], layer: int) -> Tensor:
        """One key per subject, ``[subjects, d_in]``: the mean over all contexts of all its facts."""
        groups: dict[str, list[Encoded]] = {subject: [] for subject in subjects}
        for fact in facts:
            groups[fact.subject] += contexts(self.lm, fact, self.prefixes)
        with self.overlay.use(memory):
            return subject_keys(self.lm, list(groups.values()), layer)

    def _leak(self, memory: Memory, module: str, keys: Tensor, others: Sequence[Fact]) -> Tensor:
        """What the terms of other facts add at the keys, ``[n, d_out]``."""
        d_out = features(self.lm.linear(module))[1]
        total = keys.new_zeros(len(keys), d_out)
        for fact in others:
            term = memory.terms.get(owner_of(fact))
            if term is not None:
                a, b = (factor.to(keys) for factor in term.factors[module])
                total += term.scale * (keys @ a.T) @ b.T
        return total

    def _normal_matrix(self, layer: int, device: torch.device) -> NormalMatrix:
        if layer not in self._normal:
            moment = self._moments[layer].to(device)
            self._normal[layer] = NormalMatrix(moment, self.spec.covariance_weight, self.spec.ridge)
        return self._normal[layer]
