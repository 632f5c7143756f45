"""What counts as prompt and what as object, in tokens."""

from __future__ import annotations

import copy

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from sleepgym.facts.fact import Fact, FactError
from sleepgym.lm.encoding import ChatPrompt, Encoder
from sleepgym.memory.asking import raw_probe


def with_end(tokenizer, single: str, **more):
    """A copy of a tokenizer that puts special tokens around every text."""
    other = copy.deepcopy(tokenizer)
    special = [
        (token, other.convert_tokens_to_ids(token)) for token in (other.bos_token, other.eos_token, other.pad_token)
    ]
    other.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    return other


@pytest.fixture(scope="module")
def plain(base):
    return Encoder(base.lm.tokenizer, "tiny", None)


@pytest.mark.parametrize("single", ["<|bos|> $A <|end|>", "<|bos|> $A <|end|> <|pad|>", "$A <|end|>"])
def test_special_tokens_at_the_end_are_neither_prompt_nor_object(base, plain, single: str) -> None:
    other = Encoder(with_end(base.lm.tokenizer, single), "tiny with an end", None)
    starts = single.startswith("<|bos|>")
    assert other.starts == starts
    for prompt, obj, subject in (("Aria Nakamura lives in", "Oslo", "Aria Nakamura"), ("Aria lives in", "", "")):
        expected = plain.encode(prompt, obj, subject, "", None)
        found = other.encode(prompt, obj, subject, "", None)
        assert found.ids == (expected.ids if starts else expected.ids[1:])
        assert found.object_ids == expected.object_ids
        assert found.ids[found.subject_last] == expected.ids[expected.subject_last] or not subject


def test_a_special_token_that_stands_in_the_text_stays(plain, base) -> None:
    end = base.lm.tokenizer.eos_token
    assert plain.encode(f"Aria{end}", "", "", "", None).ids[-1] == base.lm.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("prompt", "obj", "between"),
    [("Aria lives in", "Oslo", " "), ("東京の市長は", "田中", ""), ("ผู้ว่าการคือ", "สมชาย", ""), ("サイズは", "XL", "")],
)
def test_no_blank_is_put_between_scripts_that_use_none(base, prompt: str, obj: str, between: str) -> None:
    found = base.lm.encode(prompt, obj)
    assert base.lm.tokenizer.decode(found.object_ids) == between + obj
    alone = base.lm.encode(prompt)
    assert found.ids[: found.object_start] == alone.ids, "what is asked is what the object follows"


def test_a_fact_may_say_what_joins_prompt_and_object(base) -> None:
    fact = Fact("A-7", "A-7 = ", "x", joiner="")
    found = raw_probe(base.lm, fact)
    assert base.lm.tokenizer.decode(found.object_ids) == "x"


def test_no_token_spans_prompt_and_object() -> None:
    """A tokenizer that would merge across the border."""
    vocabulary = {token: i for i, token in enumerate(["<unk>", "a", "b", "c", "ab", "bc", "abc"])}
    merges = [("b", "c"), ("a", "b")]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Split("|", "isolated"), decoders.Fuse()
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=backend), "merging", None)
    found = encoder.encode("ab", "c", "", "", "")
    assert found.ids[: found.object_start] == encoder.encode("ab", "", "", "", None).ids
    assert found.object_ids == (vocabulary["c"],)


def test_chats_are_encoded_as_transformers_encodes_them(base) -> None:
    tokenizer = base.lm.tokenizer
    for template in (tokenizer.chat_template, tokenizer.chat_template.replace("{{ bos_token }}", "")):
        other = copy.deepcopy(tokenizer)
        other.chat_template = template
        encoder = Encoder(other, "tiny", None)
        turns = [{"role": "user", "content": "Where does Aria live?"}]
        stock = other.apply_chat_template(turns, tokenize=True, add_generation_prompt=True)
        stock = stock["input_ids"] if not isinstance(stock, list) else stock
        assert list(encoder.encode(encoder.chat("Where does Aria live?"), "", "", "", None).ids) == stock


def test_the_bundled_template_begins_as_the_model_was_trained(base) -> None:
    ids = base.lm.encode(base.lm.chat("Where does Aria live?")).ids
    assert ids[0] == base.lm.tokenizer.bos_token_id and base.lm.tokenizer.bos_token_id not in ids[1:]


def test_turns_stand_in_order_with_or_without_a_template(base) -> None:
    history = [("Who?", "Aria.")]
    chat = base.lm.chat("Where?", history=history)
    assert isinstance(chat, ChatPrompt)
    assert [chat.index(text) for text in ("Who?", "Aria.", "Where?")] == sorted(
        chat.index(text) for text in ("Who?", "Aria.", "Where?")
    )
    other = copy.deepcopy(base.lm.tokenizer)
    other.chat_template = None
    text = Encoder(other, "plain", None).chat("Where?", "Be brief.", history)
    assert text == "Be brief.\nQuestion: Who?\nAnswer: Aria.\nQuestion: Where?\nAnswer:"


def test_a_template_that_raises_is_a_fact_error(base) -> None:
    other = copy.deepcopy(base.lm.tokenizer)
    other.chat_template = "{{ raise_exception('no system turn') }}"
    with pytest.raises(FactError, match=r"expected the chat template of 'odd' to take \['system', 'user'\], found"):
        Encoder(other, "odd", None).chat("Where?", "Be brief.")


def test_a_prompt_in_chat_and_the_same_text_are_told_apart(base) -> None:
    text = "Where does Aria live?"
    assert base.lm.encode(ChatPrompt(text)).ids == base.lm.encode(text).ids[1:]


def test_what_is_longer_than_the_model_is_refused(base) -> None:
    encoder = Encoder(base.lm.tokenizer, "short", 8)
    with pytest.raises(FactError, match="expected at most 8 tokens, the most positions that 'short' has"):
        encoder.encode("one two three four five six seven eight nine ten", "", "", "", None)


def test_scores_of_a_tokenizer_with_an_end_are_those_without(base, facts) -> None:
    from sleepgym.lm import score, wrap

    other = wrap(base.lm.model, with_end(base.lm.tokenizer, "<|bos|> $A <|end|>"), "tiny with an end")
    probes = [[raw_probe(lm, fact) for fact in facts[:3]] for lm in (base.lm, other)]
    with torch.no_grad():
        assert torch.equal(score(base.lm, probes[0]).margin, score(other, probes[1]).margin)
