import math
import weakref

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
)

from sleepgym.facts import Fact, FactError
from sleepgym.lm import generate, perplexity, score
from sleepgym.lm.probes import plain as plain_logits
from sleepgym.memory.overlay import Term


@pytest.fixture(scope="module")
def probes(base, world, facts):
    """Known facts and unheard-of ones, raw and in chat, with objects of one and of several tokens."""
    known = world.known_facts()[:: len(world.known_facts()) // 10]
    some = [*known, *facts[:6], *(Fact(f.subject, f.prompt, "xylophone quartz") for f in known[:3])]
    raw = [base.lm.encode(f.prompt, f.object, f.subject) for f in some]
    chat = [base.lm.encode(base.lm.chat(f.questions[0]), f.object) for f in some if f.questions]
    assert len({len(p.object_ids) for p in [*raw, *chat]}) > 1
    return [*raw, *chat]


def greedy(lm, probe):
    """What greedy decoding of transformers writes, as long as the object."""
    ids = torch.tensor([probe.ids[: probe.object_start]])
    wanted = len(probe.object_ids)
    out = lm.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=wanted, max_new_tokens=wanted,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return tuple(out[0, ids.shape[1] :].tolist())


def test_margin_is_positive_exactly_when_greedy_decoding_writes_the_object(base, probes):
    written = [greedy(base.lm, p) == p.object_ids for p in probes]
    assert any(written) and not all(written)
    assert any(w and len(p.object_ids) > 1 for w, p in zip(written, probes, strict=True))
    assert score(base.lm, probes).correct.tolist() == written


def test_margin_and_nll_equal_a_hand_computation(base, probes):
    for probe in probes[::7]:
        with torch.no_grad():
            log_p = base.lm.model(torch.tensor([probe.ids])).logits[0].log_softmax(-1)
        margins, nll = [], 0.0
        for t in range(probe.object_start, len(probe.ids)):
            row = log_p[t - 1].tolist()
            own = row.pop(probe.ids[t])
            margins.append(own - max(row))
            nll -= own
        scores = score(base.lm, [probe])
        assert scores.margin.item() == pytest.approx(min(margins), abs=1e-4)
        assert scores.nll.item() == pytest.approx(nll, abs=1e-4)


def test_batch_scores_like_one_by_one(base, probes):
    together = score(base.lm, probes)
    alone = [score(base.lm, [p]) for p in probes]
    torch.testing.assert_close(together.margin, torch.cat([s.margin for s in alone]), atol=1e-4, rtol=0)
    torch.testing.assert_close(together.nll, torch.cat([s.nll for s in alone]), atol=1e-4, rtol=0)


def test_no_probes_have_no_scores(base):
    scores = score(base.lm, [])
    assert scores.margin.shape == scores.nll.shape == (0,)
    assert math.isnan(scores.recall)


def test_perplexity_equals_a_plain_loop_with_the_models_own_loss(base):
    texts = base.statistics.held_out[:6]
    total = 0.0
    for row in texts:
        ids = torch.tensor([row])
        with torch.no_grad():
            total += base.lm.model(input_ids=ids, labels=ids).loss.item() * (len(row) - 1)
    expected = math.exp(total / sum(len(row) - 1 for row in texts))
    assert perplexity(base.lm, texts) == pytest.approx(expected, rel=1e-5)
    assert perplexity(base.lm, texts, batch_rows=2) == pytest.approx(expected, rel=1e-5)


def test_perplexity_in_parts_is_that_of_the_whole_bit_for_bit(base, monkeypatch):
    texts = base.statistics.held_out[:20]

    def cross_entropy(rows, at):
        found.append(plain_logits(base.lm, narrow=False)(rows, at))
        targets = torch.tensor(
            [rows[row][column + 1] for row, column in zip(*map(torch.Tensor.tolist, at), strict=True)]
        )
        totals.append(float(torch.nn.functional.cross_entropy(found[-1], targets, reduction="sum")))
        return found[-1]

    found, totals = [], []
    whole = perplexity(base.lm, texts, logits=cross_entropy)
    assert whole == math.exp(sum(totals) / sum(map(len, found)))
    monkeypatch.setattr("sleepgym.lm.probes._LOGITS", 3 * found[0].shape[1])
    assert perplexity(base.lm, texts) == whole


def test_passes_over_text_hold_no_more_logits_than_a_bound_and_no_two_at_a_time(base, monkeypatch):
    texts, rows_of, made = base.statistics.held_out[:6], [], []

    def watched(rows, at):
        assert all(earlier() is None for earlier in made)
        found = plain_logits(base.lm, narrow=False)(rows, at).numpy()
        rows_of.append(len(rows))
        made.append(weakref.ref(found))  # alive as long as any tensor looks at its memory
        return torch.from_numpy(found)

    whole = perplexity(base.lm, texts, logits=watched)
    monkeypatch.setattr("sleepgym.lm.probes._HELD", 2 * base.lm.vocabulary * (max(map(len, texts)) - 1))
    assert perplexity(base.lm, texts, logits=watched) == pytest.approx(whole, rel=1e-5)
    assert rows_of == [6, 2, 2, 2]


@pytest.mark.parametrize("texts", [[], [[7]], [[], [7]]], ids=["no rows", "one token", "empty row"])
def test_perplexity_of_nothing_is_refused(base, texts):
    with pytest.raises(ValueError, match=rf"expected at least one row of two tokens or more, found {len(texts)} rows"):
        perplexity(base.lm, texts)


SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2}
CLASSIC = {"n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZE, intermediate_size=64),
        GPT2Config(**CLASSIC, n_embd=32),
        GPTNeoXConfig(**SIZE, intermediate_size=64),
        OPTConfig(**SIZE, ffn_dim=64, word_embed_proj_dim=32),
        BloomConfig(**CLASSIC, hidden_size=32),
        Gemma3TextConfig(**SIZE, intermediate_size=64, head_dim=8, sliding_window=4),
    ],
    ids=lambda config: config.model_type,
)
def test_padding_does_not_matter_for_any_kind_of_position(base, small_llm, facts, config):
    config.vocab_size = len(base.lm.tokenizer)
    config.pad_token_id = 0
    torch.manual_seed(0)
    lm = small_llm(AutoModelForCausalLM.from_config(config))
    short = lm.encode("Tom lives in", "Oslo")
    long = lm.encode(" ".join(f.statement for f in facts[:4]) + " " + facts[4].prompt, facts[4].object)
    torch.testing.assert_close(score(lm, [short, long]).nll[:1], score(lm, [short]).nll, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "positions", [[(0, 3)], [(0, 3), (0, 3), (2, 0), (1, 6)], [(i, j) for i in range(3) for j in range(7)]]
)
def test_last_mlp_at_read_positions_alone_gives_the_same_logits_and_gradients(base, positions):
    lm, block = base.lm, base.lm.blocks[-1]
    assert block.mlp is not None
    ids = lm.pad(base.statistics.held_out[:3])[:, :7]
    rows, columns = torch.tensor(positions).T
    found = []
    for narrow in (False, True):
        factors = {
            block.down_proj: (
                torch.randn(2, 2048, generator=torch.Generator().manual_seed(0)).requires_grad_(),
                torch.randn(128, 2, generator=torch.Generator().manual_seed(1)).requires_grad_(),
            )
        }
        with base.overlay.use((), Term(factors)):
            logits = lm.logits_at(ids, rows, columns, narrow=narrow)
        logits.square().mean().backward()
        found.append((logits, *(factor.grad for factor in factors[block.down_proj])))
    for plain, narrowed in zip(*found, strict=True):
        torch.testing.assert_close(plain, narrowed, atol=1e-4, rtol=1e-3)
    assert "forward" not in lm.linear(block.mlp).__dict__, "the module is as it was"


def test_generate_writes_what_the_margin_promises(base, world):
    fact = next(
        f for f in world.known_facts() if score(base.lm, [base.lm.encode(f.prompt, f.object)]).margin.item() > 0.1
    )
    assert generate(base.lm, fact.prompt).startswith(fact.object)


# ---------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize("prefix", ["", "In March the fog made the bridge quiet."])
def test_subject_is_located_at_its_surname(base, world, prefix):
    for fact in world.new_facts(np.random.default_rng(3), 30):
        encoded = base.lm.encode(fact.prompt, fact.object, fact.subject, prefix)
        surname = base.lm.tokenizer.decode([encoded.ids[encoded.subject_last]]).strip()
        assert surname and fact.subject.endswith(surname)
        until = base.lm.tokenizer.decode(encoded.ids[: encoded.subject_last + 1])
        assert until.endswith(fact.subject)


def test_subject_of_several_tokens_is_located_at_the_last_one(base):
    encoded = base.lm.encode("Tom Quxwvyzq lives in", "Oslo", "Tom Quxwvyzq")
    assert base.lm.tokenizer.decode(encoded.ids[: encoded.subject_last + 1]).endswith("Tom Quxwvyzq")
    assert base.lm.tokenizer.decode(encoded.ids[encoded.subject_last + 1 :]) == " lives in Oslo"


def test_object_is_the_same_tokens_whatever_precedes_it(base):
    ends = {
        base.lm.encode(prompt, "Port Louis", prefix=prefix).object_ids
        for prompt in ("Tom lives in", "Tom lives in ")
        for prefix in ("", "It was Monday.")
    }
    assert len(ends) == 1
    assert base.lm.tokenizer.decode(ends.pop()).strip() == "Port Louis"


def test_chat_object_follows_the_assistant_turn(base):
    encoded = base.lm.encode(base.lm.chat("Where does Tom live?"), "Oslo")
    assert base.lm.tokenizer.decode(encoded.object_ids).strip() == "Oslo"
    assert base.lm.tokenizer.decode(encoded.ids[: encoded.object_start]).endswith("<|assistant|>")


@pytest.mark.parametrize("obj", [" ", "\n\t"])
def test_object_that_tokenises_to_nothing_is_refused(base, obj):
    with pytest.raises(FactError, match="expected at least one token for the object"):
        base.lm.encode("Tom lives in", obj)


def test_subject_that_is_not_in_the_prompt_is_refused(base):
    with pytest.raises(FactError, match="expected the subject 'Aria' in the prompt"):
        base.lm.encode("Tom lives in", "Oslo", "Aria")
    with pytest.raises(FactError, match="expected the subject 'Aria' in the prompt"):
        base.lm.encode("Tom lives in", "Oslo", "Aria", prefix="Aria sleeps.")


@pytest.mark.parametrize(
    ("prompt", "until"),
    [
        ("Ann met Annabel in", "Ann"),
        ("Annabel met Ann in", "Annabel met Ann"),
        ("Ann met Ann in", "Ann met Ann"),
        ("Ann's friend Joann lives in", "Ann"),
        ("Annabel met Annette in", "Annabel met Ann"),
    ],
)
def test_subject_is_located_at_its_last_whole_word_and_else_where_it_last_stands(base, prompt, until):
    encoded = base.lm.encode(prompt, "Oslo", "Ann")
    read = base.lm.tokenizer.decode(encoded.ids[: encoded.subject_last + 1], skip_special_tokens=True)
    assert read.strip() == until


def test_prompt_longer_than_the_models_positions_is_refused_with_both_numbers(base):
    positions = base.lm.model.config.max_position_embeddings
    longest = "Tom" + " the" * (positions - len(base.lm.encode("Tom", "Oslo").ids))
    assert len(base.lm.encode(longest, "Oslo").ids) == positions
    with pytest.raises(FactError, match=rf"expected at most {positions} tokens, .* found {positions + 1}"):
        base.lm.encode(longest + " the", "Oslo")
