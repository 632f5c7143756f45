"""Editor: writes facts into a memory as rank-one terms, from targets, keys and a least-squares solve."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sleepgym.editing.alignment import Alignment
from sleepgym.editing.anchoring import anchored
from sleepgym.editing.context_keys import ContextKeys
from sleepgym.editing.keys import keys_by_layer, measured_states
from sleepgym.editing.plan import Plan, Subject, by_key, not_rewritten
from sleepgym.editing.reach import falls_short, reaching
from sleepgym.editing.solver import NormalMatrix, Solved
from sleepgym.editing.spec import EditError, EditSpec, require_layers
from sleepgym.editing.statistics import ModelStatistics
from sleepgym.editing.target_cache import TargetCache
from sleepgym.editing.target_store import Link, TargetStore
from sleepgym.editing.targets import Target, key_name, key_tokens, optimize_targets
from sleepgym.facts.fact import Fact
from sleepgym.lm import score
from sleepgym.lm.architecture import features
from sleepgym.memory.asking import in_context, raw_probe
from sleepgym.memory.overlay import Factors, Memory, Overlay, OverlayError, Term
from sleepgym.memory.owners import owner_of
from sleepgym.memory.terms import acting, gates_of

_WEIGHT_FACTOR = 4.0
"""Factor of a fact's weight for the next solve if it was not recalled after this one."""

_EASING = -0.25
"""Power of a fact's weight that its gate is multiplied by: what is not recalled may be held back by its gate. At most,
a fact of 64 times the weight acts from about a third of the usual gate on."""

_CACHED_SYSTEMS = 64
"""Maximum number of cached systems: as many (learner, layer) pairs can alternate without factoring anew."""


class Editor:
    """MEMIT on an overlay (Meng et al. 2023). It is stateless except for caches: every call is given a memory.

    Args:
        overlay: The model with hooks.
        statistics: Second moments and prefixes of that model.
        spec: Settings of the recipe.
        cache: Folder for cached targets; None caches them in memory only.
        batch_facts: Number of facts whose targets are optimised in one pass; bounds memory and changes results by
            rounding at most.

    Raises:
        EditError: The model has no such layer, or its statistics lack second moments of one.
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
        if missing := sorted(set(spec.layers) - set(statistics.moments)):
            raise EditError(
                f"expected second moments of the layers {tuple(spec.layers)}, found none of {tuple(missing)}; "
                "measure them with sleepgym.editing.statistics_for"
            )
        self.prefixes = statistics.prefixes[: spec.prefixes]
        self.keys = ContextKeys(overlay, spec, statistics.prefixes)
        self.cache = TargetCache(cache, self.lm.fingerprint, self.lm.dtype, spec, self.prefixes)
        self.target_store = TargetStore(overlay, self.cache, self.prefixes, spec, batch_facts)
        self._moments = statistics.moments
        self._normal: dict[int, NormalMatrix] = {}
        self._solved: OrderedDict[tuple[int, tuple[str, ...]], Solved] = OrderedDict()

    def targets(self, facts: Sequence[Fact]) -> list[Target]:
        """Returns the targets of facts on the frozen base; those that are not cached are optimised together.

        Raises:
            EditError: A loss became NaN or infinite.
            FactError: A fact cannot be tokenised as needed.
        """
        with self.lm.guard.usual():
            return [link.target for link in self.target_store.of(facts)]

    def prepare(self, writes: Sequence[tuple[Sequence[Fact], Sequence[Fact]]]) -> None:
        """Optimises and caches the targets of several later calls of :meth:`write` in one batch.

        Args:
            writes: Per call the facts to write and the facts to protect. Calls are independent: each will use the
                targets that it would have computed alone, up to rounding.

        Raises:
            EditError: A loss became NaN or infinite.
            FactError: A fact cannot be tokenised as needed.
        """
        if self.spec.frozen:
            with self.lm.guard.usual():
                self.target_store.of_each([[*not_rewritten(facts, protected), *facts] for facts, protected in writes])

    def intruder(self, memory: Memory, fact: Fact, others: Sequence[Fact]) -> tuple[Fact, float] | None:
        """The other fact whose edit answers most to the prompt of a fact.

        An edit acts wherever its row ``A`` meets a token that is like its key: names of several pieces can share them.
        One that is gated acts from its gate on, and not at all below.

        Returns:
            It, and how far its edit acts at the worst token of the prompt in any edited layer, relative to its own key;
            None if no other fact has an edit in force.
        """
        edits = {other: memory.terms[owner_of(other)] for other in others if owner_of(other) in memory.terms}
        edits = {other: term for other, term in edits.items() if term.scale}
        if not edits:
            return None
        own, ids = [in_context(self.lm, other) for other in edits], in_context(self.lm, fact).ids
        with self.lm.guard.usual(), self.overlay.use(()):
            tokens = keys_by_layer(self.lm, [(ids, at) for at in range(len(ids))], self.spec.layers)
            keys = keys_by_layer(self.lm, key_tokens(own, self.spec), self.spec.layers)
        acts = keys.new_zeros(len(edits))
        for depth, layer in enumerate(self.spec.layers):
            module = self.lm.blocks[layer].down_proj
            for i, term in enumerate(edits.values()):
                if module in term.factors:
                    (row,), gates = term.factors[module][0].to(keys), gates_of(term, module).to(keys)
                    there = acting(tokens[depth] @ row[:, None], gates).abs().max()
                    acts[i] = acts[i].maximum(there / (keys[depth, i] @ row).abs().clamp_min(1e-12))
        worst = int(acts.argmax())
        return list(edits)[worst], float(acts[worst])

    def write(
        self,
        memory: Memory,
        facts: Sequence[Fact],
        protected: Sequence[Fact] = (),
        neighbours: Sequence[Fact] = (),
        gate: float | None = None,
    ) -> Tensor:
        """Solves for all facts jointly and puts one rank-one term per fact into the memory.

        Facts about one subject share its key: their terms have equal ``A`` and different ``B``, so that each can be
        reverted alone.

        With frozen targets on down-projections, facts written one after the other, each call protecting all earlier
        ones, give the same sum of terms as one joint solve with the same weights (recursive least squares).

        Args:
            memory: Memory that receives the terms; earlier terms of the same facts are replaced.
            facts: Facts to write, without duplicates.
            protected: Facts whose terms are in the memory and whose keys are held fixed; what their terms add at the
                new keys is subtracted from the residuals. Empty for a naive edit.
            neighbours: Facts about others, at whose keys the new terms put out as little as can be.
            gate: Gate of the new terms; None for that of the settings, which is eased for facts that would otherwise
                not be recalled, see :class:`EditSpec`.

        Returns:
            Margin of each fact on its own prompt after the write, ``[n]`` (nats; positive means recalled).

        Raises:
            EditError: A loss became NaN or infinite, or the normal matrix cannot be factored.
            FactError: A fact cannot be tokenised as needed.
        """
        with self.lm.guard.usual():
            easing = _EASING if gate is None else 0.0
            return self._write(memory, facts, protected, neighbours, self.spec.gate if gate is None else gate, easing)

    def _write(
        self,
        memory: Memory,
        facts: Sequence[Fact],
        protected: Sequence[Fact],
        neighbours: Sequence[Fact],
        gate: float,
        easing: float,
    ) -> Tensor:
        # All work is done on drafts: a failed solve leaves the memory as it was.
        start = memory.without([owner_of(fact) for fact in facts])
        plan = self._plan(start, facts, not_rewritten(facts, protected), neighbours)
        probes = [raw_probe(self.lm, fact) for fact in facts]
        weights = {subject.name: 1.0 for subject in plan.subjects}
        while True:
            gates = {name: gate * weight**easing for name, weight in weights.items()}
            draft = self._solved_for(start, plan, weights, gates)
            margins = score(self.lm, probes, self.overlay.asked(draft)).margin
            names = [key_name(fact, self.spec) for fact in facts]
            missed = {name for name, margin in zip(names, margins.tolist(), strict=True) if not margin > 0}
            heavier = {name for name in missed if weights[name] * _WEIGHT_FACTOR <= self.spec.max_weight}
            if not heavier:
                break
            weights |= {name: weights[name] * _WEIGHT_FACTOR for name in heavier}
        for fact in facts:
            term = draft.terms[owner_of(fact)]
            memory.put(owner_of(fact), term.factors, weight=term.weight, gates=term.gates)
        return margins

    def _solved_for(
        self, start: Memory, plan: Plan, weights: Mapping[str, float], gate_of: Mapping[str, float]
    ) -> Memory:
        """Returns a copy of the memory with the new terms; gated ones act in their own prompts, if they can."""
        draft = self._layer_by_layer(start, plan, weights, gate_of)
        if any(gate_of.values()):
            terms = [draft.terms[owner_of(fact)] for fact in plan.facts]
            modules = [self.lm.blocks[layer].down_proj for layer in self.spec.layers]
            if falls_short(terms, modules, self.keys.of_bare_prompts(draft, plan.facts, self.spec.layers)):
                return self._layer_by_layer(start, plan, weights, gate_of, reach=True)
        return draft

    def _layer_by_layer(
        self,
        start: Memory,
        plan: Plan,
        weights: Mapping[str, float],
        gate_of: Mapping[str, float],
        reach: bool = False,
    ) -> Memory:
        """Returns a copy of the memory with the new terms, solved in turn (Meng et al. 2023, algorithm 1)."""
        draft = start.copy()
        factors: dict[Fact, dict[str, tuple[Tensor, Tensor]]] = {fact: {} for fact in plan.targets}
        gates: dict[Fact, dict[str, Tensor]] = {fact: {} for fact in plan.targets}
        for depth, layer in enumerate(self.spec.layers):
            module = self.lm.blocks[layer].down_proj
            frozen = self.keys.frozen(draft, depth)
            keys = self.keys.of_subjects(draft, plan.subjects, depth, frozen)
            system = self._system(draft, plan, keys, weights, depth, frozen)
            A = _roots(plan, weights, keys) * self._normal_matrix(layer, keys.device).unwhiten(system.rows(len(keys)))
            R = self._residuals(draft, plan, keys, depth)
            if any(gate_of.values()):
                # What is off elsewhere need not be weak here: 1 at its own key.
                A = A / (A * keys).sum(1, keepdim=True)
            if reach:
                A = self._reaching(draft, plan, A, keys, gate_of, system, layer)
            # Where the module is, which may be another device than the first one's. Facts of one key share no tensors.
            placed = partial(Tensor.to, device=next(self.lm.linear(module).parameters()).device, dtype=self.lm.dtype)
            for subject, a, of_facts in zip(plan.subjects, A, R, strict=True):
                gate = gate_of[subject.name]
                for fact, r in zip(subject.facts, of_facts, strict=True):
                    factors[fact][module] = (placed(a[None], copy=True), placed(r[:, None], copy=True))
                    if gate:
                        gates[fact][module] = placed(a.new_tensor([gate]))
                    self._put(draft, fact, factors[fact], weights[subject.name], gates[fact])
        return draft

    def _put(self, draft: Memory, fact: Fact, factors: Factors, weight: float, gates: Mapping[str, Tensor]) -> None:
        """Puts the term of a fact into a memory.

        Raises:
            EditError: It is not finite in the type of the model.
        """
        try:
            draft.put(owner_of(fact), factors, weight=weight, gates=gates)
        except OverlayError as error:
            raise EditError(
                f"expected a finite edit of {fact.statement!r} in {self.lm.dtype}: {error}; lower the clamp, raise the "
                "covariance_weight or ridge, or load the model in another dtype"
            ) from error

    def _reaching(
        self,
        draft: Memory,
        plan: Plan,
        A: Tensor,
        keys: Tensor,
        gate_of: Mapping[str, float],
        system: Solved,
        layer: int,
    ) -> Tensor:
        """Returns rows that act at the bare prompts of their facts as well, where there are such."""
        normal = self._normal_matrix(layer, keys.device)

        def solved_for(key: Tensor) -> Tensor:
            return normal.unwhiten(system.extended(normal.whiten(key[None])).rows(1))[0]

        (bare,) = self.keys.of_bare_prompts(draft, plan.facts, [layer])
        own = bare.split([len(subject.facts) for subject in plan.subjects])
        gates = [gate_of[subject.name] for subject in plan.subjects]
        each, text = zip(A, keys, own, gates, strict=True), self.keys.of_texts[layer].to(keys)
        return torch.stack([reaching(a, key, others, gate, solved_for, text) for a, key, others, gate in each])

    def _plan(
        self, draft: Memory, facts: Sequence[Fact], protected: Sequence[Fact], neighbours: Sequence[Fact]
    ) -> Plan:
        links: dict[Fact, Link] = {}
        if self.spec.frozen:
            all_facts = [*protected, *facts]
            links = dict(zip(all_facts, self.target_store.of(all_facts), strict=True))
            targets = {fact: links[fact].target for fact in facts}
        else:
            alignment = self._alignment(draft, facts, protected)
            with self.overlay.use(draft):
                found = optimize_targets(self.lm, facts, self.prefixes, self.spec, alignment=alignment)
            if self.spec.anchor is not None:
                found = anchored(self.overlay, draft, facts, found, self.spec, self.spec.anchor)
            targets = dict(zip(facts, found, strict=True))

        new, old = by_key(facts, self.spec), by_key(protected, self.spec)
        subjects = {
            name: Subject(name, tuple(group), tuple(links[fact] for fact in group if fact in links))
            for name, group in (old | new).items()
        }
        written = [
            replace(subjects[name], beside=tuple((f, links[f].target) for f in old.get(name, ()) if f in links))
            for name in new
        ]
        return Plan(targets, written, [subjects[name] for name in old if name not in new], protected, neighbours)

    def _alignment(self, draft: Memory, facts: Sequence[Fact], protected: Sequence[Fact]) -> Alignment | None:
        """Returns what aligns the targets of facts with each other and with what was written for the protected ones."""
        if self.spec.alignment is None:
            return None
        module = self.lm.blocks[self.spec.layers[-1]].down_proj
        terms = {fact: term for fact, term in _terms_on(draft, module, protected).items() if term.scale}
        each = [Subject(fact.subject, (fact,), ()) for fact in (*facts, *terms)]
        keys = self.keys.of_subjects(draft, each, len(self.spec.layers) - 1, frozen=False)
        none = keys.new_zeros(0, features(self.lm.linear(module))[1])
        residuals = torch.cat([none, *(term.factors[module][1].T.to(none) for term in terms.values())])
        return Alignment(keys[: len(facts)], keys[len(facts) :], residuals, self.spec.alignment)

    def _system(
        self, draft: Memory, plan: Plan, keys: Tensor, weights: Mapping[str, float], depth: int, frozen: bool
    ) -> Solved:
        """Returns the weighted least squares of a layer (see ``solver``), the keys of the subjects to write last."""
        layer = self.spec.layers[depth]
        normal = self._normal_matrix(layer, keys.device)
        # A weight w is equivalent to scaling key and residual by sqrt(w).
        new = [(subject, weights[subject.name]) for subject in plan.subjects]
        protected = [
            (subject, self.spec.protect_weight * max(draft.terms[owner].weight for owner in owners))
            for subject in plan.protected_subjects
            if (owners := [owner_of(fact) for fact in subject.facts if owner_of(fact) in draft.terms])
        ]
        others = tuple(f"{fact.prompt}|{fact.subject}" for fact in plan.neighbours)
        before, after = (layer, (*others, *_cache_key(protected))), (layer, (*others, *_cache_key([*protected, *new])))
        solved = self._solved.get(after) if frozen else None
        if solved is None:
            solved = self._solved.get(before) if frozen else None
            if solved is None:
                solved = normal.empty()
                if plan.neighbours:
                    solved = solved.extended(normal.whiten(self.keys.of_neighbours(plan.neighbours)[depth].to(keys)))
                if protected:
                    protected_keys = self.keys.of_subjects(draft, [subject for subject, _ in protected], depth, frozen)
                    lengths = keys.new_tensor([weight for _, weight in protected]).sqrt()[:, None]
                    solved = solved.extended(normal.whiten(lengths * protected_keys))
                self._cache_system(before, solved, frozen)
            solved = solved.extended(normal.whiten(_roots(plan, weights, keys) * keys))
        self._cache_system(after, solved, frozen)
        return solved

    def _cache_system(self, name: tuple[int, tuple[str, ...]], solved: Solved, frozen: bool) -> None:
        """Caches a system with keys of the frozen base; evicts the least recently used one."""
        if frozen:
            self._solved[name] = solved
            self._solved.move_to_end(name)
            if len(self._solved) > _CACHED_SYSTEMS:
                self._solved.popitem(last=False)

    def _residuals(self, draft: Memory, plan: Plan, keys: Tensor, depth: int) -> list[list[Tensor]]:
        """Returns the residual of each fact at its subject's key, ``[d_out]`` per fact, grouped by subject."""
        if self.spec.site == "residual":
            return self._shares_of_residual(draft, plan, depth)
        # Targets of the edited model account for the terms of other facts already.
        others = plan.protected if self.spec.frozen else ()
        module = self.lm.blocks[self.spec.layers[depth]].down_proj
        leaks = self._leak(draft, module, keys, others)
        residuals = []
        for subject, leak in zip(plan.subjects, leaks, strict=True):
            # Outputs of earlier facts about the same subject, at their present scale, are intended and no leak.
            targets = dict(subject.beside)
            for fact, term in _terms_on(draft, module, list(targets)).items():
                leak = leak - term.scale * targets[fact].value[depth].to(leak)
            # The leak at a subject's key is divided evenly among the facts about it.
            correction = -leak / len(subject.facts)
            residuals.append([plan.targets[fact].value[depth].to(leak) + correction for fact in subject.facts])
        return residuals

    def _shares_of_residual(self, draft: Memory, plan: Plan, depth: int) -> list[list[Tensor]]:
        """Returns an equal share per remaining layer of the residual stream's difference from the target (eq. 20)."""
        facts = plan.facts
        rows = [in_context(self.lm, fact) for fact in facts]
        with self.overlay.use(draft):
            states = measured_states(self.lm, key_tokens(rows, self.spec), self.spec.layers[-1])
        remaining = len(self.spec.layers) - depth
        shares = iter([(plan.targets[f].value[0].to(h) - h) / remaining for f, h in zip(facts, states, strict=True)])
        return [[next(shares) for _ in subject.facts] for subject in plan.subjects]

    def _leak(self, memory: Memory, module: str, keys: Tensor, others: Sequence[Fact]) -> Tensor:
        """Returns the output of the terms of other facts at the keys, ``[subjects, d_out]``."""
        terms = list(_terms_on(memory, module, others).values())
        if not terms:
            return keys.new_zeros(len(keys), features(self.lm.linear(module))[1])
        a = torch.cat([term.factors[module][0] for term in terms]).to(keys)
        b = torch.cat([term.scale * term.factors[module][1] for term in terms], 1).to(keys)
        gates = torch.cat([gates_of(term, module) for term in terms]).to(keys)
        return acting(keys @ a.T, gates) @ b.T

    def _normal_matrix(self, layer: int, device: torch.device) -> NormalMatrix:
        if layer not in self._normal:
            spec = self.spec
            moment = self._moments[layer].to(device)
            self._normal[layer] = NormalMatrix(moment, spec.covariance_weight, spec.ridge, spec.null_space)
        return self._normal[layer]


def _terms_on(memory: Memory, module: str, facts: Sequence[Fact]) -> dict[Fact, Term]:
    """Returns the terms that facts have on a module; those that another recipe wrote may have none there."""
    found = {fact: memory.terms.get(owner_of(fact)) for fact in facts}
    return {fact: term for fact, term in found.items() if term is not None and module in term.factors}


def _roots(plan: Plan, weights: Mapping[str, float], keys: Tensor) -> Tensor:
    """Returns the roots of the weights of the subjects to write, ``[subjects, 1]``."""
    return keys.new_tensor([weights[subject.name] for subject in plan.subjects]).sqrt()[:, None]


def _cache_key(subjects: Sequence[tuple[Subject, float]]) -> tuple[str, ...]:
    """Returns the cache key of a system of frozen keys with weights."""
    return tuple("+".join(link.name for link in subject.links) + f"@{weight:g}" for subject, weight in subjects)
