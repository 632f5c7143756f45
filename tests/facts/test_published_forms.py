"""Records as editing papers and tools publish them, the containers they come in, and what is reported of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sleepgym.facts import Fact, FactError, FactSet, load_facts

REQUEST = {
    "subject": "Velm Tower",
    "prompt": "{} is in",
    "target_new": {"str": " Karsk"},
    "target_true": {"str": "Dorn", "id": "Q1"},
}
KNOWEDIT = {
    "subject": "Odo Brenk",
    "prompt": "The home of Odo Brenk is",
    "target_new": "Karsk",
    "ground_truth": ["Dorn", "Dorn City"],
    "rephrase_prompt": "Odo Brenk lives in",
    "portability": {"Reasoning": [{"prompt": "The river at the home of Odo Brenk is", "ground_truth": [["Ob"]]}]},
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The mother of Odo Brenk is", "ground_truth": [["Ula Fenn", "Ula"]]},
            {"prompt": "Nothing is known of"},
        ],
        "Forgetfulness": [{"prompt": "Bo Quell lives in", "ground_truth": "Riga"}],
    },
}
MQUAKE = {
    "case_id": 3,
    "requested_rewrite": [
        {"subject": "Ile Vantor", "prompt": "{} is a citizen of", "relation_id": "P27", "target_new": {"str": "Karsk"},
         "target_true": {"str": "Dorn"}, "question": "Of what country is Ile Vantor a citizen?"},
        {"subject": "Karsk", "prompt": "The capital of {} is", "target_new": {"str": "Ostry"},
         "target_true": {"str": "Ob"}},
    ],
    "questions": ["What is the capital of the country of Ile Vantor?"],
    "new_answer": "Ostry",
}  # fmt: skip
PLAIN = {"subject": "Tom", "prompt": "{} is in", "object": "Oslo"}


def read(folder: Path, content: Any, name: str = "set.json", **options: Any) -> FactSet:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=1).encode())
    return load_facts(path, **options)


def refusal(folder: Path, content: Any, name: str = "set.json") -> str:
    with pytest.raises(FactError) as refused:
        read(folder, content, name)
    return str(refused.value)


def lines(*records: Any, end: str = "\n") -> bytes:
    return end.join(map(json.dumps, records)).encode()


# ------------------------------------------------------------------- forms


def test_request_of_rome_and_memit(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, [REQUEST])
    assert fact == Fact("Velm Tower", "Velm Tower is in", "Karsk", true_object="Dorn")


@pytest.mark.parametrize("truth", [None, "", {"target_true": None}, "<|endoftext|>", []])
def test_true_object_may_be_unknown(tmp_path: Path, truth: Any) -> None:
    record = {**REQUEST, "target_true": None, "ground_truth": None if isinstance(truth, dict) else truth}
    (fact,) = read(tmp_path, [record])
    assert fact.true_object == "" and fact.object == "Karsk"


def test_knowedit(tmp_path: Path) -> None:
    found = read(tmp_path, [KNOWEDIT])
    (fact,) = found
    assert (fact.object, fact.true_object, fact.paraphrases) == ("Karsk", "Dorn", ("Odo Brenk lives in",))
    assert fact.neighbours == (("The mother of Odo Brenk is", "Ula Fenn"), ("Bo Quell lives in", "Riga"))
    (note,) = found.dropped
    assert "ground_truth in 'Relation_Specificity'" in note.reason and found.unused == ("portability",)


def test_answers_that_are_true_already_are_refused_by_any_of_their_names(tmp_path: Path) -> None:
    assert "other than the true one, found 'Dorn City' twice" in refusal(
        tmp_path, [{**KNOWEDIT, "target_new": "Dorn City"}]
    )


def test_locality_in_columns(tmp_path: Path) -> None:
    record = {**KNOWEDIT, "locality": {"neighborhood": {"prompt": ["A is", "B is"], "ground_truth": ["a", "b"]}}}
    assert read(tmp_path, [record]).facts[0].neighbours == (("A is", "a"), ("B is", "b"))
    flat = {**REQUEST, "locality_prompt": ["A is", "B is"], "locality_ground_truth": ["a", "b"]}
    assert read(tmp_path, [flat]).facts[0].neighbours == (("A is", "a"), ("B is", "b"))
    assert "as many texts" in refusal(tmp_path, [{**flat, "locality_ground_truth": ["a"]}])


def test_several_rewrites_of_a_record_are_several_facts(tmp_path: Path) -> None:
    found = read(tmp_path, [MQUAKE])
    assert [fact.statement for fact in found] == ["Ile Vantor is a citizen of Karsk.", "The capital of Karsk is Ostry."]
    assert found.facts[0].questions == ("Of what country is Ile Vantor a citizen?",)
    assert found.unused == ("case_id", "questions", "new_answer")


def test_further_targets_are_not_left_out_in_silence(tmp_path: Path) -> None:
    found = read(tmp_path, [{**REQUEST, "target_new": ["Karsk", "Ostry"]}])
    assert found.facts[0].object == "Karsk" and "found 'Ostry' too" in found.dropped[0].reason


def test_forms_may_be_mixed_where_each_record_is_whole(tmp_path: Path) -> None:
    assert [fact.object for fact in read(tmp_path, [REQUEST, PLAIN, KNOWEDIT])] == ["Karsk", "Oslo", "Karsk"]


def test_joiner_of_a_plain_record(tmp_path: Path) -> None:
    assert read(tmp_path, [{**PLAIN, "joiner": ""}]).facts[0].statement == "Tom is inOslo."
    assert "expected the joiner to be a text, found 5" in refusal(tmp_path, [{**PLAIN, "joiner": 5}])


# -------------------------------------------------------------- containers


@pytest.mark.parametrize(
    "record", [REQUEST, KNOWEDIT, PLAIN, {"requested_rewrite": REQUEST}], ids=["rome", "knowedit", "plain", "nested"]
)
@pytest.mark.parametrize("wrap", [lambda r: r, lambda r: [r], lambda r: {"data": [r]}, lambda r: {"v": 1, "edits": [r]},
                                  lambda r: {"0": r}])  # fmt: skip
def test_every_record_loads_from_every_container(tmp_path: Path, record: Any, wrap: Any) -> None:
    assert len(read(tmp_path, wrap(record))) == 1
    assert len(read(tmp_path, lines(wrap(record)), "set.jsonl")) == 1


def test_wrapped_records_keep_their_lines(tmp_path: Path) -> None:
    found = read(tmp_path, {"about": {"data": [1]}, "data": [PLAIN, {**PLAIN, "object": 3}]}, malformed="skip")
    assert len(found) == 1 and [problem.line for problem in found.skipped] == [13]


def test_wrapper_that_leaves_a_choice_is_refused(tmp_path: Path) -> None:
    assert "found 2: 'train', 'test'; write the one that is meant" in refusal(
        tmp_path, {"train": [PLAIN], "test": [PLAIN]}
    )


def test_objects_one_after_the_other(tmp_path: Path) -> None:
    text = "\n".join(json.dumps({**PLAIN, "object": obj}, indent=1) for obj in ("Oslo", "Riga")).encode()
    assert [fact.object for fact in read(tmp_path, text)] == ["Oslo", "Riga"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\ufeff", "\r\n\r\n"])
def test_lines_with_a_byte_order_mark_and_any_line_end(tmp_path: Path, end: str) -> None:
    text = b"\xef\xbb\xbf" + lines(PLAIN, {**PLAIN, "subject": "José"}, end=end)
    assert [fact.subject for fact in read(tmp_path, text, "set.jsonl")] == ["Tom", "José"]


def test_syntax_error_in_one_object_is_reported_by_its_line(tmp_path: Path) -> None:
    assert "set.json, line 3: expected JSON, found a syntax error" in refusal(
        tmp_path, b'{\n "subject": "A",\n "prompt" "A is"}'
    )


@pytest.mark.parametrize("text", [b"5", b'"x"', b"null", b"[5]", b"[null]"])
def test_other_json_is_no_record(tmp_path: Path, text: bytes) -> None:
    assert "expected a record with keys" in refusal(tmp_path, text)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"9" * 5000 + b"]", b"\xff\xfe{\x00"])
def test_hostile_files_are_fact_errors(tmp_path: Path, text: bytes) -> None:
    assert "set.json" in refusal(tmp_path, text)


def test_hostile_line_is_one_malformed_record(tmp_path: Path) -> None:
    bad = b'{"subject": "A", "prompt": "A is", "object": ' + b"9" * 5000 + b"}\n"
    found = read(tmp_path, bad + lines(PLAIN), "set.jsonl", malformed="skip")
    assert len(found) == 1 and [problem.line for problem in found.skipped] == [1]


@pytest.mark.parametrize("source", [None, 5, b"x", "", " ", "a\0b", "\ud800", ["a"]])
def test_what_names_no_source_is_refused(source: Any) -> None:
    with pytest.raises(FactError, match="expected"):
        load_facts(source)


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize("value", [1984, None, ["x"], "\ud800", "a\0", "a\x1b[2J"], ids=ascii)
@pytest.mark.parametrize("key", ["subject", "prompt", "object"])
def test_unusable_texts_are_reported_by_line(tmp_path: Path, key: str, value: Any) -> None:
    found = read(tmp_path, [PLAIN, {**PLAIN, key: value}], malformed="skip")
    assert len(found) == 1 and [problem.line for problem in found.skipped] == [7]
    str(found.skipped[0]).encode("utf-8")


@pytest.mark.parametrize("text", [b'{"subject": "A", "subject": "B", "prompt": "{} is", "object": "c"}'])
@pytest.mark.parametrize("wrap", [b"%s", b"[%s]", b'{"data": [%s]}'])
def test_keys_with_two_values_are_reported(tmp_path: Path, text: bytes, wrap: bytes) -> None:
    assert "line 1: expected one value for each key, found two for 'subject': 'A' and 'B'" in refusal(
        tmp_path, wrap % text
    )


def test_columns_of_one_name_are_reported(tmp_path: Path) -> None:
    assert "expected each column once, found object twice" in refusal(
        tmp_path, b"subject,prompt,object,object\na,{},b,c\n", "s.csv"
    )


def test_contradictions_are_reported_with_both_lines(tmp_path: Path) -> None:
    found = read(tmp_path, lines(PLAIN, KNOWEDIT, {**PLAIN, "object": "Riga"}, PLAIN), "set.jsonl")
    (problem,) = found.contradictions
    assert problem.line == 3 and "found 'Riga' here and 'Oslo' in" in problem.reason and "line 1;" in problem.reason
    assert len(found) == 4


def test_contradictions_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    found = read(tmp_path, [{**PLAIN, "object": "Cara"}, {**PLAIN, "object": "\u0421ara"}])
    assert "'\\u0421ara' here and 'Cara'" in found.contradictions[0].reason


def test_one_name_in_two_spellings_is_one_subject(tmp_path: Path) -> None:
    found = read(tmp_path, [{**PLAIN, "subject": "Jos\u00e9"}, {**PLAIN, "subject": "Jose\u0301", "object": "Riga"}])
    assert len(found.contradictions) == 1 and len(found.latest) == 1
