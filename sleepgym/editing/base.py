"""What learners share: the frozen model with its hooks, its statistics, and the editor's caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sleepgym.editing import Editor, EditSpec, ModelStatistics, statistics_for
from sleepgym.files import cache_dir
from sleepgym.lm import LanguageModel
from sleepgym.memory.overlay import Overlay
from sleepgym.memory.rehearsal import Rehearsal

Progress = Callable[[str, int, int], None]
"""Called as ``(what is being done, done, total)``."""


def silent(what: str, done: int, total: int) -> None:
    """The default progress callback."""


@dataclass(frozen=True, eq=False)
class Base:
    """What learners share; none of them changes it, so that a copy of it is the same base.

    Attributes:
        lm: The model.
        overlay: Adds memories to its passes.
        statistics: What was measured about it.
        editor: Writes facts.
        rehearsal: Text that nights hold still.
        more_rehearsal: What :func:`make_base` was given beside the model's own.
    """

    lm: LanguageModel
    overlay: Overlay
    statistics: ModelStatistics
    editor: Editor
    rehearsal: Rehearsal
    more_rehearsal: tuple[str, ...] = ()

    def __copy__(self) -> Base:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Base:
        return self

    def __reduce__(self) -> tuple[Callable[..., Base], tuple[Any, ...]]:
        return make_base, (self.lm, self.editor.spec, silent, self.more_rehearsal)


def make_base(lm: LanguageModel, edit: EditSpec, progress: Progress = silent, rehearsal: Sequence[str] = ()) -> Base:
    """Hooks, statistics and editor for a model.

    Args:
        lm: The model.
        edit: How facts are written.
        progress: Called while statistics are measured.
        rehearsal: Text that sleep is to leave as it is, beside what ships with the model or what it writes itself:
            statements of facts that it knows, for instance. Both are rehearsed equally often.
    """
    overlay = Overlay(lm)
    with lm.guard.usual():
        statistics = statistics_for(lm, edit.layers, progress=progress)
    editor = Editor(overlay, statistics, edit, cache_dir("targets"))
    text, own = list(statistics.rehearsal), [lm.encode(row).ids for row in rehearsal]
    if own:
        text += own * max(1, len(text) // len(own))
    return Base(lm, overlay, statistics, editor, Rehearsal(overlay, text), tuple(rehearsal))
