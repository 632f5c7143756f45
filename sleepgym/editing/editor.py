"""Writes facts into a memory as rank-one terms: targets, keys and solver put together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sleepgym.editing.keys import At, measured_keys, measured_states
from sleepgym.editing.solver import NormalMatrix, Solved
from sleepgym.editing.spec import EditSpec, require_layers
from sleepgym.editing.statistics import ModelStatistics
from sleepgym.editing.target_cache import TargetCache
from sleepgym.editing.target_store import Link, TargetStore
from sleepgym.editing.targets import Target, contexts, key_position, optimize_targets
from sleepgym.facts.fact import Fact
from sleepgym.lm import score
from sleepgym.lm.architecture import features
from sleepgym.memory.asking import in_context, raw_probe
from sleepgym.memory.overlay import Memory, Overlay
from sleepgym.memory.owners import EDIT, owner_of

_HEAVIER = 4.0
"""What the weight of a fact that was not recalled is multiplied by."""

_REMEMBERED = 64
"""Solved systems kept: so many (learner, layer) pairs can take turns at one editor without solving anew."""


@dataclass(frozen=True)
class _Subject:
    """Facts that share a key."""

    name: str
    facts: tuple[Fact, ...]
    links: tuple[Link, ...]  # empty where targets are not those of the frozen base
    beside: tuple[tuple[Fact, Target], ...] = ()  # what stands at the key already


@dataclass(frozen=True)
class _Plan:
    """What one call writes: targets by fact, by subject, and what has to hold still meanwhile."""

    targets: Mapping[Fact, Target]
    subjects: Sequence[_Subject]
    held: Sequence[_Subject]
    standing: Sequence[Fact]


class Editor:
    """MEMIT on an overlay. Holds no memory of its own: every call names the memory it writes to.

    Args:
        overlay: The model with hooks.
        statistics: Second moments and prefixes of that model.
        spec: Every number of the recipe.
        cache: Folder for targets; None keeps them in memory.
        batch_facts: Facts whose targets are optimised in one pass; bounds memory, and changes a result by no
            more than rounding.

    Raises:
        EditError: The model has no such layer.
    """

    def __init__(
        self,
        overlay: Overlay,
        statistics: ModelStatistics,
        spec: EditSpec,
        cache: Path | None = None,
        batch_facts: int = 32,
    ) -> None:
        self.overlay, self.lm, self.spec = overlay, overlay.lm, spec
        require_layers(spec.layers, len(self.lm.blocks), self.lm.name)
        self.prefixes = statistics.prefixes[: spec.prefixes]
        self.cache = TargetCache(cache, self.lm.fingerprint, spec, self.prefixes)
        self.target_store = TargetStore(overlay, self.cache, self.prefixes, spec, batch_facts)
        self._moments = statistics.moments
        self._normal: dict[int, NormalMatrix] = {}
        self._solved: OrderedDict[tuple[int, tuple[str, ...]], Solved] = OrderedDict()

    def targets(self, facts: Sequence[Fact]) -> list[Target]:
        """Targets on the frozen base: cached ones read, the others optimised together.

        Raises:
            EditError: A loss became NaN or infinite.
            FactError: A fact cannot be tokenised as needed.
        """
        with self.lm.guard.usual():
            return [link.target for link in self.target_store.of(facts)]

    def prepare(self, writes: Sequence[tuple[Sequence[Fact], Sequence[Fact]]]) -> None:
        """Optimises the targets that several calls of :meth:`write` are going to need, in one batch.

        Args:
            writes: Per call the facts to write and those to protect. Calls know nothing of each other: each finds the
                targets that it would have found alone, to rounding.

        Raises:
            EditError: A loss became NaN or infinite.
            FactError: A fact cannot be tokenised as needed.
        """
        if self.spec.frozen:
            with self.lm.guard.usual():
                self.target_store.of_each([[*_standing(facts, protected), *facts] for facts, protected in writes])

    def intruder(self, memory: Memory, fact: Fact, others: Sequence[Fact]) -> tuple[Fact, float] | None:
        """The other fact whose edit answers most to the prompt of a fact.

        An edit acts wherever its row ``A`` meets a token that is like its key: names of several pieces can share them.

        Returns:
            It, and how far its edit acts at the worst token of the prompt, relative to its own subject's last token;
            None if no other fact has an edit in force.
        """
        edits = {other: memory.terms[owner_of(other)] for other in others if owner_of(other) in memory.terms}
        edits = {other: term for other, term in edits.items() if term.scale}
        if not edits:
            return None
        module = self.lm.blocks[self.spec.layers[0]].down_proj
        own = [in_context(self.lm, other) for other in edits]
        ids = in_context(self.lm, fact).ids
        with self.lm.guard.usual(), self.overlay.use(()):
            tokens = measured_keys(self.lm, [[(ids, at)] for at in range(len(ids))], self.spec.layers[0])
            keys = measured_keys(
                self.lm, [[(row.ids, key_position(row, self.spec))] for row in own], self.spec.layers[0]
            )
        rows = torch.cat([term.factors[module][0] for term in edits.values()]).to(keys)
        acts = (tokens @ rows.T).abs().amax(0) / (keys * rows).sum(1).abs().clamp_min(1e-12)
        worst = int(acts.argmax())
        return list(edits)[worst], float(acts[worst])

    def write(self, memory: Memory, facts: Sequence[Fact], protected: Sequence[Fact] = ()) -> Tensor:
        """Solves for all facts jointly and puts one term per fact into the memory.

        Facts of one subject share its key: their terms differ in what they add, not in what they listen to,
        so each of them can be reverted alone.

        With frozen targets on down-projections, facts written one after the other, each call protecting all
        before it, add up to exactly what one joint solve of all of them with the same weights gives (recursive
        least squares).

        Args:
            memory: Receives the terms; earlier terms of the same facts are replaced.
            facts: Facts to write, none twice.
            protected: Facts whose terms are in the memory and whose keys must not be disturbed. What their
                terms leak onto the new keys is made up for as well. Empty: a naive edit.

        Returns:
            Margin of each fact in its own prompt afterwards, ``[n]`` (nats; positive means recalled).

        Raises:
            EditError: A loss became NaN or infinite, or the normal matrix cannot be factored.
            FactError: A fact cannot be tokenised as needed.
        """
        with self.lm.guard.usual():
            return self._write(memory, facts, protected)

    def _write(self, memory: Memory, facts: Sequence[Fact], protected: Sequence[Fact]) -> Tensor:
        # All work is done on drafts: a failed solve leaves the memory as it was.
        bare = memory.copy()
        for fact in facts:
            if owner_of(fact) in bare.terms:
                bare.remove(owner_of(fact))
        plan = self._plan(bare, facts, _standing(facts, protected))
        probes = [raw_probe(self.lm, fact) for fact in facts]
        weights = {subject.name: 1.0 for subject in plan.subjects}
        while True:
            draft = self._solved_for(bare, plan, weights)
            with self.overlay.use(draft):
                margins = score(self.lm, probes).margin
            missed = {fact.subject for fact, margin in zip(facts, margins.tolist(), strict=True) if not margin > 0}
            heavier = {name for name in missed if weights[name] * _HEAVIER <= self.spec.max_weight}
            if not heavier:
                break
            weights |= {name: weights[name] * _HEAVIER for name in heavier}
        for fact in facts:
            term = draft.terms[owner_of(fact)]
            memory.put(owner_of(fact), term.factors, weight=term.weight)
        return margins

    def _solved_for(self, bare: Memory, plan: _Plan, weights: Mapping[str, float]) -> Memory:
        """A draft with the new terms, solved layer by layer."""
        draft = bare.copy()
        factors: dict[Fact, dict[str, tuple[Tensor, Tensor]]] = {fact: {} for fact in plan.targets}
        for depth, layer in enumerate(self.spec.layers):
            module = self.lm.blocks[layer].down_proj
            frozen = self._undisturbed(draft, depth)
            keys = self._keys(draft, plan.subjects, depth, frozen)
            A = self._solve(draft, plan, keys, weights, depth, frozen)
            R = self._residuals(draft, plan, keys, depth)
            for subject, a, of_facts in zip(plan.subjects, A, R, strict=True):
                for fact, r in zip(subject.facts, of_facts, strict=True):
                    factors[fact][module] = (a[None].to(self.lm.dtype), r[:, None].to(self.lm.dtype))
                    draft.put(owner_of(fact), factors[fact], weight=weights[subject.name])
        return draft

    def _plan(self, draft: Memory, facts: Sequence[Fact], standing: Sequence[Fact]) -> _Plan:
        links: dict[Fact, Link] = {}
        if self.spec.frozen:
            everything = [*standing, *facts]
            links = dict(zip(everything, self.target_store.of(everything), strict=True))
            targets = {fact: links[fact].target for fact in facts}
        else:
            with self.overlay.use(draft):
                found = optimize_targets(self.lm, facts, self.prefixes, self.spec)
            targets = dict(zip(facts, found, strict=True))

        new, old = _by_subject(facts), _by_subject(standing)
        subjects = {
            name: _Subject(name, tuple(group), tuple(links[fact] for fact in group if fact in links))
            for name, group in (old | new).items()
        }
        written = [
            replace(subjects[name], beside=tuple((f, links[f].target) for f in old.get(name, ()) if f in links))
            for name in new
        ]
        return _Plan(targets, written, [subjects[name] for name in old if name not in new], standing)

    def _keys(self, draft: Memory, subjects: Sequence[_Subject], depth: int, frozen: bool) -> Tensor:
        """One key per subject, ``[subjects, d_in]``: the mean over all contexts of its facts."""
        if frozen:
            means = [torch.stack([link.target.keys[depth] for link in s.links]).mean(0) for s in subjects]
            return torch.stack(means).to(self.lm.device, torch.float64)
        groups: list[list[At]] = []
        for subject in subjects:
            rows = [row for fact in subject.facts for row in contexts(self.lm, fact, self.prefixes)]
            groups.append([(row.ids, key_position(row, self.spec)) for row in rows])
        with self.overlay.use(draft):
            return measured_keys(self.lm, groups, self.spec.layers[depth])

    def _undisturbed(self, draft: Memory, depth: int) -> bool:
        """Whether the keys of the frozen base hold: nothing but edits is added to what they are made of."""
        layer = self.spec.layers[depth]
        below = {name for block in self.lm.blocks[: layer + 1] for name in block.linears}
        below.discard(self.lm.blocks[layer].down_proj)
        return self.spec.frozen and not any(
            term.scale and not below.isdisjoint(term.factors)
            for owner, term in draft.terms.items()
            if not owner.startswith(EDIT)
        )

    def _solve(
        self, draft: Memory, plan: _Plan, keys: Tensor, weights: Mapping[str, float], depth: int, frozen: bool
    ) -> Tensor:
        """One row ``A`` per subject, ``[subjects, d_in]``, by least squares with a weight per subject."""
        layer = self.spec.layers[depth]
        normal = self._normal_matrix(layer, keys.device)
        # A weight w is a key and a residual that are sqrt(w) times as long.
        new = [(subject, weights[subject.name]) for subject in plan.subjects]
        held = [
            (subject, max(draft.terms[owner].weight for owner in owners))
            for subject in plan.held
            if (owners := [owner_of(fact) for fact in subject.facts if owner_of(fact) in draft.terms])
        ]
        roots = keys.new_tensor([weight for _, weight in new]).sqrt()[:, None]
        before, after = (layer, _identity(held)), (layer, _identity([*held, *new]))
        solved = self._solved.get(after) if frozen else None
        if solved is None:
            solved = self._solved.get(before) if frozen else None
            if solved is None:
                solved = normal.empty()
                if held:
                    held_keys = self._keys(draft, [subject for subject, _ in held], depth, frozen)
                    lengths = keys.new_tensor([weight for _, weight in held]).sqrt()[:, None]
                    solved = solved.extended(normal.whiten(lengths * held_keys))
                self._remember(before, solved, frozen)
            solved = solved.extended(normal.whiten(roots * keys))
        self._remember(after, solved, frozen)
        return roots * normal.unwhiten(solved.rows(len(keys)))

    def _remember(self, name: tuple[int, tuple[str, ...]], solved: Solved, frozen: bool) -> None:
        """Keeps a system whose keys are those of the frozen base, and forgets the one used longest ago."""
        if frozen:
            self._solved[name] = solved
            self._solved.move_to_end(name)
            if len(self._solved) > _REMEMBERED:
                self._solved.popitem(last=False)

    def _residuals(self, draft: Memory, plan: _Plan, keys: Tensor, depth: int) -> list[list[Tensor]]:
        """What each fact still has to add at its subject's key, ``[d_out]`` per fact."""
        if self.spec.site == "residual":
            return self._shares_of_residual(draft, plan, depth)
        # Targets on the edited model are what is missing there: leaks are in them already.
        others = plan.standing if self.spec.frozen else ()
        leaks = self._leak(draft, self.lm.blocks[self.spec.layers[depth]].down_proj, keys, others)
        residuals = []
        for subject, leak in zip(plan.subjects, leaks, strict=True):
            # What stands at the key is meant to, as far as it is not dissolved: it is no leak.
            meant = [(fact, target) for fact, target in subject.beside if owner_of(fact) in draft.terms]
            for fact, target in meant:
                leak = leak - draft.terms[owner_of(fact)].scale * target.value[depth].to(leak)
            # A subject's facts share what others leak onto its key: each makes up for its part.
            correction = -leak / len(subject.facts)
            residuals.append([plan.targets[fact].value[depth].to(leak) + correction for fact in subject.facts])
        return residuals

    def _shares_of_residual(self, draft: Memory, plan: _Plan, depth: int) -> list[list[Tensor]]:
        """An equal share of what the residual stream still lacks (Meng et al. 2023, eq. 20)."""
        facts = [fact for subject in plan.subjects for fact in subject.facts]
        bare = [in_context(self.lm, fact) for fact in facts]
        with self.overlay.use(draft):
            states = measured_states(
                self.lm, [(row.ids, key_position(row, self.spec)) for row in bare], self.spec.layers[-1]
            )
        remaining = len(self.spec.layers) - depth
        shares = iter([(plan.targets[f].value[0].to(h) - h) / remaining for f, h in zip(facts, states, strict=True)])
        return [[next(shares) for _ in subject.facts] for subject in plan.subjects]

    def _leak(self, memory: Memory, module: str, keys: Tensor, others: Sequence[Fact]) -> Tensor:
        """What the terms of other facts add at the keys, ``[subjects, d_out]``."""
        owners = [owner_of(fact) for fact in others]
        terms = [memory.terms[owner] for owner in owners if owner in memory.terms]
        if not terms:
            return keys.new_zeros(len(keys), features(self.lm.linear(module))[1])
        a = torch.cat([term.factors[module][0] for term in terms]).to(keys)
        b = torch.cat([term.scale * term.factors[module][1] for term in terms], 1).to(keys)
        return (keys @ a.T) @ b.T

    def _normal_matrix(self, layer: int, device: torch.device) -> NormalMatrix:
        if layer not in self._normal:
            spec = self.spec
            moment = self._moments[layer].to(device)
            self._normal[layer] = NormalMatrix(moment, spec.covariance_weight, spec.ridge, spec.null_space)
        return self._normal[layer]


def _standing(facts: Sequence[Fact], protected: Sequence[Fact]) -> list[Fact]:
    """Protected facts that are not written anew."""
    written = {fact.key for fact in facts}
    return [fact for fact in protected if fact.key not in written]


def _by_subject(facts: Sequence[Fact]) -> dict[str, list[Fact]]:
    """Facts grouped by subject, both in the order given."""
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.subject, []).append(fact)
    return groups


def _identity(subjects: Sequence[tuple[_Subject, float]]) -> tuple[str, ...]:
    """What a system of frozen keys with weights is known by."""
    return tuple("+".join(link.name for link in subject.links) + f"@{weight:g}" for subject, weight in subjects)
