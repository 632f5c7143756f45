"""Readings of an edit against counts made by hand."""

import math
from dataclasses import replace

import pytest

from sleepgym.editing.measure import EditProbes
from sleepgym.lm import continuations, generate, score
from sleepgym.memory.asking import raw_probe
from sleepgym.memory.overlay import Memory


@pytest.fixture(scope="module")
def known(world):
    return world.known_facts()[:6]


def test_known_facts_read_as_right_and_their_rivals_as_wrong(base, world, known):
    rival = {f: next(o for o in world.relations[f.relation].objects if o != f.object) for f in known}
    right = EditProbes(base.lm, [replace(f, true_object=rival[f]) for f in known]).read(generate=True)
    wrong = EditProbes(base.lm, [replace(f, object=rival[f], true_object=f.object) for f in known]).read(generate=True)
    assert (right.efficacy.likelier, right.efficacy.exact, right.efficacy.written) == (1.0, 1.0, 1.0)
    assert (wrong.efficacy.likelier, wrong.efficacy.exact, wrong.efficacy.written) == (0.0, 0.0, 0.0)
    assert right.paraphrase.exact > 0.9 > 0.1 > wrong.paraphrase.exact


def test_kept_counts_only_neighbours_that_were_known(base, facts, known):
    around = tuple((f.prompt, f.object) for f in known)
    unknown = tuple((f.prompt, f.object) for f in facts[6:9])
    taught = [replace(facts[0], neighbours=around + unknown)]
    probes = EditProbes(base.lm, taught)
    assert probes.read().kept == 1.0
    assert probes.read().neighbourhood.exact == pytest.approx(6 / 9)


def test_readings_use_the_memory_in_use(base, facts):
    probes, memory = EditProbes(base.lm, facts[:3]), Memory()
    base.editor.write(memory, facts[:3])
    assert probes.read().efficacy.exact == 0.0
    with base.overlay.use(memory):
        assert probes.read().efficacy.exact == 1.0
        assert probes.read(facts[:1]).efficacy.exact == 1.0


def test_objects_are_asked_after_the_joiner_that_they_are_taught_with(base, known):
    """What the model knows after a blank, it does not say after a line break."""
    joined = [replace(f, joiner="\n", paraphrases=(f.prompt,), neighbours=((f.prompt, f.object),)) for f in known]
    expected = score(base.lm, [raw_probe(base.lm, fact) for fact in joined]).recall
    report = EditProbes(base.lm, joined).read()
    assert expected < 1.0
    assert report.efficacy.exact == report.paraphrase.exact == report.neighbourhood.exact == expected


def test_what_cannot_be_read_is_not_a_number(base, facts):
    report = EditProbes(base.lm, [replace(facts[0], paraphrases=(), neighbours=())]).read()
    for value in (report.paraphrase.exact, report.neighbourhood.exact, report.kept, report.efficacy.likelier):
        assert math.isnan(value)


def test_batched_continuations_are_those_of_single_prompts(base, known):
    prompts = [f.prompt for f in known] + ["It was Monday. " + known[0].prompt]
    assert [t.strip() for t in continuations(base.lm, prompts, 5)] == [generate(base.lm, p, 5) for p in prompts]
