"""Joint execution of several episodes' actions, with shared forward passes and training loops."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from sleepgym.editing.base import Base
from sleepgym.episode import operators
from sleepgym.episode.actions import Action, Choice, Operator, Outcome, Task
from sleepgym.episode.card import Card
from sleepgym.episode.episode import Episode, Performed
from sleepgym.episode.examiner import examine_together
from sleepgym.lm import LanguageModel
from sleepgym.sleeper import audit_together, prepare_together, sleep_together


def act_together(pairs: Sequence[tuple[Episode, Choice]], share_nights: bool | None = None) -> None:
    """Performs the first half of a step in several episodes: their actions, and the probes of their questions.

    Results equal those of acting alone, up to rounding. Targets of all facts to write are optimised in one batch, all
    naps share passes, and nights of equal length can share a training loop. Each outcome is stored in
    :attr:`Episode.performed` until :meth:`Episode.step` is called with the same choice.

    Args:
        pairs: Episodes on one base, each with its choice.
        share_nights: Whether nights share a training loop; None for :func:`nights_pay_together`.

    Raises:
        ValueError: The episodes are not on one base; none of them has changed.
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
        used: Base and card of each episode.

    Raises:
        ValueError: The episodes have several bases.
    """
    bases = {id(base): card for base, card in used}
    if len(bases) > 1:
        found = "; ".join(sorted(f"{card.model.name} with {card.edit}" for card in bases.values()))
        raise ValueError(
            f"expected environments on one model with one editing recipe, found {len(bases)}: {found}; "
            "give all of them the same [model] and [edit], or play them one after the other"
        )


def nights_pay_together(lm: LanguageModel) -> bool:
    """Returns whether a shared training loop is faster than training nights one after the other.

    On a CPU it is slower: a batch of sixteen nights exceeds the caches and takes 1.5 times as long.
    """
    return lm.device.type != "cpu"


def _shared(episodes: Sequence[Episode], tasks: Sequence[Task | None], share_nights: bool | None) -> dict[int, Outcome]:
    """Performs the tasks that are faster together; returns the outcomes of completed ones by index."""
    outcomes: dict[int, Outcome] = {}
    nights = nights_pay_together(episodes[0].learner.lm) if share_nights is None else share_nights
    groups: dict[tuple[Operator, float], dict[int, Task]] = {}
    for i, (episode, task) in enumerate(zip(episodes, tasks, strict=True)):
        # An audit that teaches is performed alone.
        if task is not None and (not task.facts or task.choice.action == Action.INJECT):
            action = task.choice.action
            length = operators.night_length(episode.card, task.choice) if action == Action.SLEEP else 0.0
            groups.setdefault((action, length), {})[i] = task
    for (action, length), members in groups.items():
        if len(members) < 2:
            continue
        learners = [episodes[i].learner for i in members]
        # A failure here recurs when the tasks are performed one by one, and is then reported by the task that failed.
        with suppress(*operators.FAILURES):
            if action == Action.INJECT:
                ahead = [episodes[i].ahead(task) for i, task in members.items()]
                prepare_together(learners, [task.facts for task in members.values()], ahead)
            elif action == Action.NAP:
                audit_together(learners)
                outcomes |= {i: Outcome() for i in members}
            elif action == Action.SLEEP and nights:
                limits = [task.edits_left for task in members.values()]
                reports = sleep_together(learners, edits=limits, length=length)
                outcomes |= {i: Outcome(n.edits, night=n) for i, n in zip(members, reports, strict=True)}
    return outcomes
