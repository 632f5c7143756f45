"""The ruler of what is kept: halves that share no subject, and tables that say how sure they are."""

import json

import pytest

from benchmarks import keeping_page
from benchmarks.common.asking import correct
from benchmarks.keeping_ruler import Ruler
from sleepgym.memory.overlay import Memory


@pytest.fixture(scope="module")
def ruler(base, world, tmp_path_factory):
    """A ruler of facts that the bundled model knows, as files of relations."""
    folder = tmp_path_factory.mktemp("relations")
    for relation in ("city", "profession", "employer"):
        facts = [fact for fact in world.known_facts() if fact.relation == relation][:24]
        statements = list(world.relations[relation].statements)
        content = {
            "prompt_templates": statements[:1],
            "prompt_templates_zs": statements[1:3],
            "samples": [{"subject": fact.subject, "object": fact.object} for fact in facts],
        }
        (folder / f"{relation}.json").write_text(json.dumps(content))
    edits = [
        {
            "prompt": f"{fact.subject} lives in",
            "subject": fact.subject,
            "target_new": "Rome",
            "ground_truth": "Paris",
            "locality_prompt": "Nobody at all lives in",
            "locality_ground_truth": "Lima",
        }
        for fact in world.known_facts()[400:404]
    ]
    counterfact = tmp_path_factory.mktemp("edits") / "counterfact.json"
    counterfact.write_text(json.dumps(edits))
    return Ruler(base.lm, folder, counterfact, folder / "cache")


def test_halves_share_no_subject_and_no_reported_prompt_names_a_rehearsed_one(base, ruler):
    reported = {each.fact.subject for each in ruler.reported if each.fact}
    assert reported and ruler.rehearsable and not reported & ruler.rehearsed
    assert {fact.subject for fact in ruler.rehearsable} == ruler.rehearsed
    texts = [base.lm.tokenizer.decode(list(each.probe.ids)) for each in ruler.reported]
    assert not any(name in text for text in texts for name in ruler.rehearsed)
    assert all(correct(base.lm, [each.probe for each in ruler.known]))


def test_what_is_known_is_asked_once_per_model(ruler, monkeypatch):
    monkeypatch.setattr("benchmarks.keeping_ruler.correct", lambda *_: pytest.fail("asked again"))
    (cache,) = ruler.cache.glob("*.json")
    again = Ruler(ruler.lm, ruler.relations, ruler.counterfact, ruler.cache)
    assert again.known == ruler.known and cache.name.startswith(ruler.lm.fingerprint[:16])


def test_hardest_facts_are_changed_facts_of_the_reported_half(ruler):
    facts = ruler.hardest(0, 6)
    assert len({fact.subject for fact in facts}) == 6 and len({fact.relation for fact in facts}) == 2
    assert not {fact.subject for fact in facts} & ruler.rehearsed
    assert all(fact.object != fact.true_object for fact in facts)
    assert ruler.hardest(0, 6) == facts != ruler.hardest(1, 6)


def test_everything_is_kept_by_the_bare_model_and_nothing_is_asked_about_what_is_taught(base, ruler):
    facts = ruler.hardest(0, 2)
    kept = ruler.kept(base.overlay, Memory(), facts)
    assert all(kept["all"]) and len(kept["same"]) + len(kept["other"]) == len(kept["all"])
    assert len(kept["all"]) < len(ruler.reported) and kept["same"] and kept["other"]


def test_damage_is_seen(base, ruler):
    facts, memory = ruler.hardest(0, 4), Memory()
    base.editor.write(memory, facts)
    blown_up = Memory({owner: term.moved(lambda _, part: 8 * part) for owner, term in memory.terms.items()})
    assert not all(ruler.kept(base.overlay, blown_up, facts)["all"])


POINT = {"when": "night 1", "drift": 0.01, "seconds": 40.4, "raw": [9, 10], "chat": [10, 10], "unseen": [0, 0]}
POINT |= {"kept, same": [90, 100], "kept, other": [100, 100], "kept, all": [190, 200]}


def test_rows_add_up_what_differs_and_average_what_does_not():
    other = POINT | {"raw": [7, 10], "kept, same": [99, 110], "drift": 0.03, "seconds": 20.0}
    bare = {"when": "bare", "unseen, of known": [1, 4]}
    record = {"name": "plain", "runs": [{"points": [bare, POINT]}, {"points": [bare, other]}]}
    (row,) = keeping_page.rows_of(record)
    assert row[:3] == ["plain", "night 1", "0.800 [0.58, 0.92]"], "16 of 20"
    assert row[4] == "-" and row[5] == "0.900 [0.83, 0.94]", "mean of 0.9 and 0.9, as sure as 100 trials"
    assert row[-2:] == ["+2.0% (+1.0% to +3.0%)", "30"]
