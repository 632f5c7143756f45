"""Dreams: what a writer writes, what it learns from preferences, and how these are counted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import dreams, dreams_page
from benchmarks.common import records
from benchmarks.dreams_writer import (
    FEEDBACK,
    LEAST,
    Client,
    DreamSpec,
    Writer,
    by_recall,
    pairs,
    tally,
    tune,
)
from sleepgym.facts import World
from sleepgym.lm import load, score
from sleepgym.memory.asking import raw_probe
from sleepgym.memory.overlay import Memory, Overlay

SMALL = DreamSpec(prompts=2, samples=3, rejected=2, rounds=1, steps=2, tokens=20, rank=4)


@pytest.fixture(scope="module")
def overlay() -> Overlay:
    return Overlay(load("tiny"))


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return [fact.prompt for fact in World().known_facts()[:4]]


def test_a_fresh_writer_is_the_base(overlay: Overlay, prompts: list[str]) -> None:
    writer = Writer(overlay, rank=4)
    rows = writer.write(prompts, 2, 20)
    assert torch.equal(writer.log_probs(rows, True).detach(), writer.log_probs(rows, False))
    assert torch.allclose(writer.log_probs(rows, False), -score(overlay.lm, rows).nll, atol=1e-3)


def test_dreams_follow_their_prompts_and_the_seed(overlay: Overlay, prompts: list[str]) -> None:
    rows = Writer(overlay, rank=4, seed=3).write(prompts, 2, 20)
    for row, prompt in zip(rows, [p for p in prompts for _ in range(2)], strict=True):
        assert row.ids[: row.object_start] == overlay.lm.encode(prompt).ids
        assert LEAST <= len(row.object_ids) <= 20
    assert rows == Writer(overlay, rank=4, seed=3).write(prompts, 2, 20)
    assert rows != Writer(overlay, rank=4, seed=4).write(prompts, 2, 20)


def test_preferences_begin_at_ln_two_and_move_likelihood_to_the_chosen(overlay: Overlay, prompts: list[str]) -> None:
    writer = Writer(overlay, rank=4)
    rows = writer.write(prompts, 2, 20)
    chosen, rejected = rows[::2], rows[1::2]
    losses = writer.prefer(chosen, rejected, replace(SMALL, steps=12, learning_rate=2e-3, pairs=4))
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        gains = writer.log_probs(rows, True) - writer.log_probs(rows, False)
    assert float((gains[::2] - gains[1::2]).mean()) > 0


def test_imitation_makes_texts_likelier(overlay: Overlay, prompts: list[str]) -> None:
    writer = Writer(overlay, rank=4)
    rows = writer.write(prompts, 1, 20)
    writer.imitate(rows, replace(SMALL, steps=12, learning_rate=2e-3))
    with torch.no_grad():
        assert float((writer.log_probs(rows, True) - writer.log_probs(rows, False)).mean()) > 0


def test_recall_is_what_a_dream_adds_to_the_log_probability_of_a_fact(overlay: Overlay) -> None:
    lm, fact = overlay.lm, World().known_facts()[0]
    client, rows = Client([fact], Memory()), Writer(overlay, rank=4).write([fact.prompt], 2, 20)
    found = by_recall(overlay, [client], rows)
    text = str(lm.tokenizer.decode(list(rows[0].ids[1:])))
    behind = lm.encode(fact.prompt, fact.object, prefix=text)
    expected = float(score(lm, [raw_probe(lm, fact)]).nll - score(lm, [behind]).nll)
    assert found.shape == (1, 2)
    assert float(found[0, 0]) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", FEEDBACK)
def test_every_feedback_scores_each_dream_for_each_client(name: str, overlay: Overlay, prompts: list[str]) -> None:
    facts = World().known_facts()[:6]
    clients = [Client(facts[:2], Memory()), Client(facts[2:], Memory())]
    rows = Writer(overlay, rank=4).write(prompts, 1, 20)
    found = FEEDBACK[name](overlay, clients, rows)
    assert found.shape == (2, len(rows))
    assert torch.isfinite(found).all()
    # A dream's score does not depend on its neighbours.
    assert torch.allclose(found[:, 1:2], FEEDBACK[name](overlay, clients, rows[1:2]), atol=1e-4)


def test_no_client_moves_the_votes_by_more_than_one() -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.standard_normal((5, 40)) * 100)
    everybody = tally(scores, 0.0, rng)
    for client in range(5):
        others = tally(scores[[i for i in range(5) if i != client]], 0.0, rng)
        assert float((everybody - others).norm()) <= 1 + 1e-9
    noisy = torch.stack([tally(scores, 2.0, rng) for _ in range(500)])
    assert float((noisy - everybody).std()) == pytest.approx(2.0, rel=0.02)
    assert torch.isfinite(tally(torch.ones(2, 4), 0.0, rng)).all()  # a client that does not care


def test_pairs_are_chosen_by_index() -> None:
    votes = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.7, 0.7])
    assert pairs(votes, samples=3, rejected=2) == ([1, 3], [2, 4])
    assert pairs(votes, samples=3, rejected=3) == ([1, 3], [0, 5])


def test_tuning_reports_every_round(overlay: Overlay, prompts: list[str]) -> None:
    client = Client(World().known_facts()[:1], Memory())
    spec = replace(SMALL, rounds=2)
    for feedback, imitate in ((FEEDBACK["cosine"], False), (None, False), (FEEDBACK["cosine"], True)):
        told = tune(Writer(overlay, 4), prompts, [client], feedback, spec, np.random.default_rng(0), imitate)
        assert len(told) == 2
        assert all(found["chosen"] >= found["score"] for found in told)


def test_orders_agree_or_not() -> None:
    assert dreams_page.ordered([1, 2, 3], [10, 20, 30]) == 1
    assert dreams_page.ordered([1, 2, 3], [3, 2, 1]) == 0
    assert dreams_page.ordered([1, 2, 3], [1, 3, 2]) == pytest.approx(2 / 3)


def test_differences_are_paired_by_draw() -> None:
    def run(*kept: int) -> dict[str, Any]:
        return {"points": [{"kept": "".join(map(str, kept))}]}

    control = {0: run(1, 0, 1, 0), 1: run(0, 0, 0, 0), 2: run(0, 0, 0, 0)}
    assert dreams_page.difference({0: run(1, 1, 1, 1)}, control).startswith("+0.500 [")
    assert dreams_page.difference(control, control) == "+0.000 [+0.000, +0.000] (+0.000, +0.000, +0.000)"
    assert dreams_page.difference({7: run(1, 1, 1, 1)}, control) == ""


@pytest.mark.slow
def test_records_become_the_page(tmp_path: Path) -> None:
    bench = dreams.Dreamt()
    assert not {fact.subject for fact in bench.public} & {fact.subject for fact in bench.reported}
    dreams.order(dreams.Order(seeds=1, facts=2, dreams=3, out=tmp_path / "order.json"), bench)
    args = dreams.Lives(
        seeds=1, days=2, per_day=2, ask_every=1, rows=4, dream=SMALL, out=tmp_path / "lives.json",
        pools=("none", "more untuned", "tuned by cosine"),
    )  # fmt: skip
    dreams.lives(args, bench)
    before = records.read(args.out)["runs"]
    dreams.lives(args, bench)  # nothing is left to do
    assert records.read(args.out)["runs"] == before
    assert [run["rows"] for run in before] == [0, 20, 4]
    page = dreams_page.contents(tmp_path)
    assert "tuned by cosine" in page["lives"]
    assert "tuned by cosine" in page["tuning"]
    assert "gradient, known facts" in page["order"]
    assert set(dreams_page.contents(tmp_path / "nowhere").values()) == {dreams_page.MISSING}
