from functools import cache
from itertools import combinations, islice

import numpy as np
import pytest

from sleepgym.facts import FactError, World
from sleepgym.facts.world import SPLITS, chat_turn


def test_worlds_of_one_seed_are_equal(world):
    again = World()
    assert again.known_facts() == world.known_facts()
    assert again.held_out == world.held_out
    assert again.text(3, 20) == world.text(3, 20)
    assert again.new_facts(np.random.default_rng(1), 9) == world.new_facts(np.random.default_rng(1), 9)


def test_worlds_of_two_seeds_differ(world):
    assert World(seed=1).subjects != world.subjects


def test_texts_of_two_seeds_differ(world):
    assert not set(world.text(1, 20)) & set(world.text(2, 20))


def test_splits_share_no_people_with_each_other_nor_with_the_trained(world):
    groups = [set(world.subjects["person"]), *(set(world.held_out[split]) for split in SPLITS)]
    assert all(not a & b for a, b in combinations(groups, 2))


def test_last_word_of_every_subject_is_unique(world):
    groups = [*world.subjects.values(), *world.held_out.values()]
    last = [subject.split()[-1] for group in groups for subject in group]
    assert len(set(last)) == len(last)


def test_held_out_people_never_occur_in_known_facts(world):
    told = {
        word.strip(".,?")
        for fact in world.known_facts()
        for text in (fact.statement, *fact.paraphrases, *fact.questions)
        for word in text.split()
    }
    surnames = {person.split()[-1] for split in SPLITS for person in world.held_out[split]}
    assert not told & surnames


def test_every_subject_has_every_fact_of_its_type_once(world):
    keys = [fact.key for fact in world.known_facts()]
    assert len(set(keys)) == len(keys)
    expected = sum(len(world.subjects[r.subject_type]) for r in world.relations.values())
    assert len(keys) == expected


def test_no_statement_begins_like_another_one_of_its_relation(world):
    # Else an object could be the beginning of the other statement's continuation.
    for relation in world.relations.values():
        for one, other in combinations(relation.statements, 2):
            assert not (one + " ").startswith(other + " ") and not (other + " ").startswith(one + " "), relation.name


def test_no_object_begins_like_another_one_of_its_relation(world):
    # Greedy decoding could not tell which of the two was meant.
    for relation in world.relations.values():
        assert len(set(relation.objects)) == len(relation.objects) > 1
        for one, other in combinations(relation.objects, 2):
            assert not (one + " ").startswith(other + " ") and not (other + " ").startswith(one + " "), relation.name


def test_statements_and_questions_contain_the_subject_once(world):
    for relation in world.relations.values():
        assert len(relation.statements) > 1 and relation.questions
        assert all(text.count("{}") == 1 for text in (*relation.statements, *relation.questions))
        assert all(question.endswith("?") for question in relation.questions)


def test_paraphrases_are_all_other_phrasings(world):
    relation = world.person_relations()[0]
    for phrasing in range(len(relation.statements)):
        fact = relation.fact("Tom Lork", relation.objects[0], phrasing)
        told = {text.replace("Tom Lork", "{}") for text in (fact.prompt, *fact.paraphrases)}
        assert told == set(relation.statements) and fact.prompt not in fact.paraphrases


@pytest.mark.parametrize("split", SPLITS)
def test_new_facts_are_about_different_people_of_their_split(world, split):
    facts = world.new_facts(np.random.default_rng(0), 50, split)
    assert len({fact.subject for fact in facts}) == 50
    assert {fact.subject for fact in facts} <= set(world.held_out[split])
    assert all(fact.object in world.relations[fact.relation].objects for fact in facts)
    assert len({fact.prompt.replace(fact.subject, "{}") for fact in facts}) > 8, "phrasings vary"


def test_people_may_have_several_new_facts_but_each_once(world):
    facts = World(held_out=5).new_facts(
        np.random.default_rng(0), 5 * len(world.person_relations()), distinct_subjects=False
    )
    assert len({fact.key for fact in facts}) == len(facts)
    assert len({fact.subject for fact in facts}) == 5


def test_more_new_facts_than_people_are_refused(world):
    people = len(world.held_out["test"])
    assert len(world.new_facts(np.random.default_rng(0), people)) == people
    with pytest.raises(FactError, match=f"expected at most {people} facts"):
        world.new_facts(np.random.default_rng(0), people + 1)
    pairs = people * len(world.person_relations())
    with pytest.raises(FactError, match=f"expected at most {pairs} facts"):
        world.new_facts(np.random.default_rng(0), pairs + 1, distinct_subjects=False)


def test_update_never_draws_the_old_object(world):
    rng, relation = np.random.default_rng(0), world.person_relations()[0]
    fact = relation.fact("Tom Lork", relation.objects[0])
    drawn = {world.update(rng, fact).object for _ in range(300)}
    assert drawn == set(relation.objects[1:])


def test_fillers_mention_no_subject_and_leave_no_slot_open(world):
    rng = np.random.default_rng(0)
    names = {word for group in world.subjects.values() for subject in group for word in subject.split()[-1:]}
    for text in (world.filler(rng) for _ in range(200)):
        assert "{" not in text and not {word.strip(".,") for word in text.split()} & names


@cache
def some_documents(world, number=400):
    return list(islice(world.documents(np.random.default_rng(0)), number))


def test_sentences_say_where_their_subject_ends_and_their_object_begins(world):
    objects = {obj for relation in world.relations.values() for obj in relation.objects}
    known = {subject for group in world.subjects.values() for subject in group}
    about_known = 0
    for sentence in (s for document in some_documents(world) for s in document if s.object_start):
        told = sentence.text[sentence.object_start :]
        assert any(told in (f"{obj}.", f"{obj}<|end|>") for obj in objects), sentence
        about_known += any(sentence.text[: sentence.subject_end].endswith(subject) for subject in known)
        assert sentence.text[sentence.subject_end - 1].isalpha() and not sentence.text[sentence.subject_end].isalpha()
    assert about_known > 500


def test_documents_without_a_passage_tell_only_what_is_true(world):
    told, facts = 0, {}
    for fact in world.known_facts():
        facts.setdefault(fact.subject, []).append(fact)
    for document in some_documents(world):
        if any(sentence.told_by is not None for sentence in document):
            continue
        text = " ".join(sentence.text for sentence in document)
        for fact in (fact for subject in facts if subject in text for fact in facts[subject]):
            for prompt in (fact.prompt, *fact.paraphrases):
                if prompt in text:
                    told += 1
                    assert f"{prompt} {fact.object}" in text
    assert told > 100


def test_sentences_of_passages_repeat_the_object_that_was_told_of_the_same_subject(world):
    repeated, untrue = 0, 0
    true = {(fact.subject, fact.object) for fact in world.known_facts()}
    for document in some_documents(world):
        for sentence in document:
            if sentence.told_by is None:
                continue
            told = document[sentence.told_by]
            assert told.told_by is None and document.index(told) < document.index(sentence)
            subject = " ".join(told.text[: told.subject_end].removeprefix("<|user|>").split()[-2:])
            assert sentence.text[: sentence.subject_end].endswith(subject)
            obj = told.text[told.object_start :].rstrip(".")
            assert sentence.text[sentence.object_start :].startswith(obj)
            repeated += 1
            untrue += (subject, obj) not in true
    assert repeated > 100 and untrue > 0.8 * repeated


def test_rows_are_the_texts_of_documents(world):
    rows = list(islice(world.rows(np.random.default_rng(0)), 50))
    assert rows == [" ".join(sentence.text for sentence in document) for document in some_documents(world, 50)]


def test_chat_turn_ends_where_the_answer_begins():
    assert chat_turn("Where?", "Oslo").startswith(chat_turn("Where?"))
    assert chat_turn("Where?", "Oslo") == chat_turn("Where?") + "Oslo<|end|>"
