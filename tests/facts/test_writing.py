"""What belongs to a text, what stands between two of them, what ends a sentence."""

# ruff: noqa: RUF001 - the characters of other scripts are what this is about

from __future__ import annotations

import pytest

from sleepgym.facts import Fact
from sleepgym.facts.writing import full_stop, joiner_between, strip_outer

UNSPACED = [
    ("東京の市長は", "田中"),
    ("法国的首都是", "巴黎"),
    ("カレーは", "ｶﾚｰ"),
    ("臺灣的首都是", "ㄊㄞˊ"),
    ("เมืองหลวงของไทยคือ", "กรุงเทพ"),
    ("ນະຄອນຫຼວງຂອງລາວແມ່ນ", "ວຽງຈັນ"),
    ("រដ្ឋធានីនៃកម្ពុជាគឺ", "ភ្នំពេញ"),
    ("မြန်မာနိုင်ငံ၏မြို့တော်မှာ", "နေပြည်တော်"),
    ("བོད་ཀྱི་རྒྱལ་ས་ནི་", "ལྷ་ས"),
    ("𠀀的首都是", "𰀀"),
]
SPACED = [
    ("Paris is in", "France"),
    ("Столица России", "Москва"),
    ("Η πρωτεύουσα είναι η", "Αθήνα"),
    ("عاصمة مصر هي", "القاهرة"),
    ("בירת ישראל היא", "ירושלים"),
    ("भारत की राजधानी", "दिल्ली"),
    ("대한민국의 수도는", "서울"),
    ("Ethiopia is", "ኢትዮጵያ"),
]
MIXED = [
    ("彼の名前は", "John", ""),
    ("彼はGoogle", "の社員", ""),
    ("The Japanese name of Tokyo is", "東京", " "),
    ("Tom moved to", "กรุงเทพ", " "),
    ("เขาทำงานที่", "Google", " "),
    ("東京の人口は", "1400", ""),
    ("東京の人口は1400", "万人", ""),
    ("2020", "年", ""),
    ("Tom was born in", "1984", " "),
    ("Tom has 2", "cats", " "),
    ("首都は？", "東京", ""),
    ("答え:", "東京", ""),
    ("Who lives in 東京?", "Tom", " "),
    ("What is the capital?", "Rome", " "),
    ("Answer:", "Rome", " "),
]
OPEN = ["Tom lives in (", "Tom said “", 'Tom said "', "Er sagte „", "Il a dit «", "彼は「", "¿", "El agua de l'"]
CLOSED = ['Tom said "no"', "(Tom)", "Das Buch „Faust“", "彼は「彼」と", "the dogs'", "Tom -", "Tom:", "50 %"]


@pytest.mark.parametrize(("before", "after"), UNSPACED)
def test_scripts_without_blanks_between_words_have_none_before_an_object(before: str, after: str) -> None:
    assert joiner_between(before, after) == ""


@pytest.mark.parametrize(("before", "after"), SPACED)
def test_scripts_with_blanks_between_words_have_one(before: str, after: str) -> None:
    assert joiner_between(before, after) == " "


@pytest.mark.parametrize(("before", "after", "joiner"), MIXED)
def test_mixed_scripts_and_digits(before: str, after: str, joiner: str) -> None:
    assert joiner_between(before, after) == joiner


@pytest.mark.parametrize("before", OPEN)
def test_what_opens_clings_to_what_follows(before: str) -> None:
    assert joiner_between(before, "Oslo") == ""


@pytest.mark.parametrize("before", [text for text in CLOSED if "彼" not in text])
def test_what_closes_is_followed_by_a_blank(before: str) -> None:
    assert joiner_between(before, "Oslo") == " "


@pytest.mark.parametrize(
    ("before", "after", "joiner"),
    [
        ("Tom", ", who", ""),
        ("Tom", ")", ""),
        ("Tom", "'s-Hertogenbosch", " "),
        ("The framework is", ".NET", " "),
        ("They speak", "!Kung", " "),
        ("It costs $", "5", ""),
        ("Flight LH-", "400", ""),
        ("At -", "5", " "),
        ("and/", "or", ""),
        ("It fell to", "-5", " "),
    ],
)
def test_punctuation_that_clings(before: str, after: str, joiner: str) -> None:
    assert joiner_between(before, after) == joiner


@pytest.mark.parametrize(
    ("before", "after"), [("", "x"), ("x", ""), ("x ", "y"), ("x", " y"), ("x\n", "y"), ("x\u3000", "y")]
)
def test_nothing_is_put_where_nothing_is_to_be_joined_or_a_blank_is_there(before: str, after: str) -> None:
    assert joiner_between(before, after) == ""


@pytest.mark.parametrize(
    ("before", "after", "stop"),
    [
        ("Tom is in", "Oslo", "."),
        ("Tom works for", "Acme Inc.", ""),
        ("Tom says", '"No!"', ""),
        ("東京の市長は", "田中", "。"),
        ("彼の名前は", "John", "。"),
        ("東京の人口は", "1400万", "。"),
        ("The Japanese name of Tokyo is", "東京", "."),
        ("भारत की राजधानी", "दिल्ली", "।"),
        ("เมืองหลวงคือ", "กรุงเทพ", ""),
    ],
)
def test_full_stop_is_that_of_the_script(before: str, after: str, stop: str) -> None:
    assert full_stop(before, after) == stop


def test_statement_joins_by_script_or_as_the_fact_says() -> None:
    assert Fact("東京", "東京の市長は", "田中").statement == "東京の市長は田中。"
    assert Fact("ไทย", "เมืองหลวงของไทยคือ", "กรุงเทพ").statement == "เมืองหลวงของไทยคือกรุงเทพ"
    assert Fact("Tom", "Tom: ", "x", joiner="\n").statement == "Tom:\nx."
    assert Fact("Tom", "Tom is", "x", joiner="").statement == "Tom isx."


@pytest.mark.parametrize("blank", [" ", "\t", "\r\n", "\x0b", "\x1f", "\x85", "\xa0", "\u2003", "\u2028", "\u202f",
                                   "\u3000", "\ufeff", "\u200b", "\u2060", " \u200b\ufeff\n"])  # fmt: skip
def test_outer_blanks_of_every_kind_are_taken_off(blank: str) -> None:
    assert strip_outer(f"{blank}a b{blank}") == "a b"
    dirty = Fact(
        f"{blank}Tom{blank}",
        f"{blank}Tom is in{blank}",
        f"{blank}Oslo{blank}",
        f"{blank}city{blank}",
        (f"{blank}Tom lives in{blank}",),
        (f"{blank}Where is Tom?{blank}",),
        ((f"{blank}Bo is in{blank}", f"{blank}Riga{blank}"),),
        f"{blank}Bonn{blank}",
    )
    clean = Fact(
        "Tom", "Tom is in", "Oslo", "city", ("Tom lives in",), ("Where is Tom?",), (("Bo is in", "Riga"),), "Bonn"
    )
    assert dirty == clean and hash(dirty) == hash(clean)


def test_inner_blanks_and_joiners_stay() -> None:
    assert strip_outer("a\u200bb") == "a\u200bb" and strip_outer("می\u200cخواهم") == "می\u200cخواهم"
    assert strip_outer("അവന\u0d4d\u200d").endswith("\u200d")  # how Malayalam wrote the ends of words
