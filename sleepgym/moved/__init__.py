"""Old names of modules that moved: importing one gives the module in its new place, and a DeprecationWarning.

Files of trained policies name a class by the module it was in when they were saved, and scripts that people wrote
before the first release name modules in their old places.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType

MOVED: Mapping[str, str] = MappingProxyType(
    {
        "sleepgym.base": "sleepgym.editing.base",
        "sleepgym.cache": "sleepgym.files",
        "sleepgym.checkpoint": "sleepgym.memory.checkpoint",
        "sleepgym.consolidation.adapter_io": "sleepgym.memory.export.adapter",
        "sleepgym.consolidation.merged": "sleepgym.memory.export.merged",
        "sleepgym.consolidation.pathways": "sleepgym.memory.asking",
        "sleepgym.consolidation.upkeep": "sleepgym.editing.upkeep",
        "sleepgym.dashboard": "sleepgym.training.dashboard",
        "sleepgym.env.actions": "sleepgym.episode.actions",
        "sleepgym.env.card": "sleepgym.episode.card",
        "sleepgym.env.choices": "sleepgym.env.spaces",
        "sleepgym.env.episode": "sleepgym.episode.episode",
        "sleepgym.env.examiner": "sleepgym.episode.examiner",
        "sleepgym.env.history": "sleepgym.episode.history",
        "sleepgym.env.inbox": "sleepgym.episode.inbox",
        "sleepgym.env.recording": "sleepgym.record.recording",
        "sleepgym.env.replay": "sleepgym.record.replay",
        "sleepgym.env.reward": "sleepgym.episode.reward",
        "sleepgym.env.sb3": "sleepgym.training.sb3",
        "sleepgym.env.snapshot": "sleepgym.episode.snapshot",
        "sleepgym.env.stream": "sleepgym.episode.stream",
        "sleepgym.env.vector_env": "sleepgym.env.vector",
        "sleepgym.evaluation.leaderboard": "sleepgym.leaderboard.playing",
        "sleepgym.evaluation.submission": "sleepgym.leaderboard.submission",
        "sleepgym.learning": "sleepgym.training",
        "sleepgym.learning.callbacks": "sleepgym.training.callbacks",
        "sleepgym.learning.envs": "sleepgym.training.envs",
        "sleepgym.learning.extractor": "sleepgym.training.extractor",
        "sleepgym.learning.policy_card": "sleepgym.training.policy_card",
        "sleepgym.learning.policy_named": "sleepgym.leaderboard.players",
        "sleepgym.learning.rllib": "sleepgym.training.rllib",
        "sleepgym.learning.warm_start": "sleepgym.training.warm_start",
        "sleepgym.ledger": "sleepgym.memory.ledger",
        "sleepgym.overlay": "sleepgym.memory.overlay",
        "sleepgym.rehearsal": "sleepgym.memory.rehearsal",
        "sleepgym.reports": "sleepgym.memory.reports",
        "sleepgym.state": "sleepgym.memory.state",
    }
)
"""New names of modules by their old ones."""


class MovedFinder(MetaPathFinder, Loader):
    """Finds modules by their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec whose module is the one in the new place; None for names that did not move."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module in its new place."""
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is {new} now; import that", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        # The import system is about to put the spec of the old name in its place.
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Has nothing to run: the module has been imported in its new place."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Makes old names known to the import system; doing it twice changes nothing."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        # First: a package in its new place would otherwise give its modules a second life under the old name.
        sys.meta_path.insert(0, MovedFinder())
