import json
import pickletools
from pathlib import Path

import pytest
import torch

from sleepgym.checkpoint import CheckpointError
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.sleeper import SleepingLM

STATE, TERMS = "state.json", "terms.safetensors"


@pytest.fixture(scope="module")
def life(base, facts):
    """All there is to save: edits, an adapter, audited and unaudited facts, a moved clock."""
    learner = SleepingLM(base, SleepSpec(steps=5))
    learner.inject(facts[:3])
    learner.state.tick = 17
    learner.sleep()
    learner.inject(facts[3:5])
    return learner.state


@pytest.fixture
def taught(learner, life):
    """A learner that has lived."""
    learner.state = life.copy()
    return learner


@pytest.fixture
def folder(taught, tmp_path):
    taught.save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def logits(learner, facts):
    ids = learner.lm.pad([learner.lm.encode(f.statement).ids for f in facts])
    with torch.no_grad(), learner.base.overlay.use(learner.state.memory):
        return learner.lm.model(input_ids=ids).logits


def test_round_trip_is_exact(taught, folder, facts):
    other = SleepingLM(taught.base, taught.sleep_spec, capacity=7, seed=9)
    other.load(folder)
    assert torch.equal(logits(other, facts), logits(taught, facts))
    assert list(other.state.memory.terms) == list(taught.state.memory.terms)
    assert other.state.memory.version == taught.state.memory.version
    # repr, since an unaudited margin is NaN, which equals nothing.
    assert repr(dict(other.state.ledger)) == repr(dict(taught.state.ledger))
    assert [entry.fact for entry in other.state.ledger.values()] == taught.state.ledger.facts
    assert other.state.ledger.capacity == taught.state.ledger.capacity
    assert other.state.rng.bit_generator.state == taught.state.rng.bit_generator.state
    assert other.state.tick == 17


def test_future_of_a_loaded_learner_is_that_of_the_saved_one(taught, folder):
    other = SleepingLM(taught.base, taught.sleep_spec, seed=9)
    other.load(folder)
    assert other.sleep() == taught.sleep()
    assert other.audit() == taught.audit()


def test_saving_again_replaces_the_checkpoint(taught, folder, facts):
    taught.prune(list(taught.state.ledger))
    taught.save(folder)
    other = SleepingLM(taught.base)
    other.load(folder)
    assert len(other.state.ledger) == 0
    assert {path.name for path in folder.iterdir()} == {STATE, TERMS}


def test_fresh_learner_can_be_saved(learner, tmp_path, facts):
    learner.save(tmp_path)
    expected = logits(learner, facts)
    learner.inject(facts[:1])
    learner.load(tmp_path)
    assert torch.equal(logits(learner, facts), expected) and len(learner.state.ledger) == 0


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def edit(**changes):
    def change(path: Path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def drop(*names):
    def change(path: Path):
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in names}))

    return change


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (TERMS, truncate),
        (TERMS, flip),
        (TERMS, Path.unlink),
        (STATE, Path.unlink),
        (STATE, truncate),
        (STATE, lambda path: path.write_bytes(b"\xff\xfe")),
        (STATE, lambda path: path.write_text("[]")),
        (STATE, lambda path: path.write_text("{}")),
        (STATE, edit(format=999)),
        (STATE, edit(model={"name": "other", "fingerprint": "0" * 64})),
        (STATE, edit(model=None)),
        (STATE, edit(model={})),
        (STATE, edit(entries=[{"fact": {}}])),
        (STATE, edit(rng={})),
        (STATE, edit(terms=[])),
        *((STATE, drop(part)) for part in ("model", "terms_sha256", "terms", "entries", "rng", "tick", "capacity")),
    ],
)
def test_damaged_checkpoint_is_refused_and_the_learner_is_unchanged(taught, folder, unchanged, name, damage):
    damage(folder / name)
    with unchanged(taught), pytest.raises(CheckpointError, match="expected"):
        taught.load(folder)


def test_missing_folder_is_refused(taught, tmp_path, unchanged):
    with unchanged(taught), pytest.raises(CheckpointError, match="nowhere"):
        taught.load(tmp_path / "nowhere")


def test_error_names_both_models(taught, folder):
    edit(model={"name": "another", "fingerprint": "0" * 64})(folder / STATE)
    with pytest.raises(CheckpointError, match=r"expected a checkpoint of 'tiny'.*found one of 'another'"):
        taught.load(folder)


def test_files_hold_nothing_that_can_run(folder):
    json.loads((folder / STATE).read_text())
    for path in folder.iterdir():
        with pytest.raises(ValueError):
            list(pickletools.genops(path.read_bytes()))
