"""Keys of what an editor writes, holds still and leaves alone, on the frozen base or on the edited model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from sleepgym.editing.keys import At, keys_by_layer, measured_keys
from sleepgym.editing.plan import Subject
from sleepgym.editing.spec import EditSpec
from sleepgym.editing.targets import contexts, key_tokens
from sleepgym.facts.fact import Fact
from sleepgym.memory.asking import in_context
from sleepgym.memory.overlay import Memory, Overlay
from sleepgym.memory.owners import EDIT, ROW, owner_of

_CACHED_NEIGHBOURS = 1024
"""Maximum number of neighbours whose keys are kept."""


class ContextKeys:
    """Keys of a model at the token that a recipe reads. Stateless except for caches: every call is given a memory.

    Args:
        overlay: The model with hooks.
        spec: Settings of the recipe.
        texts: Texts of the model's own; those that the recipe puts before prompts come first.
    """

    def __init__(self, overlay: Overlay, spec: EditSpec, texts: Sequence[str]) -> None:
        self.overlay, self.lm, self.spec = overlay, overlay.lm, spec
        self._texts = texts
        self._neighbours: OrderedDict[Fact, Tensor] = OrderedDict()

    def frozen(self, memory: Memory, depth: int) -> bool:
        """Whether the frozen base's keys are valid: no adapter has terms on the linears that keys depend on.

        Edits have, and so have rows of a gated adapter, from which the keys of others are too far.

        Args:
            memory: The memory.
            depth: Index of a layer among the edited ones.
        """
        layer = self.spec.layers[depth]
        below = {name for block in self.lm.blocks[: layer + 1] for name in block.linears}
        below.discard(self.lm.blocks[layer].down_proj)
        return self.spec.frozen and not any(
            term.scale and not below.isdisjoint(term.factors)
            for owner, term in memory.terms.items()
            if not owner.startswith((EDIT, ROW))
        )

    def of_subjects(self, memory: Memory, subjects: Sequence[Subject], depth: int, frozen: bool) -> Tensor:
        """Returns one key per subject, ``[subjects, d_in]``: the mean over all contexts of its facts (eq. 19)."""
        if frozen:
            means = [torch.stack([link.target.keys[depth] for link in s.links]).mean(0) for s in subjects]
            return torch.stack(means).to(self.lm.device, torch.float64)
        groups: list[list[At]] = []
        for subject in subjects:
            rows = [row for fact in subject.facts for row in contexts(self.lm, fact, self._texts[: self.spec.prefixes])]
            groups.append(key_tokens(rows, self.spec))
        with self.overlay.use(memory):
            return measured_keys(self.lm, groups, self.spec.layers[depth])

    def of_bare_prompts(self, memory: Memory, facts: Sequence[Fact], layers: Sequence[int]) -> Tensor:
        """Returns the keys of facts in their bare prompts, with their terms in force, ``[layers, facts, d_in]``.

        Args:
            memory: A memory with their terms, of which later layers may be missing.
            facts: Facts.
            layers: Some of the edited layers, ascending.
        """
        if self.frozen(memory, self.spec.layers.index(layers[-1])):
            # Other facts' terms do not matter.
            owners = [owner for owner in map(owner_of, facts) if owner in memory.terms]
            memory = Memory({owner: memory.terms[owner] for owner in owners})
        return self._in_context(memory, facts, layers)

    def of_neighbours(self, neighbours: Sequence[Fact]) -> Tensor:
        """Returns the keys of others on the frozen base, ``[layers, neighbours, d_in]``."""
        missing = [fact for fact in dict.fromkeys(neighbours) if fact not in self._neighbours]
        if missing:
            found = self._in_context(Memory(), missing, self.spec.layers)
            self._neighbours |= zip(missing, found.float().unbind(1), strict=True)
        keys = torch.stack([self._neighbours[fact] for fact in neighbours], 1)
        while len(self._neighbours) > _CACHED_NEIGHBOURS:
            self._neighbours.popitem(last=False)
        return keys

    @cached_property
    def of_texts(self) -> dict[int, Tensor]:
        """Keys of all tokens of the texts on the frozen base, ``[tokens, d_in]`` by layer."""
        rows = [self.lm.encode(text).ids for text in self._texts]
        with self.overlay.use(()):
            keys = keys_by_layer(self.lm, [(row, at) for row in rows for at in range(len(row))], self.spec.layers)
        return dict(zip(self.spec.layers, keys, strict=True))

    def _in_context(self, memory: Memory, facts: Sequence[Fact], layers: Sequence[int]) -> Tensor:
        rows = [in_context(self.lm, fact) for fact in facts]
        with self.overlay.use(memory):
            return keys_by_layer(self.lm, key_tokens(rows, self.spec), layers)
