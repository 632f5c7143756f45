"""Schedulers of one's own: functions, classes and objects play, and mistakes are told in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES, FeatureNameError, column, stat
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.spaces import ActionError, ActionTypeError
from sleepgym.episode.actions import Action
from sleepgym.schedulers import (
    FunctionScheduler,
    LookAhead,
    NightOwl,
    Scheduler,
    SchedulerTypeError,
    as_scheduler,
    keep_up,
)
from sleepgym.schedulers.own import made

Seen = Callable[..., dict[str, np.ndarray]]
MASK = np.ones(len(Action), dtype=bool)


class Siesta(Scheduler):
    """Answers with what it was made with."""

    def __init__(self, answer: Any = Action.WAIT) -> None:
        self.answer = answer

    def act(self, observation: Any, mask: Any) -> Any:
        return self.answer


# ------------------------------------------------------------ names of features


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("ledger_full", "ledger_fill"), ("preasure", "pressure"), ("Night", "night"), ("budgetleft", "budget_left")],
)
def test_an_unknown_statistic_is_answered_with_those_that_there_are(seen: Seen, name: str, nearest: str) -> None:
    for kind in (KeyError, ValueError):
        with pytest.raises(kind) as caught:
            stat(seen(), name)
    assert isinstance(caught.value, FeatureNameError)
    words = str(caught.value)
    assert words.startswith(f"expected the name of a feature of 'stats', found {name!r}; known are day_sin, ")
    assert all(known in words for known in STATS_FEATURES)
    assert words.endswith(f"the nearest is {nearest!r}")


def test_an_unknown_column_is_too_and_a_feature_of_the_other_part_is_found(seen: Seen) -> None:
    with pytest.raises(FeatureNameError, match="the nearest is 'popularity'"):
        column(seen(), "popular")
    with pytest.raises(FeatureNameError, match=r"column\(\) reads 'margin'"):
        stat(seen(), "margin")
    with pytest.raises(FeatureNameError, match=r"stat\(\) reads 'pressure'"):
        column(seen(), "pressure")
    with pytest.raises(FeatureNameError):
        stat(seen(), 3)  # type: ignore[arg-type]
    assert column(seen(), "age").shape == (4,)
    assert len(LEDGER_FEATURES) == 11


# --------------------------------------------------------------- what is chosen


@pytest.mark.parametrize(
    "answer", [Action.SLEEP, 4, np.int64(4), np.uint8(4), np.array(4), np.array(4, np.int32)], ids=repr
)
def test_numbers_of_actions_are_actions(seen: Seen, answer: Any) -> None:
    action, _ = Siesta(answer).predict(seen(), action_masks=MASK)
    assert (action, action.dtype) == (Action.SLEEP, np.int64)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ("sleep", r"say Action\.SLEEP"),
        ("SLEEP", r"say Action\.SLEEP"),
        ("doze", "a text"),
        (None, "found None; let every path"),
        (4.0, "whole numbers"),
        (np.float32(1), "whole numbers"),
        (True, "found True, a truth value"),
        (np.True_, "a truth value"),
        (Action, "found"),
        ((4, None), "found"),
    ],
    ids=repr,
)
def test_what_is_of_another_type_is_refused_with_the_schedulers_name(seen: Seen, answer: Any, hint: str) -> None:
    with pytest.raises(
        ActionTypeError, match=rf"expected an Action from Siesta \(0 WAIT, 1 INJECT, .*{hint}"
    ) as caught:
        Siesta(answer).predict(seen(), action_masks=MASK)
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize("answer", [6, -1, 2**70, np.int64(99), np.array([4]), [4], (4, 0, 0)], ids=repr)
def test_numbers_out_of_range_and_arrays_are_refused(seen: Seen, answer: Any) -> None:
    batch = {name: np.stack([value] * 2) for name, value in seen().items()}
    for observation in (seen(), batch):
        with pytest.raises(ActionError, match="expected an Action from Siesta"):
            Siesta(answer).predict(observation)


# ------------------------------------------------------------------- what plays


def choose(observation: Any, mask: Any) -> Action:
    return Action.SLEEP if mask[Action.SLEEP] and stat(observation, "night") else keep_up(observation, mask)


class Duck:
    """No Scheduler, but acts like one."""

    def act(self, observation: Any, mask: Any) -> int:
        return 3


class Calling:
    def __call__(self, observation: Any, mask: Any) -> int:
        return 3


@pytest.mark.parametrize(
    ("given", "name", "answer"),
    [
        (choose, "choose", Action.INJECT),
        (lambda o, m: 3, "<lambda>", Action.NAP),
        (lambda obs, action_mask: 3, "<lambda>", Action.NAP),
        (lambda _observation, _mask: 3, "<lambda>", Action.NAP),
        (lambda o, m, at=3: at, "<lambda>", Action.NAP),
        (partial(lambda night, observation, mask: night, 3), "partial", Action.NAP),
        (Duck(), "Duck", Action.NAP),
        (Calling(), "Calling", Action.NAP),
    ],
)
def test_a_function_is_a_scheduler(seen: Seen, given: Any, name: str, answer: Action) -> None:
    plays = as_scheduler(given)
    assert isinstance(plays, FunctionScheduler)
    assert name in plays.name
    one = seen(pending=0.5, budget_left=1)
    mask = MASK.copy()
    mask[Action.PRUNE] = False
    assert plays.predict(one, action_masks=mask)[0] == answer
    batch = {key: np.stack([value] * 3) for key, value in one.items()}
    assert plays.predict(batch, action_masks=np.tile(mask, (3, 1)))[0].tolist() == [answer] * 3


def test_a_function_that_returns_no_action_is_named(seen: Seen) -> None:
    def nod(observation: Any, mask: Any) -> Any:
        return "nod"

    with pytest.raises(ActionTypeError, match=r"from .*nod \(0 WAIT"):
        as_scheduler(nod).predict(seen())


@pytest.mark.parametrize("made_by", [Siesta, Duck, Calling])
def test_a_class_makes_an_instance_for_each_episode(made_by: type, short: Callable[..., SleepEnv]) -> None:
    maker = as_scheduler(made_by)
    env = short()
    env.reset(seed=0)
    one, other = made(maker, env, 0), made(maker, env, 1)
    assert one is not other
    assert hasattr(one, "predict")


def test_a_class_that_takes_environment_and_seed_is_a_maker(short: Callable[..., SleepEnv]) -> None:
    class Seeded(Siesta):
        def __init__(self, env: SleepEnv, seed: int) -> None:
            super().__init__()
            self.env, self.seed = env, seed

    env = short()
    found = made(as_scheduler(Seeded), env, 7)
    assert (found.env, found.seed) == (env, 7)


@dataclass
class Needy(Siesta):
    nights: int
    answer: Any = 0


class Abstract(Scheduler):
    def decide(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Needy, r"found the class Needy, which needs nights; make one, as Needy\(nights=\.\.\.\)"),
        (Abstract, r"expected Abstract to have act\(\), found none"),
        (dict, r"found the class dict, which has no act\(\)"),
        ("night-owl", "expected an instance of a Scheduler, .* found 'night-owl'"),
        (None, "found None"),
        (3, "found 3"),
        (lambda: 0, r"found .*<lambda> of \(\)"),
        (
            lambda observation: 0,
            r"expected a function of \(observation, mask\) or of \(env, seed\), found .*observation",
        ),
        (lambda a, b, c: 0, r"of \(a, b, c\)"),
    ],
)
def test_what_can_decide_nothing_is_refused_in_words(given: Any, message: str) -> None:
    with pytest.raises(SchedulerTypeError, match=message) as caught:
        as_scheduler(given)
    assert isinstance(caught.value, TypeError)


def test_makers_stay_what_they_are_whatever_they_call_what_they_take(short: Callable[..., SleepEnv]) -> None:
    env = short()
    env.reset(seed=0)
    owl = NightOwl()
    for maker in (lambda env, seed: owl, lambda _env, seed: owl, lambda *_: owl, lambda a, b: owl):
        assert made(as_scheduler(maker), env, 0) is owl
    # One that chooses an action all the same.
    assert isinstance(made(as_scheduler(lambda a, b: 3), env, 0), FunctionScheduler)
    with pytest.raises(SchedulerTypeError, match=r"TypeError: .*; if it chooses an action, name what it takes"):
        made(as_scheduler(lambda a, b: b[4]), env, 0)
    for nothing in (lambda env, seed: 3, lambda env, seed: None, lambda env, seed: NightOwl):
        with pytest.raises(SchedulerTypeError, match=r"to make an instance of a Scheduler, .*found"):
            made(as_scheduler(nothing), env, 0)
    with pytest.raises(ZeroDivisionError):
        made(as_scheduler(lambda env, seed: 1 / 0), env, 0)


def test_a_planner_follows_functions_and_classes(short: Callable[..., SleepEnv]) -> None:
    env = short()
    observation, _ = env.reset(seed=0)
    for rule in (choose, Siesta, Siesta(), Duck()):
        action, _ = LookAhead(env, rule, depth=2, width=2).predict(observation, action_masks=env.action_masks())
        assert env.action_masks()[int(action)]
    for rule in (lambda env, seed: NightOwl(), Needy, "night-owl"):
        with pytest.raises(SchedulerTypeError):
            LookAhead(env, rule, depth=2, width=2)
