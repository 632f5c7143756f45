"""Base: the frozen model that learners share, with its hooks, statistics, editor and rehearsal text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sleepgym.editing import Editor, EditSpec, ModelStatistics, statistics_for
from sleepgym.editing.neighbourhood import Neighbourhood
from sleepgym.facts.fact import Fact
from sleepgym.files import cache_dir
from sleepgym.lm import LanguageModel
from sleepgym.memory.overlay import Overlay
from sleepgym.memory.rehearsal import Rehearsal

Progress = Callable[[str, int, int], None]
"""Progress callback, called as ``(task, done, total)``."""


def silent(what: str, done: int, total: int) -> None:
    """Ignores progress; the default callback."""


@dataclass(frozen=True, eq=False)
class Base:
    """What learners share; none of them changes it, so that a copy of it is the same base.

    Attributes:
        lm: The model.
        overlay: Adds memories to its passes.
        statistics: What was measured about it.
        editor: Writes facts.
        rehearsal: Text that nights hold still.
        neighbourhood: Others of the relations that are taught, whom edits and nights leave alone if their settings ask
            for that.
        more_rehearsal: What :func:`make_base` was given beside the model's own.
    """

    lm: LanguageModel
    overlay: Overlay
    statistics: ModelStatistics
    editor: Editor
    rehearsal: Rehearsal
    neighbourhood: Neighbourhood
    more_rehearsal: tuple[str, ...] = ()

    def __copy__(self) -> Base:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Base:
        return self

    def __reduce__(self) -> tuple[Callable[..., Base], tuple[Any, ...]]:
        return make_base, (self.lm, self.editor.spec, silent, self.more_rehearsal, self.neighbourhood.given)


def make_base(
    lm: LanguageModel,
    edit: EditSpec,
    progress: Progress = silent,
    rehearsal: Sequence[str] = (),
    neighbours: Sequence[Fact] = (),
) -> Base:
    """Builds the base of a model: hooks, statistics, editor and rehearsal text.

    Args:
        lm: The model.
        edit: Settings of the editor.
        progress: Called while statistics are measured.
        rehearsal: Further texts to rehearse, such as statements of facts that the model knows. They are repeated until
            they have about as many rows as the text that ships with the model or is sampled from it.
        neighbours: Facts that the model knows about subjects that will not be taught. For relations without any,
            subjects are made up.

    Raises:
        EditError: The model has no such layer.
    """
    overlay = Overlay(lm)
    with lm.guard.usual():
        statistics = statistics_for(lm, edit.layers, progress=progress)
    editor = Editor(overlay, statistics, edit, cache_dir("targets"))
    text, own = list(statistics.rehearsal), [lm.encode(row).ids for row in rehearsal]
    if own:
        text += own * max(1, len(text) // len(own))
    rehearsed = Rehearsal(overlay, text)
    beside = Neighbourhood(overlay, neighbours, statistics.rehearsal)
    return Base(lm, overlay, statistics, editor, rehearsed, beside, tuple(rehearsal))
