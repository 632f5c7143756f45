from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from sleepgym.editing.covariance import second_moments
from sleepgym.editing.statistics import ModelStatistics, prefixes_from, sample_text, statistics_for

SIZE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def unmeasured(base, small_llm, tmp_path, monkeypatch):
    """A small model for which no statistics ship, and an empty cache."""
    monkeypatch.setenv("SLEEPGYM_CACHE", str(tmp_path))
    torch.manual_seed(0)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return small_llm(AutoModelForCausalLM.from_config(LlamaConfig(**SIZE, **ids, vocab_size=len(base.lm.tokenizer))))


@pytest.fixture
def statistics():
    keys = torch.randn(300, 12, generator=torch.Generator().manual_seed(0)) + 0.5
    return ModelStatistics(
        {0: keys.T @ keys / 300, 3: 2 * keys.T @ keys / 300},
        rehearsal=((1, 2, 3), (4, 5)),
        held_out=((6, 7),),
        prefixes=("It was Monday.", "Ünïcode"),
    )


def test_round_trip_keeps_text_exactly_and_moments_within_half_precision(statistics, tmp_path):
    statistics.save(tmp_path / "s.safetensors", "model")
    read = ModelStatistics.read(tmp_path / "s.safetensors", "model")
    assert (read.rehearsal, read.held_out, read.prefixes) == (
        statistics.rehearsal,
        statistics.held_out,
        statistics.prefixes,
    )
    assert sorted(read.moments) == [0, 3]
    for layer, moment in statistics.moments.items():
        assert (read.moments[layer] - moment).norm() < 2e-3 * moment.norm()
        assert torch.linalg.eigvalsh(read.moments[layer].double()).min() >= 0


def test_no_half_written_file_is_left_behind(statistics, tmp_path):
    statistics.save(tmp_path / "s.safetensors", "model")
    assert list(tmp_path.iterdir()) == [tmp_path / "s.safetensors"]


def test_file_of_another_model_counts_as_missing(statistics, tmp_path):
    statistics.save(tmp_path / "s.safetensors", "model")
    assert ModelStatistics.read(tmp_path / "s.safetensors", "another model") is None


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 64], ids=["missing", "empty", "garbage"])
def test_missing_or_damaged_file_is_no_error(tmp_path, content):
    if content is not None:
        (tmp_path / "s.safetensors").write_bytes(content)
    assert ModelStatistics.read(tmp_path / "s.safetensors", "model") is None


def test_moments_of_fewer_tokens_than_dimensions_can_be_saved(base, tmp_path):
    # Wide models and short texts: the moment is singular, and rounding makes it slightly indefinite.
    layers = range(len(base.lm.blocks))
    moments = second_moments(base.lm, base.statistics.held_out[:12], layers)
    ModelStatistics(moments, ((1, 2),), ((1, 2),), ()).save(tmp_path / "s.safetensors", "model")
    read = ModelStatistics.read(tmp_path / "s.safetensors", "model")
    for layer in layers:
        assert (read.moments[layer] - moments[layer]).norm() < 1e-2 * moments[layer].norm()


def test_bundled_model_ships_with_its_statistics(base, tmp_path, monkeypatch):
    monkeypatch.setenv("SLEEPGYM_CACHE", str(tmp_path))
    statistics = statistics_for(base.lm, base.editor.spec.layers)
    assert not list(tmp_path.rglob("*.safetensors")), "nothing had to be measured"
    assert not set(statistics.rehearsal) & set(statistics.held_out)


def test_what_ships_is_used_whatever_is_cached(base, tmp_path, monkeypatch):
    monkeypatch.setenv("SLEEPGYM_CACHE", str(tmp_path))
    lm, shipped = base.lm, base.statistics
    other = replace(shipped, held_out=shipped.held_out[:-1], moments={0: 2 * shipped.moments[0], 1: torch.eye(4)})
    cached = tmp_path / "statistics" / f"{lm.fingerprint[:32]}.safetensors"
    other.save(cached, lm.fingerprint)
    found = statistics_for(lm, [0])
    assert found.held_out == shipped.held_out and torch.equal(found.moments[0], shipped.moments[0])
    assert 1 not in found.moments, "measured on another text"


def test_moments_that_do_not_ship_are_measured_once_on_the_text_that_ships(base, tmp_path, monkeypatch):
    monkeypatch.setenv("SLEEPGYM_CACHE", str(tmp_path))
    first = statistics_for(base.lm, [0, 1])
    assert torch.equal(first.moments[0], base.statistics.moments[0]) and first.held_out == base.statistics.held_out
    monkeypatch.setattr("sleepgym.editing.statistics.second_moments", None)
    again = statistics_for(base.lm, [0, 1])
    assert all(torch.equal(again.moments[layer], first.moments[layer]) for layer in (0, 1))


def test_measuring_and_reading_back_give_the_same_statistics(unmeasured):
    # Else the first run on a model differs from all later ones.
    first = statistics_for(unmeasured, [0], rows=80)
    second = statistics_for(unmeasured, [0], rows=80)
    assert first.rehearsal == second.rehearsal and first.prefixes == second.prefixes
    assert torch.equal(first.moments[0], second.moments[0])


def test_further_layers_are_measured_on_the_same_text(unmeasured):
    first = statistics_for(unmeasured, [0], rows=80)
    more = statistics_for(unmeasured, [0, 1], rows=80)
    assert sorted(more.moments) == [0, 1]
    assert more.held_out == first.held_out


def test_sampled_text_is_deterministic_and_leaves_torch_random_state_alone(unmeasured):
    before = torch.random.get_rng_state()
    first = sample_text(unmeasured, 6, tokens=10)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert sample_text(unmeasured, 6, tokens=10) == first
    assert sample_text(unmeasured, 6, tokens=10, seed=1) != first
    assert len(first) == 6 and all(2 <= len(row) <= 11 for row in first)


def test_prefixes_are_the_beginnings_of_texts(base):
    texts = base.statistics.rehearsal
    prefixes = prefixes_from(base.lm, texts, count=3, tokens=5)
    assert len(prefixes) == 3
    for prefix, row in zip(prefixes, texts, strict=False):
        assert base.lm.tokenizer.decode(row, skip_special_tokens=True).strip().startswith(prefix) or "<|" in prefix
