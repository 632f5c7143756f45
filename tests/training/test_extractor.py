"""The extractor reads the ledger as a set."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from sleepgym.env.observation import LEDGER_FEATURES, Observer
from sleepgym.env.wrappers import FlattenLedger
from sleepgym.episode.card import load_card
from sleepgym.training import LedgerExtractor

SPACE = Observer(load_card("SleepLLM-Mini-v0")).space
ROWS, COLUMNS = SPACE["ledger"].shape  # type: ignore[misc]
NAMES = list(LEDGER_FEATURES)


@pytest.fixture
def extractor() -> LedgerExtractor:
    torch.manual_seed(0)
    return LedgerExtractor(SPACE)


def observation(written: int, waiting: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """As many facts as asked, with random features, in the first rows."""
    torch.manual_seed(seed)
    ledger = torch.zeros(1, ROWS, COLUMNS)
    used = written + waiting
    ledger[0, :used] = torch.rand(used, COLUMNS)
    ledger[0, :used, NAMES.index("present")] = 1
    ledger[0, :written, NAMES.index("pending")] = 0
    ledger[0, written:used, NAMES.index("pending")] = 1
    return {"ledger": ledger, "stats": torch.rand(1, SPACE["stats"].shape[0])}  # type: ignore[index]


@pytest.mark.parametrize(("written", "waiting"), [(7, 3), (5, 0), (0, 4), (0, 0), (10, 4)])
def test_the_order_of_rows_does_not_matter(extractor: LedgerExtractor, written: int, waiting: int) -> None:
    one = observation(written, waiting)
    other = {**one, "ledger": one["ledger"][:, torch.randperm(ROWS)]}
    torch.testing.assert_close(extractor(one), extractor(other))


def test_facts_that_wait_are_told_from_written_ones_with_the_same_numbers(extractor: LedgerExtractor) -> None:
    one = observation(4, 0)
    other = {**one, "ledger": one["ledger"].clone()}
    other["ledger"][0, :4, NAMES.index("pending")] = 1
    assert not torch.allclose(extractor(one), extractor(other))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("present", "pending")])
def test_every_feature_of_every_kind_of_fact_is_read(extractor: LedgerExtractor, name: str) -> None:
    for row in (0, 5):
        one = observation(3, 3)
        other = {**one, "ledger": one["ledger"].clone()}
        other["ledger"][0, row, NAMES.index(name)] += 0.5
        assert not torch.equal(extractor(one), extractor(other)), f"row {row}"


def test_empty_rows_add_nothing_whatever_stands_in_them(extractor: LedgerExtractor) -> None:
    one = observation(3, 2)
    other = {**one, "ledger": one["ledger"].clone()}
    other["ledger"][0, 5:, 1:] = 1.0
    torch.testing.assert_close(extractor(one), extractor(other))


def test_a_row_of_a_batch_is_what_it_is_alone(extractor: LedgerExtractor) -> None:
    alone = [observation(w, p, seed) for seed, (w, p) in enumerate([(7, 3), (0, 0), (2, 0), (0, 1)])]
    batch = {name: torch.cat([one[name] for one in alone]) for name in ("ledger", "stats")}
    torch.testing.assert_close(extractor(batch), torch.cat([extractor(one) for one in alone]))


def test_a_ledger_without_facts_leaves_the_statistics_to_decide(extractor: LedgerExtractor) -> None:
    features = extractor(observation(0, 0))
    assert features.shape == (1, extractor.features_dim) and torch.isfinite(features).all()
    assert not torch.allclose(features, extractor(observation(0, 0, seed=1)))


def test_gradients_are_finite_where_a_pool_is_empty(extractor: LedgerExtractor) -> None:
    extractor(observation(0, 0)).sum().backward()
    gradients = [p.grad for p in extractor.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)


def test_vectors_are_refused_with_advice() -> None:
    flat = FlattenLedger(gym.make("sleepgym:SleepLLM-Mini-v0")).observation_space
    with pytest.raises(TypeError, match=r"ledger and stats, found Box \(175,\); leave FlattenLedger out"):
        LedgerExtractor(flat)
    with pytest.raises(TypeError, match="found Dict"):
        LedgerExtractor(spaces.Dict({"stats": spaces.Box(0, 1, (3,), np.float32)}))
