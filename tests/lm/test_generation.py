"""Greedy is the likeliest token and sampling is plain, whatever lies in the model's folder; windows have room."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from sleepgym.facts.fact import FactError
from sleepgym.lm import Sampling, continuations, generate, score
from sleepgym.settings import SettingError

LEAKS = [
    {"repetition_penalty": 30.0},
    {"temperature": 5.0, "do_sample": True},
    {"no_repeat_ngram_size": 1},
    {"suppress_tokens": list(range(200))},
    {"num_beams": 3, "length_penalty": 5.0},
    {"min_new_tokens": 12},
    {"forced_eos_token_id": 2},
]


@pytest.fixture
def folder_says(base):
    """Changes what the model's folder says about generation, and puts it back."""
    before = base.lm.model.generation_config

    def say(settings) -> None:
        changed = copy.deepcopy(before)
        for name, value in settings.items():
            setattr(changed, name, value)
        base.lm.model.generation_config = changed

    yield say
    base.lm.model.generation_config = before


@pytest.mark.parametrize("settings", LEAKS, ids=lambda settings: next(iter(settings)))
def test_greedy_is_argmax_whatever_the_folder_says(base, world, folder_says, settings) -> None:
    known = world.known_facts()[:4]
    prompts = [base.lm.chat(fact.questions[0]) for fact in known]
    plain = continuations(base.lm, prompts, 6)
    folder_says(settings)
    assert continuations(base.lm, prompts, 6) == plain
    recalled = score(base.lm, [base.lm.encode(p, f.object) for p, f in zip(prompts, known, strict=True)]).correct
    written = [text.strip().startswith(fact.object) for text, fact in zip(plain, known, strict=True)]
    assert written == recalled.tolist(), "what a margin calls recalled is what is written"


@pytest.mark.parametrize("settings", LEAKS[:3], ids=lambda settings: next(iter(settings)))
def test_samples_are_those_of_the_model_whatever_the_folder_says(base, folder_says, settings) -> None:
    plain = continuations(base.lm, ["The"], 12, sampling=Sampling(seed=3))
    folder_says(settings)
    assert continuations(base.lm, ["The"], 12, sampling=Sampling(seed=3)) == plain
    assert continuations(base.lm, ["The"], 12, sampling=Sampling(seed=4)) != plain


def test_a_seeded_sample_leaves_torchs_random_state_alone(base) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    continuations(base.lm, ["The"], 4, sampling=Sampling(seed=1))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"top_p": 1.5}, {"top_k": -1}])
def test_impossible_ways_of_drawing_are_refused(values) -> None:
    with pytest.raises(SettingError):
        Sampling(**values)


def test_streamed_pieces_make_the_text(base) -> None:
    pieces: list[str] = []
    (text,) = continuations(base.lm, ["The"], 12, stream=pieces.append)
    assert "".join(pieces).strip() == text.strip() and len(pieces) > 1
    with pytest.raises(ValueError, match="expected one prompt to stream, found 2"):
        continuations(base.lm, ["a", "b"], 2, stream=pieces.append)


def test_batches_are_written_as_single_prompts_are(base, world) -> None:
    prompts = [fact.prompt for fact in world.known_facts()[:5]]
    assert continuations(base.lm, prompts, 4) == [continuations(base.lm, [prompt], 4)[0] for prompt in prompts]


@pytest.fixture(scope="module")
def narrow(base, small_llm):
    """A model of 24 positions."""
    size = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 24, "vocab_size": len(base.lm.tokenizer)}
    torch.manual_seed(0)
    return small_llm(AutoModelForCausalLM.from_config(GPT2Config(**size, bos_token_id=1, eos_token_id=2)))


def test_new_tokens_end_where_the_models_positions_do(narrow) -> None:
    prompt = "one two three four five"
    assert len(narrow.encode(prompt).ids) < 24
    assert isinstance(generate(narrow, prompt, 500), str)


def test_a_prompt_that_fills_the_model_is_a_fact_error(narrow) -> None:
    words = "a"
    while len(narrow.encode(words + " a").ids) < 24:
        words += " a"
    with pytest.raises(FactError, match="expected"):
        generate(narrow, words + " a", 5)
