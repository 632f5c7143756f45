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
