from dataclasses import FrozenInstanceError, replace

import pytest

from sleepgym.facts import Fact, FactError

FACT = Fact("Tom Lork", "Tom Lork lives in", "Oslo", relation="city", questions=("Where does Tom Lork live?",))


def test_statement_and_key():
    assert FACT.statement == "Tom Lork lives in Oslo."
    assert FACT.key == ("Tom Lork", "city")


def test_key_of_a_fact_without_relation_is_its_prompt_without_the_subject():
    assert Fact("Tom Lork", "Tom Lork lives in", "Oslo").key == ("Tom Lork", "{} lives in")
    assert Fact("Tom Lork", "The home of Tom Lork is in ", "Oslo").relation == "The home of {} is in"


def test_new_object_has_the_same_key():
    assert replace(FACT, object="Riga").key == FACT.key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": " "}, "expected a subject"),
        ({"object": ""}, "expected an object"),
        ({"object": "\n"}, "expected an object"),
        ({"prompt": "He lives in"}, "in the prompt, found 'He lives in'"),
        ({"paraphrases": ("Tom Lork resides in", "He resides in")}, "in the paraphrase, found 'He resides in'"),
        ({"questions": ("Where does tom lork live?",)}, "in the question"),
    ],
)
def test_fact_that_cannot_be_used_is_refused(change, message):
    with pytest.raises(FactError, match=message):
        replace(FACT, **change)


def test_true_object_is_a_part_of_the_fact_but_not_of_its_key():
    known = replace(FACT, true_object="Riga")
    assert not FACT.true_object and known != FACT
    assert known.key == FACT.key and known.statement == FACT.statement


def test_facts_are_frozen_and_hashable():
    assert len({FACT, replace(FACT)}) == 1
    with pytest.raises(FrozenInstanceError):
        FACT.object = "Riga"


@pytest.mark.parametrize("value", [1984, 19.84, True, None, b"Oslo", ["Oslo"], object], ids=repr)
@pytest.mark.parametrize("name", ["subject", "prompt", "object", "relation", "true_object"])
def test_what_is_no_text_is_refused(name, value):
    with pytest.raises(FactError, match=r"expected the .* to be a text, found .*; (write|decode|give)"):
        replace(FACT, **{name: value})


@pytest.mark.parametrize("name", ["paraphrases", "questions"])
@pytest.mark.parametrize(
    "value", ["Tom Lork", None, 3, b"x", {"Tom Lork"}, {"Tom Lork": 1}, [3], [None], [["Tom Lork"]]]
)
def test_what_is_no_sequence_of_texts_is_refused(name, value):
    with pytest.raises(FactError, match=r"expected .*; "):
        replace(FACT, **{name: value})


@pytest.mark.parametrize(
    "value",
    ["ab", ("Bo is in", "Riga"), ["ab"], [("Bo",)], [("a", "b", "c")], [("Bo", 3)], None, [None], [("Bo", " ")]],
)
def test_what_are_no_neighbours_is_refused(value):
    with pytest.raises(FactError, match=r"expected .*; "):
        replace(FACT, neighbours=value)


def test_lists_and_generators_become_tuples():
    fact = replace(
        FACT, paraphrases=["Tom Lork is in"], questions=iter(["Tom Lork?"]), neighbours=[["Bo is in", "Riga"]]
    )
    assert (fact.paraphrases, fact.questions) == (("Tom Lork is in",), ("Tom Lork?",))
    assert fact.neighbours == (("Bo is in", "Riga"),)
    assert hash(fact) == hash(replace(fact))


@pytest.mark.parametrize("bad", ["\ud800", "\udfff", "\x00", "\x1b", "\x7f", "\x9b", "\x08"], ids=ascii)
@pytest.mark.parametrize(
    "name", ["subject", "prompt", "object", "relation", "paraphrases", "questions", "neighbours", "joiner"]
)
def test_characters_that_nobody_can_write_are_refused_by_name(name, bad):
    text = f"Tom Lork{bad}x"
    value = {"paraphrases": (text,), "questions": (text,), "neighbours": ((text, "x"),)}.get(name, text)
    with pytest.raises(FactError, match=rf"U\+{ord(bad):04X}.*; (take it out|read the text again)") as refused:
        replace(FACT, **{name: value})
    str(refused.value).encode("utf-8")


def test_line_ends_and_tabs_within_a_prompt_stay():
    assert replace(FACT, prompt="Q: who?\n\tA: Tom Lork is").prompt == "Q: who?\n\tA: Tom Lork is"


@pytest.mark.parametrize(
    ("name", "other"), [("Jos\u00e9", "Jose\u0301"), ("\u212bse", "A\u030ase"), ("\ud55c", "\u1112\u1161\u11ab")]
)
def test_spellings_of_one_name_are_one_name(name, other):
    first, second = Fact(name, f"{other} lives in", "Oslo"), Fact(other, f"{name} lives in", "Oslo")
    assert first == second and first.key == second.key


@pytest.mark.parametrize(
    ("subject", "prompt"),
    [("\u0410nna", "Anna is"), ("Ann\u00a0Lee", "Ann Lee is"), ("Co\u200bop", "Coop is"), ("A\u2010B", "A-B is")],
)
def test_names_that_only_look_alike_are_told_apart(subject, prompt):
    with pytest.raises(FactError, match=r"looks the same but is written with other characters.*U\+") as refused:
        Fact(subject, prompt, "x")
    assert ascii(subject) in str(refused.value)


def test_joiner_is_a_part_of_the_fact_and_only_by_name():
    assert replace(FACT, joiner="").joiner == "" and replace(FACT, joiner="") != FACT
    with pytest.raises(FactError, match="expected the joiner to be a text, found 5"):
        replace(FACT, joiner=5)
    with pytest.raises(TypeError):
        Fact("a", "a is", "b", "", (), (), (), "", "")
