"""The published recipes differ in what their papers say, and all of them write facts."""

from functools import cache

import pytest
import torch

from sleepgym.editing import PRESETS, Editor, EditSpec, preset
from sleepgym.editing.keys import measured_keys
from sleepgym.editing.solver import NormalMatrix
from sleepgym.editing.targets import contexts, key_position
from sleepgym.lm import score
from sleepgym.memory.overlay import Memory
from sleepgym.memory.owners import owner_of
from sleepgym.settings import SettingError

WEIGHT = {"covariance_weight": 300.0}  # one that suits the bundled model; the papers' suit theirs
NULL_SPACE = {"null_space": 0.5}
CHANGES = {"alphaedit": NULL_SPACE, "evoedit": NULL_SPACE, "nas": NULL_SPACE, "sleeping-llm": {}, "sleepgym": {}}


@pytest.fixture(scope="module", autouse=True)
def shared_matrices():
    """One matrix for all recipes with the same numbers: the eigenvectors of a null space take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sleepgym.editing.editor.NormalMatrix", cache(NormalMatrix))
        yield


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_writes_facts_one_by_one(base, facts, name):
    editor = Editor(base.overlay, base.statistics, preset(name, **CHANGES.get(name, WEIGHT)), base.editor.cache._folder)
    memory = Memory()
    for i, fact in enumerate(facts[:4]):
        editor.write(memory, [fact], facts[:i] if editor.spec.protect else ())
    tokens = slice(None) if editor.spec.object_tokens == "all" else slice(0, 1)
    probes = [base.lm.encode(f.prompt, f.object) for f in facts[:4]]
    before = score(base.lm, probes).nll
    with base.overlay.use(memory):
        after = score(base.lm, probes).nll
    assert list(memory.terms) == [owner_of(fact) for fact in facts[:4]]
    assert (after < before).sum() >= 3, tokens


def test_default_is_this_projects_recipe():
    assert preset("sleepgym") == EditSpec()


def test_layers_and_single_numbers_can_be_changed():
    spec = preset("memit", (1, 2), clamp=0.5)
    assert (spec.layers, spec.clamp, spec.site) == ((1, 2), 0.5, "residual")


def test_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(SettingError, match="memit, memit-prev, alphaedit"):
        preset("rome")


@pytest.mark.parametrize(("field", "value"), [("site", "mlp"), ("key_token", "last"), ("stop", "never")])
def test_impossible_choice_is_refused(field, value):
    with pytest.raises(SettingError, match=f"{field}: expected one of"):
        preset("memit", **{field: value})


def test_published_recipes_see_the_edited_model_and_ours_the_frozen_base():
    assert {name for name, spec in PRESETS.items() if spec.frozen} == {"sleepgym"}
    assert {name for name, spec in PRESETS.items() if spec.protect} == {
        *("memit-prev", "alphaedit", "evoedit", "nas", "eamet", "encore", "sleepgym")
    }
    assert PRESETS["sleeping-llm"].key_token == "prompt"
    assert PRESETS["encore"].stop == "argmax"
    assert PRESETS["alphaedit"].null_space is not None and PRESETS["alphaedit"].covariance_weight == 0


def test_anchored_recipe_is_alphaedit_with_one_more_number():
    assert preset("nas", anchor=None) == preset("alphaedit")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("nas", {"anchor": 0.0}, "anchor: expected more than 0, found 0.0"),
        ("nas", {"frozen": True}, "frozen: expected false with anchor or alignment, found True"),
        ("memit", {"frozen": True}, "frozen: expected false with the site 'residual', found True"),
        ("nas", {"site": "down_proj"}, "site: expected 'residual' with anchor, found 'down_proj'"),
        ("eamet", {"alignment": -1.0}, "alignment: expected more than 0, found -1.0"),
        ("eamet", {"frozen": True}, "frozen: expected false with anchor or alignment, found True"),
    ],
)
def test_what_needs_targets_of_the_edited_model_is_refused_without_them(name, changes, message):
    with pytest.raises(SettingError, match=message):
        preset(name, **changes)


def test_null_space_edits_leave_frequent_keys_alone(base, facts):
    spec = preset("alphaedit", null_space=0.5)
    memory = Memory()
    Editor(base.overlay, base.statistics, spec).write(memory, facts[:2])
    module = base.lm.blocks[spec.layers[0]].down_proj
    a, _ = memory.stacked(module)
    eigenvalues, vectors = torch.linalg.eigh(base.statistics.moments[spec.layers[0]].double())
    used = vectors[:, eigenvalues > 0.5 * eigenvalues.mean()]
    assert (a.double() @ used).norm() < 1e-5 * a.norm()


def test_residual_recipe_shares_the_change_among_the_edited_blocks(base, facts):
    """Meng et al. 2023, eq. 20: after all blocks the stream is near the target, and each block did a part."""
    spec = preset("memit", (0, 1), covariance_weight=1.0, prefixes=0)
    editor = Editor(base.overlay, _with_moments(base, (0, 1)), spec)
    memory = Memory()
    editor.write(memory, facts[:1])
    factors = memory.terms[owner_of(facts[0])].factors
    (row,) = contexts(base.lm, facts[0], ())
    parts = []
    for layer in spec.layers:
        a, b = factors[base.lm.blocks[layer].down_proj]
        with base.overlay.use(memory):
            key = measured_keys(base.lm, [[(row.ids, key_position(row, spec))]], layer)
        parts.append((b.double() @ (a.double() @ key.T)).norm().item())
    assert min(parts) > 0.2 * max(parts)


def _with_moments(base, layers):
    from dataclasses import replace

    from sleepgym.editing.covariance import second_moments

    return replace(base.statistics, moments=second_moments(base.lm, base.statistics.held_out[:48], layers))
