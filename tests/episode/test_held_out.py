"""Drift at a sample of tokens, and on the whole text."""

import math
from itertools import chain

import pytest
import torch

from sleepgym.episode.card import load_card
from sleepgym.episode.held_out import HeldOut
from sleepgym.lm.probes import perplexity, sampled_columns
from sleepgym.memory.overlay import Memory


@pytest.fixture
def card():
    return load_card("SleepLLM-v0").episode


def worn(base, size):
    """A memory that does some harm."""
    memory, generator = Memory(), torch.Generator().manual_seed(0)
    factors = torch.randn(1, 2048, generator=generator) * size, torch.randn(128, 1, generator=generator)
    memory.put("edit:0", {base.lm.blocks[0].down_proj: factors})
    return memory


@pytest.mark.parametrize("tokens", [1, 7, 32, 10**6])
def test_the_sample_is_shared_out_evenly_and_always_the_same(base, tokens):
    rows = base.statistics.held_out[:5]
    columns = sampled_columns(rows, tokens)
    assert columns == sampled_columns(rows, tokens)
    assert sum(map(len, columns)) == min(tokens, sum(len(row) - 1 for row in rows))
    assert all(of_row == sorted(set(of_row)) for of_row in columns)
    assert all(0 <= column < len(row) - 1 for row, of_row in zip(rows, columns, strict=True) for column in of_row)
    sizes = list(map(len, columns))
    assert tokens > 32 or max(sizes) - min(sizes) <= 1


def test_a_bare_model_does_not_drift(base, card):
    held_out = HeldOut.of(base, card)
    assert held_out.ratio(Memory()) == held_out.whole_ratio(Memory()) == 1.0
    zero = worn(base, 0.0)
    assert held_out.ratio(zero) == pytest.approx(1.0, abs=1e-5)
    assert held_out.whole_ratio(zero) == pytest.approx(1.0, abs=1e-5)


def test_the_whole_is_the_perplexity_of_all_tokens(base, card):
    held_out, memory = HeldOut.of(base, card), worn(base, 0.01)
    with base.overlay.use(memory):
        expected = perplexity(base.lm, held_out.rows)
    assert held_out.whole_ratio(memory) == pytest.approx(expected / perplexity(base.lm, held_out.rows), rel=1e-4)
    assert len(list(chain.from_iterable(held_out.columns))) == card.perplexity_tokens


def test_more_harm_is_more_drift_at_the_sample_too(base, card):
    held_out = HeldOut.of(base, card)
    sampled, whole = zip(
        *((held_out.ratio(m), held_out.whole_ratio(m)) for m in (worn(base, s) for s in (0.0, 0.5, 50.0))), strict=True
    )
    assert list(sampled) == sorted(sampled) and list(whole) == sorted(whole)


def test_not_a_number_counts_as_damage(base, card):
    held_out = HeldOut.of(base, card)
    assert held_out.ratio(worn(base, 3e37)) == math.inf
