from dataclasses import replace

import pytest
import torch

from sleepgym.editing import Editor, EditSpec, optimize_targets
from sleepgym.editing.target_cache import TargetCache
from sleepgym.editing.targets import Target
from sleepgym.facts import Fact

FACT = Fact("Tom Lork", "Tom Lork lives in", "Oslo", relation="city")
TARGET = Target(torch.arange(6.0).view(2, 3) / 7, torch.arange(8.0).view(2, 4) / 3)


def same(one, other):
    return torch.equal(one.value, other.value) and torch.equal(one.keys, other.keys)


def kept(cache, fact=FACT):
    return cache.get(cache.name(fact))


def keep(cache):
    cache.put(cache.name(FACT), TARGET)


def cache(folder, spec=None, fingerprint="model", prefixes=("It was Monday.",), dtype=torch.float32):
    return TargetCache(folder, fingerprint, dtype, spec or EditSpec(), prefixes)


def test_round_trip_on_disk_is_exact(tmp_path):
    assert kept(cache(tmp_path)) is None
    keep(cache(tmp_path))
    assert same(kept(cache(tmp_path)), TARGET)


def test_without_folder_targets_stay_in_memory():
    one = cache(None)
    keep(one)
    assert same(kept(one), TARGET)
    assert kept(cache(None)) is None


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, None], ids=["empty", "garbage", "truncated"])
def test_damaged_file_counts_as_missing_and_is_replaced(tmp_path, damage):
    keep(cache(tmp_path))
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-4] if damage is None else damage)
    again = cache(tmp_path)
    assert kept(again) is None
    keep(again)
    assert same(kept(cache(tmp_path)), TARGET)


def test_damaged_file_is_recomputed_by_the_editor(base, facts, tmp_path):
    spec = EditSpec(steps=3)
    first = Editor(base.overlay, base.statistics, spec, tmp_path).targets(facts[:1])
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(b"damaged")
    (again,) = Editor(base.overlay, base.statistics, spec, tmp_path).targets(facts[:1])
    assert same(again, first[0])


@pytest.mark.parametrize(
    "other",
    [
        {"spec": EditSpec(steps=7)},
        {"spec": EditSpec(layers=(0, 1))},
        {"spec": EditSpec(clamp=0.5)},
        {"spec": EditSpec(stop_nll=0.5)},
        {"fingerprint": "another model"},
        {"dtype": torch.bfloat16},
        {"prefixes": ()},
        {"spec": EditSpec(site="residual", frozen=False)},
        {"spec": EditSpec(key_token="prompt")},
        {"spec": EditSpec(object_tokens="first")},
        {"spec": EditSpec(stop="argmax")},
    ],
    ids=["steps", "layers", "clamp", "stop_nll", "model", "dtype", "prefixes", "site", "key", "object", "stop"],
)
def test_another_recipe_or_model_does_not_find_the_target(tmp_path, other):
    keep(cache(tmp_path))
    assert kept(cache(tmp_path, **other)) is None


@pytest.mark.parametrize(
    "change", [{"covariance_weight": 1.0}, {"ridge": 0.5}, {"protect": False}, {"null_space": 0.1}]
)
def test_how_targets_are_solved_does_not_change_them(tmp_path, change):
    keep(cache(tmp_path))
    assert same(kept(cache(tmp_path, EditSpec(**change))), TARGET)


@pytest.mark.parametrize("change", [{"anchor": 1.5}, {"alignment": 2.0}])
def test_what_changes_targets_of_edited_models_alone_does_not_change_those_of_the_base(tmp_path, base, facts, change):
    spec = EditSpec(frozen=False, site="residual", steps=2)
    plain = Editor(base.overlay, base.statistics, spec, tmp_path / "plain").targets(facts[:3])
    changed = Editor(base.overlay, base.statistics, replace(spec, **change), tmp_path / "changed").targets(facts[:3])
    assert all(map(same, plain, changed))
    assert cache(None, spec).name(FACT) == cache(None, replace(spec, **change)).name(FACT)


def test_name_of_a_target_is_what_it_was_in_earlier_versions():
    """Targets on people's disks are found again: a new setting that is off is no part of their names."""
    assert cache(None).name(FACT) == "265b69e31ff94cda585ec7f0d7b2daf4"


@pytest.mark.parametrize(
    "change", [{"object": "Riga"}, {"prompt": "Tom Lork resides in"}, {"subject": "Lork"}], ids=lambda c: next(iter(c))
)
def test_another_fact_has_another_target(tmp_path, change):
    keep(cache(tmp_path))
    assert kept(cache(tmp_path), replace(FACT, **change)) is None


def test_what_is_only_tested_does_not_change_the_target(tmp_path):
    keep(cache(tmp_path))
    tested = replace(FACT, paraphrases=("Tom Lork resides in",), questions=("Where does Tom Lork live?",))
    assert same(kept(cache(tmp_path), tested), TARGET)


def test_facts_beside_it_in_their_order_are_part_of_a_targets_name(tmp_path):
    store, others = cache(tmp_path), [replace(FACT, relation=r, object=r) for r in ("Riga", "Rome")]
    names = {store.name(FACT, beside) for beside in ((), others, others[::-1], others[:1])}
    assert len(names) == 4


@pytest.mark.parametrize(
    ("spec", "norms"),
    [
        (EditSpec(layers=(0,), steps=15), (48.716, 63.965)),
        (EditSpec(layers=(0,), steps=6, learning_rate=0.5, clamp=0.7, stop="nll", stop_nll=0.5), (31.704, 29.850)),
    ],
    ids=["default", "quick"],
)
def test_targets_are_those_that_caches_hold(base, spec, norms):
    facts = [FACT, Fact("Ada Bell", "Ada Bell works for", "Nokia", relation="employer")]
    prefixes = ("It was Monday.", "The old mill stands between the river and the church.")
    found = [float(target.value.norm()) for target in optimize_targets(base.lm, facts, prefixes, spec)]
    assert found == pytest.approx(norms, rel=1e-3), "put a version into names: caches would go on giving the old ones"
