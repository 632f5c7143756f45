"""What the tasks say is true, by another way of working it out, and their splits are disjoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sleepgym.facts.world import SPLITS, Split
from sleepgym.fastweights import Batch, Hops, Rule110, Task, TaskError, task_named
from sleepgym.fastweights.task import ASKED_TOGETHER, tenths
from sleepgym.settings import SettingError

TASKS = [Rule110(), Rule110(strings=6, cells=9, deepest=4, queries=5), Hops(), Hops(people=8, deepest=6, queries=5)]
every_task = pytest.mark.parametrize("task", TASKS, ids=str)

PATTERNS = {"111": 0, "110": 1, "101": 1, "100": 0, "011": 1, "010": 1, "001": 1, "000": 0}


def middle_after(cells: list[int], steps: int) -> int:
    """Rule 110 from its table of patterns, on a ring."""
    for _ in range(steps):
        text = "".join(map(str, [cells[-1], *cells, cells[0]]))
        cells = [PATTERNS[text[place : place + 3]] for place in range(len(cells))]
    return cells[len(cells) // 2]


def strings_of(task: Rule110, batch: Batch, row: int) -> dict[int, list[int]]:
    """Strings by the token of their name, read from the windows."""
    found = {}
    for window in batch.windows:
        for string in window[row].view(-1, task.cells).tolist():
            (name,) = {token // 2 for token in string}
            found[2 * task.strings + name] = [token % 2 for token in string]
    return found


@pytest.mark.parametrize("depth", [None, 0, 3])
def test_answers_of_rule110_follow_from_what_the_windows_say(depth: int | None) -> None:
    task = Rule110(strings=6, cells=13, deepest=6)
    batch = task.batch(np.random.default_rng(0), 20, depth=depth)
    for row in range(len(batch)):
        strings = strings_of(task, batch, row)
        assert sorted(strings) == list(range(2 * task.strings, 3 * task.strings))
        asked = batch.queries[row].view(-1, 2).tolist()
        for (name, t), answer, told in zip(asked, batch.answers[row], batch.depths[row], strict=True):
            steps = t - 3 * task.strings
            assert steps == told and (depth is None or steps == depth)
            assert answer == middle_after(strings[name], steps)
        named = [{2 * task.strings + token // 2 for token in window[row].tolist()} for window in batch.windows]
        for (name, _), needs in zip(asked, batch.needs[row], strict=True):
            assert name in named[needs - 1]


@pytest.mark.parametrize("depth", [None, 1, 5])
def test_answers_of_hops_follow_from_what_the_windows_say(depth: int | None) -> None:
    task = Hops(people=10, deepest=7)
    batch = task.batch(np.random.default_rng(0), 20, depth=depth)
    for row in range(len(batch)):
        following = dict(pair for window in batch.windows for pair in window[row].view(-1, 2).tolist())
        assert sorted(following) == sorted(following.values()) == list(range(10))
        asked = batch.queries[row].view(-1, 2).tolist()
        for (person, k), answer, told in zip(asked, batch.answers[row], batch.depths[row], strict=True):
            assert k - task.people + 1 == told and (depth is None or told == depth)
            for _ in range(int(told)):
                person = following[person]
            assert person == answer
    assert (batch.needs == 2).all()


@every_task
@pytest.mark.parametrize("split", SPLITS)
def test_shapes_tokens_and_depths_are_what_the_task_promises(task: Task, split: Split) -> None:
    batch = task.batch(np.random.default_rng(1), 50, split)
    assert [tuple(window.shape) for window in batch.windows] == [(50, length) for length in task.context_tokens]
    assert batch.queries.shape == (50, 2 * task.queries)
    assert all(part.dtype == torch.int64 for part in (*batch.windows, batch.queries, batch.answers, batch.depths))
    for part in (*batch.windows, batch.queries, batch.answers):
        assert part.min() >= 0 and part.max() < task.vocabulary
    assert set(batch.depths.unique().tolist()) == set(range(task.shallowest, task.deepest + 1))
    assert batch.uncut().queries.shape == (50, sum(task.context_tokens) + 2 * task.queries)


@every_task
def test_four_different_things_are_asked_together(task: Task) -> None:
    batch = task.batch(np.random.default_rng(1), 50, depth=2)
    assert batch.answers.shape == (50, ASKED_TOGETHER)
    for row in batch.queries[:, ::2].tolist():
        assert len(set(row)) == ASKED_TOGETHER


@every_task
def test_equal_generators_draw_equal_batches(task: Task) -> None:
    one, again, other = (task.batch(np.random.default_rng(seed), 8) for seed in (3, 3, 4))
    assert torch.equal(one.queries, again.queries) and torch.equal(one.answers, again.answers)
    assert all(torch.equal(a, b) for a, b in zip(one.windows, again.windows, strict=True))
    assert not torch.equal(one.queries, other.queries)


def contents(task: Task, split: Split) -> set[tuple[int, ...]]:
    batch = task.batch(np.random.default_rng(7), 400, split)
    if isinstance(task, Rule110):
        return {tuple(s) for row in range(len(batch)) for s in strings_of(task, batch, row).values()}
    pairs = torch.cat(batch.windows, 1).view(len(batch), -1, 2)
    return {tuple(dict(sorted(row)).values()) for row in pairs.tolist()}


@every_task
def test_no_content_is_in_two_splits(task: Task) -> None:
    train, validation, test = (contents(task, split) for split in SPLITS)
    assert train and validation and test
    assert not train & validation and not train & test and not validation & test


def test_tenths_are_about_equally_large_and_never_change() -> None:
    strings = (np.arange(2**13)[:, None] >> np.arange(13)) & 1
    counts = np.bincount(tenths(strings), minlength=10)
    assert counts.sum() == 2**13
    assert counts.min() > 0.85 * 2**13 / 10 and counts.max() < 1.15 * 2**13 / 10
    assert tenths(strings[:8]).tolist() == [3, 0, 3, 7, 8, 4, 3, 0]


def test_an_impossible_task_is_refused() -> None:
    with pytest.raises(SettingError, match=r"cells: expected an odd number of at least 2 T \+ 1 = 13, found 11"):
        Rule110(cells=11)
    with pytest.raises(SettingError, match="people: expected an even number of more than K = 8, found 8"):
        Hops(people=8)
    with pytest.raises(TaskError, match="expected a task among rule110, hops, found 'rule30'"):
        task_named("rule30")
    with pytest.raises(TaskError, match=r"rule110: expected settings among strings, .*, found people"):
        task_named("rule110", {"people": 3})
    with pytest.raises(ValueError, match="expected a split of train, validation, test, found 'dev'"):
        Rule110().batch(np.random.default_rng(0), 2, "dev")  # type: ignore[arg-type]


def test_hops_are_between_people_of_the_world() -> None:
    names = Hops(people=8, deepest=6).names()
    assert len(set(names)) == 8
    assert all(" " in name for name in names)
