"""Training: it learns, is deterministic, goes on where it was stopped, and its models can be read again."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sleepgym.fastweights.checkpoint import CheckpointError, load_model
from sleepgym.fastweights.scoring import accuracies, majority
from sleepgym.fastweights.tasks import task_named
from sleepgym.fastweights.train import Args, ResumeError, Run, rate, train, up_to

SMALL = Args(
    task="hops",
    settings={"people": 6, "deepest": 2, "queries": 6},
    passes=2,
    steps=6,
    batch=8,
    width=16,
    blocks=1,
    warm_up=2,
    check_every=3,
    check_sequences=8,
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "model.safetensors").model.state_dict()


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = replace(SMALL, out=tmp_path / "whole")
    train(whole)
    stopped = Run(replace(SMALL, out=tmp_path / "stopped"))
    for _ in range(3):
        stopped.step()
    stopped.save()
    train(stopped.args)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_loss_falls_to_that_of_a_learner(optimizer: str) -> None:
    task = {"cells": 3, "deepest": 1, "queries": 8}
    run = Run(
        Args(
            task="rule110",
            settings=task,
            passes=0,
            most_passes=2,
            steps=200,
            width=16,
            blocks=1,
            warm_up=10,
            optimizer=optimizer,
            matrix_lr=0.03,
            lr=0.01,
        )
    )  # type: ignore[arg-type]
    losses = [run.step()[0] for _ in range(200)]
    # Knowing nothing but how often cells are 1 costs 0.68 nats.
    assert losses[0] > 0.9
    assert sum(losses[-20:]) / 20 < 0.63


def test_the_rate_rises_to_its_peak_and_falls_along_a_cosine() -> None:
    assert [rate(step, 100, 10) for step in (0, 9, 10, 55, 100)] == pytest.approx([0.1, 1, 1, 0.525, 0.05])


@pytest.mark.parametrize(("name", "first"), [("rule110", [0, 1]), ("hops", [1])])
def test_depths_grow_to_those_of_the_task(name: str, first: list[int]) -> None:
    task, rng = task_named(name, {"deepest": 4}), np.random.default_rng(0)
    drawn = [up_to(task, step, 100).batch(rng, 64) for step in (0, 60, 99, 100)]
    depths = [sorted(set(batch.depths.flatten().tolist())) for batch in drawn]
    assert depths[0] == first and depths[3] == list(range(task.shallowest, 5))
    assert all(set(some) <= set(more) for some, more in pairwise(depths))
    assert up_to(task, 100, 100) is up_to(task, 0, 0) is task
    # What is asked is written as in the whole task, or it would have to be learned anew.
    whole = task.batch(np.random.default_rng(1), 8, depth=1)
    assert torch.equal(up_to(task, 0, 100).batch(np.random.default_rng(1), 8, depth=1).queries, whole.queries)


def test_another_recipe_is_not_mixed_in(tmp_path: Path) -> None:
    run = Run(replace(SMALL, out=tmp_path))
    run.save()
    with pytest.raises(ResumeError, match=r"expected a run with lr=0\.01, found one with 0\.005"):
        Run(replace(SMALL, out=tmp_path, lr=0.01)).resume()
    Run(replace(SMALL, out=tmp_path, check_every=1)).resume()


def test_a_model_that_is_read_again_scores_the_same(tmp_path: Path) -> None:
    made = train(replace(SMALL, out=tmp_path))
    found = load_model(tmp_path / "model.safetensors")
    assert found.task == made.task and found.about["done"] == 6 and found.about["passes"] == 2
    scores = accuracies(found.model, found.task, 2, 20)
    assert scores == accuracies(made.model, made.task, 2, 20)
    assert [score.depth for score in scores] == [1, 2]
    assert all(0 <= score.joint <= score.right / 4 <= score.sequences == 20 for score in scores)


def test_the_uncut_model_reads_context_and_queries_in_one_window(tmp_path: Path) -> None:
    made = train(replace(SMALL, out=tmp_path, uncut=True, steps=2))
    assert made.model.spec.window_tokens == 2 * 6 + 2 * 6
    assert len(accuracies(made.model, made.task, 1, 8, uncut=True)) == 2


def test_the_majority_is_a_guess() -> None:
    task = Run(SMALL).task
    for score in majority(task, 500):
        assert score.per_query == pytest.approx(1 / 6, abs=0.03)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    for name in ("other", "damaged", "missing"):
        with pytest.raises(CheckpointError, match=r"expected a model of sleepgym\.fastweights\.train"):
            load_model(tmp_path / f"{name}.safetensors")
