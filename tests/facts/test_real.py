"""Real facts: what is drawn from them is changed, and splits share no subject."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sleepgym.facts.fact import FactError
from sleepgym.facts.real import RealFacts
from sleepgym.facts.world import SPLITS


def test_new_facts_are_never_true_but_possible() -> None:
    source = RealFacts.read()
    for fact in source.new_facts(np.random.default_rng(0), 40):
        assert fact.object != source.truth[fact.key] == fact.true_object
        assert fact.object in source.relations[fact.relation].objects


def test_update_differs_from_both_objects() -> None:
    source = RealFacts.read()
    rng = np.random.default_rng(0)
    fact = source.new_facts(rng, 1)[0]
    again = source.update(rng, fact)
    assert again.key == fact.key and again.true_object == fact.true_object
    assert again.object not in {fact.object, source.truth[fact.key]}


def test_splits_share_no_subject() -> None:
    source = RealFacts.read()
    size = len(source.truth) // len(SPLITS)
    subjects = [{f.subject for f in source.new_facts(np.random.default_rng(0), size, split)} for split in SPLITS]
    assert not subjects[0] & subjects[1] and not subjects[1] & subjects[2] and not subjects[0] & subjects[2]


def test_relation_files_of_hernandez_are_read(tmp_path: Path) -> None:
    raw = {
        "prompt_templates": ["The capital of {} is"],
        "prompt_templates_zs": ["The capital of {} is", "The seat of power in {} is"],
        "samples": [{"subject": s, "object": o} for s, o in (("Aland", "Ava"), ("Bland", "Bova"), ("Cland", "Cova"))],
    }
    (tmp_path / "capital.json").write_text(json.dumps(raw))
    source = RealFacts.from_relations([tmp_path / "capital.json"])
    assert len(source.known_facts()) == 3
    assert source.known_facts()[0].paraphrases == ("The seat of power in Aland is",)


def test_outer_spaces_in_relation_files_are_no_part_of_a_name(tmp_path: Path) -> None:
    raw = {
        "prompt_templates": ["{} is in"],
        "prompt_templates_zs": [],
        "samples": [{"subject": "Ava ", "object": "B "}],
    }
    (tmp_path / "place.json").write_text(json.dumps(raw))
    assert RealFacts.from_relations([tmp_path / "place.json"]).known_facts()[0].statement == "Ava is in B."


def test_names_are_looked_up_as_facts_keep_them(tmp_path: Path) -> None:
    samples = [{"subject": "Jose\u0301\u200b", "object": "\ufeffB"}, {"subject": "Bo", "object": "C"}]
    raw = {"prompt_templates": ["{} is in {here}"], "prompt_templates_zs": [], "samples": samples}
    (tmp_path / "place.json").write_text(json.dumps(raw))
    source = RealFacts.from_relations([tmp_path / "place.json"])
    known = source.known_facts()[0]
    assert known.key == ("Jos\u00e9", "place") and known.prompt == "Jos\u00e9 is in {here}"
    assert source.update(np.random.default_rng(0), known).object == "C"


PARTS = "[city]\nstatements = ['{}']\nquestions = []\n"


@pytest.mark.parametrize(
    "content",
    ["[city]\nsamples = 3", PARTS.replace("'{}'", "5") + "samples = {a = 'b'}", "city = 5", PARTS + "samples = ['a']"],
)
def test_malformed_toml_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "broken.toml").write_text(content)
    with pytest.raises(FactError, match=r"broken\.toml"):
        RealFacts.read(tmp_path / "broken.toml")
    with pytest.raises(FactError, match=r"nowhere\.json"):
        RealFacts.from_relations([tmp_path / "nowhere.json"])


@pytest.mark.parametrize("content", ["{", "[]", '{"samples": []}'])
def test_malformed_relation_file_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "broken.json").write_text(content)
    with pytest.raises(FactError, match=r"broken\.json"):
        RealFacts.from_relations([tmp_path / "broken.json"])


def test_too_many_facts_is_an_error() -> None:
    with pytest.raises(FactError, match="at most"):
        RealFacts.read().new_facts(np.random.default_rng(0), 10_000)
