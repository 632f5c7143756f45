"""What is kept between passes never shows in the logits."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, OPTConfig

from sleepgym.lm.continuation import Continuation, Start
from sleepgym.lm.language_model import hooked

TEXTS = ("Tom works as a plumber", "It was Monday. The old mill stood by the river and Tom works as a", "Tom")
SMALL = {"vocab_size": 8192, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.fixture
def rows(base):
    return [base.lm.encode(text).ids for text in TEXTS]


def ends(rows):
    return torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])


def plain(lm, rows):
    return lm.logits_at(lm.pad(rows), *ends(rows))


@pytest.mark.parametrize("first_block", [0, 1, 2])
def test_logits_are_those_of_a_plain_pass(base, rows, first_block):
    run = Continuation(base.lm, rows, [1, 12, 0], Start(first_block))
    assert run.starts.tolist() == [1, 12, 0]
    torch.testing.assert_close(run.logits(*ends(rows)), plain(base.lm, rows), atol=1e-4, rtol=0)


def test_passes_do_not_disturb_each_other(base, rows):
    run = Continuation(base.lm, rows, [1, 12, 0], Start(1))
    first = run.logits(*ends(rows))
    run.select(torch.tensor([1])).logits(torch.tensor([0]), torch.tensor([len(rows[1]) - 1]))
    assert torch.equal(run.logits(*ends(rows)), first)


def test_selected_rows_give_their_logits(base, rows):
    chosen = Continuation(base.lm, rows, [1, 12, 0], Start(1)).select(torch.tensor([2, 1]))
    at = torch.tensor([len(rows[2]) - 1, len(rows[1]) - 1])
    expected = plain(base.lm, rows)[[2, 1]]
    torch.testing.assert_close(chosen.logits(torch.arange(2), at), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("first_block", [0, 1])
def test_gradients_are_those_of_a_plain_pass(base, rows, first_block):
    starts, at = [1, 12, 0], ends(rows)
    module = base.lm.linear(base.lm.blocks[1].down_proj)

    def gradient(run, columns):
        delta = torch.zeros(len(rows), 128, requires_grad=True)

        def add(module, args, output):
            return output.index_put((torch.arange(len(rows)), columns), delta, accumulate=True)

        with hooked(module.register_forward_hook(add)):
            run().square().sum().backward()
        return delta.grad

    kept = Continuation(base.lm, rows, starts, Start(first_block))
    one = gradient(lambda: kept.logits(*at), torch.zeros(len(rows), dtype=torch.long))
    other = gradient(lambda: plain(base.lm, rows), torch.tensor(starts))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_model_whose_cache_disagrees_is_run_from_the_beginning(base, rows):
    lm = replace(base.lm)  # which has not been compared with anything
    body = lm.model.base_model
    honest = body.forward

    def lying(*args, **kwargs):
        out = honest(*args, **kwargs)
        if kwargs.get("past_key_values") is not None:
            out["last_hidden_state"] = out["last_hidden_state"] + 1
        return out

    body.forward = lying
    try:
        run = Continuation(lm, rows, [1, 12, 0], Start(0))
    finally:
        del body.forward
    assert run.starts.tolist() == [0, 0, 0]
    torch.testing.assert_close(run.logits(*ends(rows)), plain(base.lm, rows), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(**SMALL, n_embd=32, n_layer=3, n_head=4, n_positions=64),
        OPTConfig(
            **SMALL, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32
        ),
        BloomConfig(**SMALL, hidden_size=32, n_layer=3, n_head=4),
    ],
    ids=["learned positions", "positions from the mask", "ALiBi"],
)
def test_every_kind_of_position_is_kept(small_llm, rows, config):
    torch.manual_seed(0)
    lm = small_llm(AutoModelForCausalLM.from_config(config))
    run = Continuation(lm, rows, [1, 12, 0], Start(1))
    assert run.starts.tolist() == [1, 12, 0]
    torch.testing.assert_close(run.logits(*ends(rows)), plain(lm, rows), atol=1e-4, rtol=0)
