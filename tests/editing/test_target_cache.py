from dataclasses import replace

import pytest
import torch

from sleepgym.editing import Editor, EditSpec
from sleepgym.editing.target_cache import TargetCache
from sleepgym.facts import Fact

FACT = Fact("Tom Lork", "Tom Lork lives in", "Oslo", relation="city")
TARGET = torch.arange(6.0).view(2, 3) / 7


def cache(folder, spec=None, fingerprint="model", prefixes=("It was Monday.",)):
    return TargetCache(folder, fingerprint, spec or EditSpec(), prefixes)


def test_round_trip_on_disk_is_exact(tmp_path):
    assert cache(tmp_path).get(FACT) is None
    cache(tmp_path).put(FACT, TARGET)
    assert torch.equal(cache(tmp_path).get(FACT), TARGET)


def test_without_folder_targets_stay_in_memory():
    one = cache(None)
    one.put(FACT, TARGET)
    assert torch.equal(one.get(FACT), TARGET)
    assert cache(None).get(FACT) is None


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, None], ids=["empty", "garbage", "truncated"])
def test_damaged_file_counts_as_missing_and_is_replaced(tmp_path, damage):
    cache(tmp_path).put(FACT, TARGET)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-4] if damage is None else damage)
    again = cache(tmp_path)
    assert again.get(FACT) is None
    again.put(FACT, TARGET)
    assert torch.equal(cache(tmp_path).get(FACT), TARGET)


def test_damaged_file_is_recomputed_by_the_editor(base, facts, tmp_path):
    spec = EditSpec(steps=3)
    first = Editor(base.overlay, base.statistics, spec, tmp_path).targets(facts[:1])
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(b"damaged")
    assert torch.equal(Editor(base.overlay, base.statistics, spec, tmp_path).targets(facts[:1]), first)


@pytest.mark.parametrize(
    "other",
    [
        {"spec": EditSpec(steps=7)},
        {"spec": EditSpec(layers=(0, 1))},
        {"spec": EditSpec(clamp=0.5)},
        {"spec": EditSpec(stop_nll=0.5)},
        {"fingerprint": "another model"},
        {"prefixes": ()},
    ],
    ids=["steps", "layers", "clamp", "stop_nll", "model", "prefixes"],
)
def test_another_recipe_or_model_does_not_find_the_target(tmp_path, other):
    cache(tmp_path).put(FACT, TARGET)
    assert cache(tmp_path, **other).get(FACT) is None


@pytest.mark.parametrize("change", [{"covariance_weight": 1.0}, {"ridge": 0.5}, {"protect": False}])
def test_how_targets_are_solved_does_not_change_them(tmp_path, change):
    cache(tmp_path).put(FACT, TARGET)
    assert torch.equal(cache(tmp_path, EditSpec(**change)).get(FACT), TARGET)


@pytest.mark.parametrize(
    "change", [{"object": "Riga"}, {"prompt": "Tom Lork resides in"}, {"subject": "Lork"}], ids=lambda c: next(iter(c))
)
def test_another_fact_has_another_target(tmp_path, change):
    cache(tmp_path).put(FACT, TARGET)
    assert cache(tmp_path).get(replace(FACT, **change)) is None


def test_what_is_only_tested_does_not_change_the_target(tmp_path):
    cache(tmp_path).put(FACT, TARGET)
    tested = replace(FACT, paraphrases=("Tom Lork resides in",), questions=("Where does Tom Lork live?",))
    assert torch.equal(cache(tmp_path).get(tested), TARGET)
