from dataclasses import replace

import pytest
import torch

from sleepgym.consolidation.adapters import joined, keep, lowest_block, recompressed, tonights_adapter
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.memory.owners import ADAPTER
from sleepgym.memory.state import State


def factors(seed, rank, d_in=12, d_out=9, names=("m", "n")):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(rank, d_in, generator=generator), torch.randn(d_out, rank, generator=generator))
        for name in names
    }


def dense(adapter, name="m"):
    a, b = adapter[name]
    return b @ a


def test_joined_adapters_add_up():
    one, other = factors(0, 2, names=("m", "n")), factors(1, 3, names=("m", "o"))
    both = joined(one, other)
    assert set(both) == {"m", "n", "o"}
    torch.testing.assert_close(dense(both), dense(one) + dense(other))
    assert both["m"][0].shape[0] == 5
    torch.testing.assert_close(dense(both, "n"), dense(one, "n"))


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_recompression_is_the_truncated_singular_value_decomposition(rank):
    adapter = factors(0, 6)
    lower, error = recompressed(adapter, rank)
    lost = total = 0.0
    for name in adapter:
        u, s, vh = torch.linalg.svd(dense(adapter, name))
        nearest = u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]
        torch.testing.assert_close(dense(lower, name), nearest, atol=1e-4, rtol=1e-4)
        assert lower[name][0].shape[0] == rank
        lost += float(s[rank:6].square().sum())
        total += float(s.square().sum())
    assert error == pytest.approx((lost / total) ** 0.5, rel=1e-4, abs=1e-6)
    assert (error < 1e-6) == (rank == 6)


def test_recompression_of_nothing_loses_nothing():
    adapter = {"m": (torch.zeros(4, 6), torch.zeros(5, 4))}
    lower, error = recompressed(adapter, 2)
    assert error == 0.0 and not dense(lower).any()


def test_fresh_adapters_are_recompressed_at_the_largest_rank():
    state, spec = State.fresh(4), SleepSpec(adapter="fresh", rank=4, max_rank=6)
    assert keep(state, factors(0, 4), spec) == 0.0
    before = dense(state.memory.terms[ADAPTER].factors)
    error = keep(state, factors(1, 4), spec)
    assert 0 < error < 1
    assert state.memory.terms[ADAPTER].rank == 6
    whole = before + dense(factors(1, 4))
    assert (dense(state.memory.terms[ADAPTER].factors) - whole).norm() < whole.norm()


def test_continued_adapter_takes_the_place_of_the_old_one():
    state, spec = State.fresh(4), SleepSpec()
    keep(state, factors(0, 4), spec)
    keep(state, factors(1, 4), spec)
    torch.testing.assert_close(dense(state.memory.terms[ADAPTER].factors), dense(factors(1, 4)))


def test_night_starts_from_the_adapter_so_far_or_from_a_fresh_one(base):
    state, spec = State.fresh(4), SleepSpec(rank=3)
    first = tonights_adapter(base, state, spec, ())
    state.memory.put(ADAPTER, first.factors)
    assert tonights_adapter(base, state, spec, ()) is state.memory.terms[ADAPTER]
    fresh = tonights_adapter(base, state, replace(spec, adapter="fresh"), ())
    assert all(not b.any() for _, b in fresh.factors.values())


def test_adapters_sit_in_the_upper_half_above_the_edited_blocks(base):
    assert lowest_block(base, SleepSpec()) == 1
    assert lowest_block(base, SleepSpec(first_layer=0)) == 0
