"""The bundled model is trained to attend where a document says that the answer is, and resumes where it stopped."""

from __future__ import annotations

import runpy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """What scripts/train_tiny.py defines."""
    return runpy.run_path(str(ROOT / "scripts" / "train_tiny.py"))


@pytest.fixture(scope="module")
def tokenizer(script, world):
    return script["build_tokenizer"](world)


def test_every_word_of_the_world_is_one_token(world, tokenizer):
    assert all(len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1 for word in world.vocabulary())


def test_attention_is_trained_from_objects_to_subjects_and_sources(script, world, tokenizer):
    passages, found = 0, 0
    for document in islice(world.documents(np.random.default_rng(1)), 200):
        row = script["row_of"](document, tokenizer, 200)
        repeats = [sentence for sentence in document if sentence.told_by is not None]
        if not repeats:
            assert not row.subjects and not row.sources
            continue
        passages += 1
        words = [tokenizer.decode(token).strip() for token in row.ids]
        assert len(row.subjects) == 2 * len(document) and len(row.sources) == len(repeats)
        for query, key in row.sources:
            assert words[query + 1] == words[key]
        for (query, key), sentence in zip(row.subjects[::2], document, strict=True):
            assert sentence.text[: sentence.subject_end].endswith(words[key])
            assert sentence.text[sentence.object_start :].startswith(words[query])
            found += 1
    assert passages > 20 and found > 100


def test_truncated_rows_train_no_attention_beyond_their_end(script, world, tokenizer):
    for document in islice(world.documents(np.random.default_rng(2)), 200):
        row = script["row_of"](document, tokenizer, 30)
        assert len(row.ids) <= 30
        assert all(key < query < len(row.ids) for query, key in row.subjects + row.sources)


def test_attention_loss_is_the_sum_of_negative_logarithms(script):
    attention = torch.rand(2, 3, 3)
    found = script["attention_loss"](attention, script["places_of"]([[(2, 1)], [(1, 0), (2, 2)]]))
    assert torch.allclose(found, -attention[[0, 1, 1], [2, 1, 2], [1, 0, 2]].log().sum(), atol=1e-4)
    assert script["attention_loss"](attention, script["places_of"]([[], []])) == 0


def test_losses_of_parts_add_up_to_those_of_the_batch(script, world, tokenizer):
    args = script["Args"](batch_rows=8)
    model = script["model_of"](tokenizer, args).eval()
    rows = script["batch_of"](world, tokenizer, args, step=3)
    whole = script["losses_of"](model, rows)
    parts = script["losses_of"](model, rows[:4]) + script["losses_of"](model, rows[4:])
    assert torch.allclose(whole, parts, rtol=1e-4)


def test_stopped_runs_go_on_to_the_same_weights(script, tmp_path, monkeypatch):
    options = dict(batch_rows=4, part_rows=2, hidden=16, intermediate=32, heads=2, save_every=2, steps=4)
    script["main"](script["Args"](out=tmp_path / "whole", checkpoint=tmp_path / "run", **options))

    def save_and_stop(*state):
        script["save"](*state)
        raise KeyboardInterrupt

    stopped = script["Args"](out=tmp_path / "half", checkpoint=tmp_path / "again", **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(script["main"].__globals__, "save", save_and_stop)
        script["main"](stopped)
    script["main"](stopped)
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half"))
    assert all(torch.equal(whole[name], half[name]) for name in whole)
