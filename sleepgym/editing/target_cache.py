"""Cache of targets on the frozen base: each is optimised once per model, fact and recipe."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from sleepgym import files
from sleepgym.editing.spec import EditSpec
from sleepgym.editing.targets import Target
from sleepgym.facts.fact import Fact

_SOLVING = (
    *("covariance_weight", "ridge", "null_space", "max_weight", "neighbours", "gate"),
    *("protect", "protect_weight", "frozen"),
    *("anchor", "alignment"),
)
"""Fields of :class:`EditSpec` that affect how a target is written or targets of edited models, but no target on the
frozen base."""

_CACHED_TARGETS = 4096
"""Maximum number of targets kept in memory; a target of the bundled model takes 9 kB."""


class TargetCache:
    """Targets by (model, fact, facts beside it, recipe), in memory and as one small safetensors file each.

    Args:
        folder: Folder of the files; None keeps targets in memory only.
        fingerprint: Fingerprint of the model, which is that of any precision.
        dtype: Its floating type.
        spec: Recipe; only the fields that affect targets are part of their names.
        prefixes: Contexts that targets are optimised in.
    """

    def __init__(
        self, folder: Path | None, fingerprint: str, dtype: torch.dtype, spec: EditSpec, prefixes: Sequence[str]
    ) -> None:
        recipe = {name: value for name, value in asdict(spec).items() if name not in _SOLVING}
        # The usual type is no part of the names, so that targets of earlier versions are found.
        rounded = [] if dtype == torch.float32 else [str(dtype)]
        text = json.dumps([fingerprint, recipe, list(prefixes), *rounded], sort_keys=True)
        self._recipe = hashlib.sha256(text.encode()).hexdigest()
        self._folder = folder / self._recipe[:16] if folder is not None else None
        self._memory: OrderedDict[str, Target] = OrderedDict()

    def name(self, fact: Fact, beside: Sequence[Fact] = ()) -> str:
        """What a target is kept under: equal names mean equal targets."""
        told = [[f.subject, f.prompt, f.object, *([] if f.joiner is None else [f.joiner])] for f in (fact, *beside)]
        text = json.dumps([self._recipe, told])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def get(self, name: str) -> Target | None:
        """Returns the target of that name; None if it is not cached or its file is damaged."""
        if name in self._memory:
            self._memory.move_to_end(name)
        elif self._folder is not None:
            path = self._folder / f"{name}.safetensors"
            if path.is_file():
                try:
                    self._keep(name, Target(**load_file(path)))
                except Exception:  # a damaged file is computed again
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
        return self._memory.get(name)

    def put(self, name: str, target: Target) -> None:
        """Stores a target in memory and, with a folder that can be written, on disk."""
        self._keep(name, target)
        if self._folder is not None:
            tensors = {"value": target.value.contiguous(), "keys": target.keys.contiguous()}
            files.keep(self._folder / f"{name}.safetensors", save(tensors))

    def _keep(self, name: str, target: Target) -> None:
        """Stores a target in memory; evicts the least recently used one, since the number of facts is unbounded."""
        self._memory[name] = target
        if len(self._memory) > _CACHED_TARGETS:
            self._memory.popitem(last=False)
