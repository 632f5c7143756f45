"""Several episodes that act together: what is of a kind is done in the same passes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from sleepgym.editing.base import Base
from sleepgym.episode import operators
from sleepgym.episode.actions import Action, Choice, Outcome, Task
from sleepgym.episode.card import Card
from sleepgym.episode.episode import Episode, Performed
from sleepgym.episode.examiner import examine_together
from sleepgym.lm import LanguageModel
from sleepgym.sleeper import audit_together, prepare_together, sleep_together


def act_together(pairs: Sequence[tuple[Episode, Choice]], share_nights: bool | None = None) -> None:
    """Performs the first half of a step in several episodes: each does what was chosen, and its questions are asked.

    Each comes out as it would alone: targets of all facts to be written are optimised in one batch, all naps ask in the
    same passes, and all sleepers of equally long nights can train in one loop. The outcome waits in
    :attr:`Episode.performed` for :meth:`Episode.step` to be called with the same choice.

    Args:
        pairs: Episodes on one base, each with its choice.
        share_nights: Whether sleepers train in one loop; None: see :func:`nights_pay_together`.

    Raises:
        ValueError: The episodes are not on one base; nothing has happened.
    """
    episodes = [episode for episode, _ in pairs]
    require_one_base([(episode.learner.base, episode.card) for episode in episodes])
    before = [episode.pause() for episode in episodes]
    tasks = [episode.task(choice) for episode, choice in pairs]
    outcomes = _shared(episodes, tasks, share_nights)
    for i, (episode, choice) in enumerate(pairs):
        outcome = outcomes.get(i)
        if outcome is None:
            outcome = operators.perform(episode.learner, episode.state, episode.card, tasks[i])
        episode.performed = Performed(choice, outcome, before[i])
    examine_together([episode.examiner for episode in episodes], [episode.asked() for episode in episodes])


def require_one_base(used: Sequence[tuple[Base, Card]]) -> None:
    """Checks that episodes can share passes.

    Args:
        used: Base and card of each.

    Raises:
        ValueError: They are on several models or editing recipes.
    """
    bases = {id(base): card for base, card in used}
    if len(bases) > 1:
        found = "; ".join(sorted(f"{card.model.name} with {card.edit}" for card in bases.values()))
        raise ValueError(
            f"expected environments on one model with one editing recipe, found {len(bases)}: {found}; "
            "give all of them the same [model] and [edit], or play them one after the other"
        )


def nights_pay_together(lm: LanguageModel) -> bool:
    """Whether one loop over several sleepers is faster than one after the other.

    One night fills a CPU: sixteen in one loop outgrow its caches, and take half as long again as alone.
    """
    return lm.device.type != "cpu"


def _shared(episodes: Sequence[Episode], tasks: Sequence[Task | None], share_nights: bool | None) -> dict[int, Outcome]:
    """Does what pays to be done in one go; outcomes by index, for those that need no more."""
    outcomes: dict[int, Outcome] = {}
    nights = nights_pay_together(episodes[0].learner.lm) if share_nights is None else share_nights
    alike: dict[tuple[Action, float], dict[int, Task]] = {}
    for i, (episode, task) in enumerate(zip(episodes, tasks, strict=True)):
        if task is not None:
            action = task.choice.action
            length = operators.night_length(episode.card, task.choice) if action == Action.SLEEP else 0.0
            alike.setdefault((action, length), {})[i] = task
    for (action, length), members in alike.items():
        if len(members) < 2:
            continue
        learners = [episodes[i].learner for i in members]
        # Whatever fails here fails again where each is on its own, and its error is its own.
        with suppress(*operators.FAILURES):
            if action == Action.INJECT:
                prepare_together(learners, [task.facts for task in members.values()])
            elif action == Action.NAP:
                audit_together(learners)
                outcomes |= {i: Outcome() for i in members}
            elif action == Action.SLEEP and nights:
                limits = [task.edits_left for task in members.values()]
                reports = sleep_together(learners, edits=limits, length=length)
                outcomes |= {i: Outcome(n.edits, night=n) for i, n in zip(members, reports, strict=True)}
    return outcomes
