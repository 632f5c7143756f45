"""Loaders of data sets: every form becomes the one fact type, and nothing is lost without a word."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from sleepgym.facts import Fact, FactError, load_facts
from sleepgym.facts.real import RealFacts
from sleepgym.facts.rows import Form

NESTED: dict[str, Any] = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "Frisian", "id": "Q1"},
        "target_true": {"str": "Basque", "id": "Q2"},
        "subject": "Odo Brenk",
    },
    "paraphrase_prompts": ["It rained. Odo Brenk, a native speaker of", "Nobody was hurt."],
    "neighborhood_prompts": ["Ile Vantor is a native speaker of", "The language of Bo Quell is"],
    "attribute_prompts": ["Ula Fenn speaks"],
    "generation_prompts": ["Odo Brenk lives in"],
}
FLAT = {
    "case_id": 8,
    "prompt": "What is the twin city of Velm? It is",
    "target_new": "Karsk",
    "subject": "Velm",
    "ground_truth": "Dorn",
    "rephrase_prompt": "People in Velm's twin city live in",
    "locality_prompt": "The twin city of Ostry is",
    "locality_ground_truth": "Dorn",
}
ZSRE = {
    "subject": "Ile Vantor",
    "src": "What university did Ile Vantor attend?",
    "pred": "Karsk College",
    "rephrase": "Which university was attended by Ile Vantor?",
    "alt": "University of Velm",
    "answers": ["Dorn Institute"],
    "loc": "nq question: who wrote the song of the marsh",
    "loc_ans": "Bo Quell",
    "cond": "Karsk College >> University of Velm || What university did Ile Vantor attend?",
}
PLAIN = {
    "subject": "Tom Lork",
    "prompt": "{} lives in",
    "object": "Oslo",
    "relation": "city",
    "paraphrases": ["The home of {}, as they say, is"],
    "question": "Where does Tom Lork live?",
    "neighbours": [["Bo Quell lives in", "Riga"], {"prompt": "Ula Fenn lives in", "object": "Bonn"}],
    "true_object": "Riga",
}
RELATION: dict[str, Any] = {
    "name": "capital",
    "prompt_templates": ["The capital of {} is"],
    "prompt_templates_zs": ["The capital of {} is", "The seat of power in {} is"],
    "samples": [{"subject": "Aland", "object": "Ava"}, {"subject": "Bland ", "object": "Bova"}],
}
PLAIN_FACT = Fact(
    subject="Tom Lork",
    prompt="Tom Lork lives in",
    object="Oslo",
    relation="city",
    paraphrases=("The home of Tom Lork, as they say, is",),
    questions=("Where does Tom Lork live?",),
    neighbours=(("Bo Quell lives in", "Riga"), ("Ula Fenn lives in", "Bonn")),
    true_object="Riga",
)


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1), encoding="utf-8")
    return path


def write_csv(path: Path, records: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(records[0]))
        writer.writeheader()
        for record in records:
            writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in record.items()})
    return path


def only(facts: Any) -> Fact:
    (fact,) = facts
    return fact


# ------------------------------------------------------------------- forms


def test_counterfact_as_published(tmp_path: Path) -> None:
    fact = only(load_facts(write(tmp_path / "set.json", [NESTED])))
    assert fact.statement == "The mother tongue of Odo Brenk is Frisian."
    assert fact.key == ("Odo Brenk", "P103")
    assert fact.paraphrases == ("It rained. Odo Brenk, a native speaker of",)
    assert fact.true_object == "Basque"
    assert fact.neighbours == (
        ("Ile Vantor is a native speaker of", "Basque"),
        ("The language of Bo Quell is", "Basque"),
    )


def test_flat_counterfact(tmp_path: Path) -> None:
    fact = only(load_facts(write(tmp_path / "set.json", [FLAT])))
    assert fact.statement == "What is the twin city of Velm? It is Karsk."
    assert fact.key == ("Velm", "What is the twin city of {}? It is")
    assert fact.paraphrases == ("People in Velm's twin city live in",)
    assert (fact.true_object, fact.neighbours) == ("Dorn", (("The twin city of Ostry is", "Dorn"),))


def test_both_counterfact_forms_may_be_mixed(tmp_path: Path) -> None:
    assert [f.subject for f in load_facts(write(tmp_path / "set.json", [NESTED, FLAT]))] == ["Odo Brenk", "Velm"]


def test_zsre_teaches_the_changed_answer_right_after_the_question(tmp_path: Path) -> None:
    fact = only(load_facts(write(tmp_path / "set.json", [ZSRE])))
    assert fact.prompt == "What university did Ile Vantor attend?" == only(fact.questions)
    assert (fact.object, fact.true_object) == ("University of Velm", "Dorn Institute")
    assert fact.key == ("Ile Vantor", "What university did {} attend?")
    assert fact.paraphrases == ("Which university was attended by Ile Vantor?",)
    assert fact.neighbours == (("nq question: who wrote the song of the marsh?", "Bo Quell"),)


@pytest.mark.parametrize("form", ["relations", None])
def test_relation_files_hold_true_facts(tmp_path: Path, form: Form | None) -> None:
    file = write(tmp_path / "capital.json", RELATION)
    facts = load_facts(file, form)
    assert list(facts) == RealFacts.from_relations([file]).known_facts()
    assert [f.statement for f in facts] == ["The capital of Aland is Ava.", "The capital of Bland is Bova."]
    assert facts.facts[0].paraphrases == ("The seat of power in Aland is",)
    assert all(f.relation == "capital" and not f.true_object for f in facts)


def test_folder_of_relation_files_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in "ba":
        write(tmp_path / f"{name}.json", RELATION)
    assert [f.relation for f in load_facts(tmp_path)] == ["a", "a", "b", "b"]


def test_plain_records_in_json_lines(tmp_path: Path) -> None:
    text = json.dumps(PLAIN) + "\r\n\n" + json.dumps({**PLAIN, "subject": "Ann", "question": None}) + "\n"
    facts = load_facts(write(tmp_path / "set.jsonl", text))
    assert facts.facts[0] == PLAIN_FACT
    assert facts.facts[1].prompt == "Ann lives in"


def test_unusual_separators_within_a_text_do_not_end_a_line(tmp_path: Path) -> None:
    record = json.dumps({**PLAIN, "object": "Os\u2028lo"}, ensure_ascii=False)
    assert only(load_facts(write(tmp_path / "set.jsonl", record))).object == "Os\u2028lo"


def test_plain_records_in_csv_with_commas_quotes_and_newlines(tmp_path: Path) -> None:
    odd = {**PLAIN, "object": 'Oslo, "the\nfjord"', "paraphrases": "Home to {}, of all,\npeople, is", "relation": ""}
    neighbours = [["Bo Quell lives in", "Riga"]]
    path = write_csv(tmp_path / "set.csv", [{**r, "neighbours": neighbours} for r in (PLAIN, odd)])
    first, second = load_facts(path)
    assert first.key == PLAIN_FACT.key and first.paraphrases == PLAIN_FACT.paraphrases
    assert first.neighbours == second.neighbours == (("Bo Quell lives in", "Riga"),)
    assert second.object == 'Oslo, "the\nfjord"'
    assert second.paraphrases == ("Home to Tom Lork, of all,\npeople, is",)
    assert second.relation == "{} lives in"


def test_required_columns_are_enough(tmp_path: Path) -> None:
    text = "\ufeffsubject,prompt,object\r\nTom Lork,{} lives in,Oslo\r\n"
    assert only(load_facts(write(tmp_path / "set.csv", text))) == Fact("Tom Lork", "Tom Lork lives in", "Oslo")


def test_identity_is_the_same_in_every_container(tmp_path: Path) -> None:
    record = {**PLAIN, "neighbours": [list(pair) for pair in PLAIN_FACT.neighbours]}
    paths = [
        write(tmp_path / "a.json", [record]),
        write(tmp_path / "b.jsonl", json.dumps(record)),
        write_csv(tmp_path / "c.csv", [record]),
    ]
    assert {only(load_facts(path)) for path in paths} == {PLAIN_FACT}


def test_braces_other_than_the_slot_mean_themselves(tmp_path: Path) -> None:
    record = {"subject": "Tom", "prompt": "In {set} notation, {} is", "object": "{x}"}
    assert only(load_facts(write(tmp_path / "set.json", [record]))).statement == "In {set} notation, Tom is {x}."


# --------------------------------------------------------------- detection


@pytest.mark.parametrize("record", [NESTED, FLAT, ZSRE, PLAIN], ids=["nested", "flat", "zsre", "plain"])
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_form_is_told_by_the_first_record(tmp_path: Path, record: dict[str, Any], suffix: str) -> None:
    text = json.dumps([record] if suffix == "json" else record)
    assert len(load_facts(write(tmp_path / f"set.{suffix}", text))) == 1


def test_named_form_overrules_the_suffix(tmp_path: Path) -> None:
    text = write_csv(tmp_path / "set.csv", [{"subject": "Tom", "prompt": "{} is", "object": "tall"}]).read_text()
    assert only(load_facts(write(tmp_path / "set.txt", text), "csv")).object == "tall"
    assert only(load_facts(write(tmp_path / "set.data", json.dumps(ZSRE)), "zsre")).object == "University of Velm"


def test_unknown_form_names_those_understood_and_the_keys_found(tmp_path: Path) -> None:
    path = write(tmp_path / "set.json", [{"question": "Who?", "answer": "Me"}])
    for malformed in ("raise", "skip"):
        with pytest.raises(FactError, match=r"set\.json, line 2: .*counterfact.*zsre.*plain.*question, answer"):
            load_facts(path, malformed=malformed)


def test_arguments_outside_their_choices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FactError, match=", ".join(get_args(Form))):
        load_facts(tmp_path, form="xml")
    with pytest.raises(FactError, match="'raise' or 'skip'"):
        load_facts(tmp_path, malformed="ignore")


# --------------------------------------------------------------- malformed


def changed(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {k: v for k, v in {**record, **changes}.items() if v is not ...}


REWRITE = {**NESTED["requested_rewrite"], "target_true": {}}
MALFORMED: list[tuple[dict[str, Any], Any, str]] = [
    (
        FLAT,
        changed(FLAT, target_new=...),
        "case 8: expected a text in 'target_new', found only the keys case_id, prompt",
    ),
    (FLAT, changed(FLAT, target_new=" "), "expected a text in 'target_new', found ' '"),
    (FLAT, changed(FLAT, target_new=3), "expected a text in 'target_new', found 3"),
    (FLAT, changed(FLAT, subject="Ostry"), "expected the subject 'Ostry' in the prompt"),
    (FLAT, changed(FLAT, target_new="Dorn"), "other than the true one, found 'Dorn' twice"),
    (FLAT, changed(FLAT, locality_ground_truth=...), "expected a text in 'locality_ground_truth'"),
    (FLAT, changed(FLAT, rephrase_prompt=[1]), "expected a list of texts in 'rephrase_prompt'"),
    (NESTED, changed(NESTED, requested_rewrite="x"), "case 7: expected an object with keys in 'requested_rewrite'"),
    (NESTED, changed(NESTED, requested_rewrite=REWRITE), r"expected a text in 'str', found only the keys \(none\)"),
    (ZSRE, changed(ZSRE, answers=[]), "expected a list of true answers"),
    (ZSRE, changed(ZSRE, alt=...), "expected a text in 'alt'"),
    (PLAIN, changed(PLAIN, object=""), "expected a text in 'object'"),
    (PLAIN, changed(PLAIN, neighbours=[["alone"]]), r"pairs of texts in 'neighbours', found \['alone'\]"),
    (PLAIN, changed(PLAIN, neighbours="x"), r"expected a list of \[prompt, object\] pairs in 'neighbours', found 'x'"),
    (PLAIN, "text", "expected a record with keys, found 'text'"),
]


@pytest.mark.parametrize(("good", "bad", "message"), MALFORMED)
def test_malformed_record_is_reported_by_line(tmp_path: Path, good: dict[str, Any], bad: Any, message: str) -> None:
    lines = [json.dumps(record) for record in (good, bad, good)]
    for name, text in (("set.json", "[\n" + ",\n\n".join(lines) + "]"), ("set.jsonl", "\n\n\n".join(lines))):
        path = write(tmp_path / name, text)
        with pytest.raises(FactError, match=rf"set\.jsonl?, line 4: .*{message}"):
            load_facts(path)
        facts = load_facts(path, malformed="skip")
        assert len(facts) == 2
        assert [(m.source, m.line) for m in facts.skipped] == [(str(path), 4)]


def test_syntax_error_in_an_array_is_reported_by_line_even_when_skipping(tmp_path: Path) -> None:
    path = write(tmp_path / "set.json", "[\n" + json.dumps(FLAT) + ",\n{'subject'}\n]")
    with pytest.raises(FactError, match=r"set\.json, line 3: expected JSON"):
        load_facts(path, malformed="skip")


@pytest.mark.parametrize("text", ["[{}] x", "[{} {}]", "[{},]", "[{}", "["])
def test_broken_array_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FactError, match=r"set\.json, line 1: expected JSON"):
        load_facts(write(tmp_path / "set.json", text))


def test_broken_line_is_one_malformed_record(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", '{"subject": \n' + json.dumps(PLAIN))
    with pytest.raises(FactError, match=r"line 1: expected JSON, found a syntax error in column"):
        load_facts(path)
    facts = load_facts(path, malformed="skip")
    assert only(facts) == PLAIN_FACT
    assert facts.skipped[0].line == 1


def test_malformed_csv_rows_are_reported_by_the_line_they_start_on(tmp_path: Path) -> None:
    text = 'subject,prompt,object,paraphrases\nTom,{} is,"tall,\nnot short",\nAnn,{} is,short,a,b\nBo,{} is,wide,[x\n'
    path = write(tmp_path / "set.csv", text)
    with pytest.raises(FactError, match="line 4: expected 4 cells as in the header, found 5"):
        load_facts(path)
    facts = load_facts(path, malformed="skip")
    assert only(facts).object == "tall,\nnot short"
    assert [m.line for m in facts.skipped] == [4, 5]
    assert "expected a JSON array in 'paraphrases'" in facts.skipped[1].reason


def test_first_csv_row_is_on_line_two(tmp_path: Path) -> None:
    path = write(tmp_path / "set.csv", "subject,prompt,object\nTom,{} is,\n")
    with pytest.raises(FactError, match=r"set\.csv, line 2: expected a text in 'object'"):
        load_facts(path)


def test_open_quote_in_csv_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FactError, match=r"set\.csv, line 2: expected CSV"):
        load_facts(write(tmp_path / "set.csv", 'subject,prompt,object\nTom,{} is,"tall\n'))


def test_malformed_sample_of_a_relation_is_reported_by_line(tmp_path: Path) -> None:
    samples = [*RELATION["samples"], {"subject": "Cland"}, "Dland"]
    write(tmp_path / "capital.json", {**RELATION, "samples": samples})
    with pytest.raises(FactError, match=r"capital\.json, line 19: expected a text in 'object'"):
        load_facts(tmp_path)
    facts = load_facts(tmp_path, malformed="skip")
    assert len(facts) == 2
    assert [m.line for m in facts.skipped] == [19, 22]


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"samples": []}', '{"prompt_templates": [], "prompt_templates_zs": []}']
)
def test_relation_without_its_parts_names_the_file(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "broken.json", content)
    with pytest.raises(FactError, match=r"prompt_templates_zs and samples in .*broken\.json"):
        load_facts(path, "relations")


def test_paraphrases_without_the_subject_are_dropped_and_listed(tmp_path: Path) -> None:
    facts = load_facts(write(tmp_path / "set.json", [NESTED, changed(NESTED, paraphrase_prompts=[])]))
    assert len(facts) == 2 and not facts.skipped
    (note,) = facts.dropped
    assert note.line == 2
    assert note.reason == "case 7: expected the subject 'Odo Brenk' in the text, found 'Nobody was hurt.'"


def test_latest_holds_one_object_per_key(tmp_path: Path) -> None:
    facts = load_facts(write(tmp_path / "set.json", [FLAT, NESTED, changed(FLAT, target_new="Ostry")]))
    assert [f.object for f in facts] == ["Karsk", "Frisian", "Ostry"]
    assert {f.object for f in facts.latest} == {"Ostry", "Frisian"}


@pytest.mark.parametrize("content", ["[]", "", "\n"])
def test_set_without_records_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(FactError, match=r"expected records in .*found none"):
        load_facts(write(tmp_path / "set.json", content))


def test_unreadable_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FactError, match=r"missing\.json"):
        load_facts(tmp_path / "missing.json")
    (tmp_path / "latin.json").write_bytes('["é"]'.encode("latin-1"))
    with pytest.raises(FactError, match=r"expected a readable UTF-8 file .*latin\.json"):
        load_facts(tmp_path / "latin.json")


# --------------------------------------------------------------------- hub


def fake_hub(monkeypatch: pytest.MonkeyPatch, data: dict[str, list[dict[str, Any]]]) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return data if kwargs["split"] is None else data[kwargs["split"]]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return calls


@pytest.mark.parametrize("record", [NESTED, FLAT, ZSRE, PLAIN], ids=["nested", "flat", "zsre", "plain"])
def test_hub_rows_of_every_form_are_read_as_data_only(monkeypatch: pytest.MonkeyPatch, record: dict[str, Any]) -> None:
    calls = fake_hub(monkeypatch, {"test": [record]})
    assert len(load_facts("hub:someone/edits:test")) == 1
    assert calls == [(("someone/edits",), {"split": "test"})]


def test_hub_set_with_one_split_needs_no_split(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {"train": [PLAIN]})
    assert only(load_facts("hub:someone/edits")) == only(load_facts("someone/edits", form="hub")) == PLAIN_FACT


def test_hub_set_with_several_splits_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {"train": [PLAIN], "test": [PLAIN]})
    with pytest.raises(FactError, match=r"train, test.* write for example hub:someone/edits:train"):
        load_facts("hub:someone/edits")


def test_malformed_hub_row_is_reported_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {"train": [FLAT, changed(FLAT, target_new=None)]})
    with pytest.raises(
        FactError, match="hub:someone/edits, record 2: case 8: expected a text in 'target_new', found None"
    ):
        load_facts("hub:someone/edits")


def test_hub_trouble_names_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {})
    with pytest.raises(FactError, match="hub for hub:someone/edits:no, found KeyError"):
        load_facts("hub:someone/edits:no")


def test_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FactError, match=r"pip install 'sleepgym\[hub\]'"):
        load_facts("hub:someone/edits")
