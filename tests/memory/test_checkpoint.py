import errno
import hashlib
import itertools
import json
import os
import pickletools
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sleepgym.consolidation.spec import SleepSpec
from sleepgym.facts.fact import Fact
from sleepgym.memory import checkpoint
from sleepgym.memory.checkpoint import CheckpointError
from sleepgym.memory.ledger import Entry, Ledger
from sleepgym.memory.overlay import Memory
from sleepgym.memory.settled import Settled
from sleepgym.memory.state import State
from sleepgym.sleeper import SleepingLM

STATE, TERMS = "state.json", "terms-*.safetensors"


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


def find(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def names(folder):
    return {path.name for path in folder.iterdir()}


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
    assert names(folder) == {STATE, find(folder, TERMS).name}


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


def rewrite(change, sign=True):
    """A damage that puts ``change(document)`` in the JSON's place, by default under a valid checksum."""

    def damage(path: Path):
        document = change(json.loads(path.read_text()))
        if sign:
            rest = {key: value for key, value in document.items() if key != "sha256"}
            document["sha256"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps(document))

    return damage


def edit(sign=True, **changes):
    return rewrite(lambda document: document | changes, sign)


def drop(*names):
    return rewrite(lambda document: {key: value for key, value in document.items() if key not in names})


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
        (STATE, edit(sign=False, tick=18)),
        (STATE, lambda path: path.write_text("[" * 100_000)),
        (STATE, edit(model={"name": "other", "fingerprint": "0" * 64})),
        (STATE, edit(model=None)),
        (STATE, edit(model={})),
        (STATE, edit(entries=[{"fact": {}}])),
        (STATE, edit(settled=[{"subject": "S"}])),
        (STATE, edit(rng={})),
        (STATE, edit(terms=[])),
        (STATE, drop("capacity")),
        *((STATE, drop(key)) for key in "model terms_file terms_sha256 terms entries settled rng tick".split()),
        (STATE, rewrite(lambda document: {k: v for k, v in document.items() if k != "sha256"}, sign=False)),
    ],
)
def test_damaged_checkpoint_is_refused_and_the_learner_is_unchanged(taught, folder, unchanged, name, damage):
    damage(find(folder, name))
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


# ------------------------------------------------- without a language model: saving only asks for a name and weights

LINEAR = torch.nn.Linear(2048, 2048)
LM = SimpleNamespace(name="stand-in", fingerprint="0" * 64, linear=lambda module: LINEAR)


def lived(tick: int) -> State:
    """A state of which everything depends on the tick, large enough for its writing to take a moment."""
    rng = np.random.default_rng(tick)
    memory = Memory()
    for owner in range(1 + tick):
        a, b = (torch.from_numpy(rng.standard_normal(shape, np.float32)) for shape in ((16, 2048), (2048, 16)))
        memory.put(f"owner {owner}", {"down": (a, b), "up": (a + 1, b + 1)}, scale=0.5 + owner, weight=float(tick))
    entries = [
        Entry(
            Fact(f"S{i}", f"S{i} is in", "Ōsaka", neighbours=(("T is in", "Oslo"),)), margin=rng.random(), writes=tick
        )
        for i in range(20 * tick)
    ]
    entries.append(Entry(Fact("Unaudited", "Unaudited is in", "Lima")))
    settled = [Settled(f"P{i}", "city", f"P{i} is in", f"Where is P{i}, Ōsaka?", tick) for i in range(tick)]
    ledger = Ledger(100 + tick, {entry.fact.key: entry for entry in entries})
    return State(memory, ledger, rng, tick, settled={each.key: each for each in settled})


def assert_same(one: State, other: State):
    assert (one.tick, one.memory.version, one.settled) == (other.tick, other.memory.version, other.settled)
    assert one.rng.bit_generator.state == other.rng.bit_generator.state
    assert one.ledger.capacity == other.ledger.capacity
    assert repr(dict(one.ledger)) == repr(dict(other.ledger))
    assert [entry.fact for entry in one.ledger.values()] == other.ledger.facts
    assert list(one.memory.terms) == list(other.memory.terms)
    for term, twin in zip(one.memory.terms.values(), other.memory.terms.values(), strict=True):
        assert (term.scale, term.weight, list(term.factors)) == (twin.scale, twin.weight, list(twin.factors))
        for module, (a, b) in term.factors.items():
            assert torch.equal(a, twin.factors[module][0]) and torch.equal(b, twin.factors[module][1])


OLD, NEW = lived(1), lived(2)


@pytest.fixture
def old(tmp_path):
    """A folder with a checkpoint of ``OLD``."""
    checkpoint.save(tmp_path / "checkpoint", OLD, LM)
    return tmp_path / "checkpoint"


def assert_holds(folder: Path, state: State):
    """The folder holds this state and nothing else."""
    assert_same(checkpoint.load(folder, LM), state)
    assert names(folder) == {STATE, json.loads((folder / STATE).read_text())["terms_file"]}


def test_every_field_of_an_entry_is_saved(tmp_path):
    fact = Fact("S", "S is in", "Oslo", "city", ("In S",), ("Where is S?",), (("T is in", "Rome"),), "Bern")
    numbers = {field.name: n + 2 for n, field in enumerate(fields(Entry)[1:])}
    entry = Entry(fact, **numbers)
    checkpoint.save(tmp_path, State(Memory(), Ledger(1, {fact.key: entry}), np.random.default_rng()), LM)
    assert checkpoint.load(tmp_path, LM).ledger[fact.key] == entry


@pytest.mark.parametrize("older", [3, 4])
def test_formats_before_settled_facts_are_read_with_none(old, older):
    document = json.loads((old / STATE).read_text())
    del document["settled"]
    for entry in document["entries"]:
        del entry["held"]
        entry["stage"] = 2
    rewrite(lambda _: document | {"format": older})(old / STATE)
    found = checkpoint.load(old, LM)
    assert found.settled == {} and len(found.ledger) == len(OLD.ledger)
    assert all((entry.stage, entry.held) == (2, 2) for entry in found.ledger.values())


def test_state_that_is_saved_twice_stays(old):
    before = names(old)
    checkpoint.save(old, OLD, LM)
    assert names(old) == before
    assert_holds(old, OLD)


def test_leftovers_are_ignored_then_deleted_and_other_files_kept(old):
    leftovers = [f"terms-{'a' * 16}.safetensors", f"terms-{'b' * 16}.safetensors.part", "state.json.part"]
    # The last is what format 2 called its tensors.
    for name in (*leftovers, "terms.safetensors"):
        (old / name).write_bytes(b"half")
    mine = {"terms-of-use.safetensors", "film.part", "notes.json"}
    for name in mine:
        (old / name).write_bytes(b"mine")
    assert_same(checkpoint.load(old, LM), OLD)
    checkpoint.save(old, NEW, LM)
    assert_same(checkpoint.load(old, LM), NEW)
    assert names(old) == {STATE, find(old, "terms-[0-9a-f]*").name} | mine


def test_any_flipped_bit_of_the_json_is_refused_or_harmless(tmp_path):
    state = State(Memory(), Ledger(3, {("S", "r"): Entry(Fact("S", "S is", "é", "r"), margin=0.1)}), OLD.rng, 5)
    checkpoint.save(tmp_path, state, LM)
    intact = (tmp_path / STATE).read_bytes()
    refused = 0
    for position in range(len(intact)):
        for bit in range(8):
            data = bytearray(intact)
            data[position] ^= 1 << bit
            (tmp_path / STATE).write_bytes(data)
            try:
                assert_same(checkpoint.load(tmp_path, LM), state)
            except CheckpointError:
                refused += 1
    # The rest are those that JSON reads alike, such as the case of an escape's hexadecimal digits.
    assert refused > 0.99 * 8 * len(intact)


def test_edited_json_is_refused_by_its_checksum(old):
    edit(sign=False, capacity=10_000)(old / STATE)
    with pytest.raises(
        CheckpointError, match=r"expected state\.json in .* to match its own checksum.*use another copy"
    ):
        checkpoint.load(old, LM)


@pytest.mark.parametrize("older", [1, 2])
def test_older_format_is_refused_then_replaced(old, older):
    find(old, TERMS).rename(old / "terms.safetensors")
    document = json.loads((old / STATE).read_text())
    for key in ("sha256", "terms_file"):
        del document[key]
    (old / STATE).write_text(json.dumps(document | {"format": older}))
    with pytest.raises(CheckpointError, match=rf"expected checkpoint format 6 in .*, found {older}; load it with the"):
        checkpoint.load(old, LM)
    checkpoint.save(old, NEW, LM)
    assert_holds(old, NEW)


@pytest.mark.parametrize(
    "inside", ["../{}", "sub/{}", "sub/../{}", "{}/", "./{}", "..\\{}", "{}\n", "/{}", "{}\0", "..", ""]
)
def test_terms_outside_the_folder_are_refused(old, inside):
    terms = find(old, TERMS)
    (old / "sub").mkdir()
    for place in (old.parent, old / "sub"):
        (place / terms.name).write_bytes(terms.read_bytes())
    # An absolute path too, and one that exists.
    name = str(old.parent / terms.name) if inside.startswith("/") else inside.format(terms.name)
    edit(terms_file=name)(old / STATE)
    with pytest.raises(CheckpointError, match="to name a terms file beside it, found"):
        checkpoint.load(old, LM)


@pytest.mark.parametrize("name", [None, 3, ["terms"], {}])
def test_terms_file_that_is_no_name_is_refused(old, name):
    edit(terms_file=name)(old / STATE)
    with pytest.raises(CheckpointError, match="to name a terms file beside it, found"):
        checkpoint.load(old, LM)


# --------------------------------------------------------------------------------------- interrupted saving

CALLS = ((Path, "open"), (os, "fsync"), (os, "replace"), (os, "open"), (os, "unlink"))


@contextmanager
def watched(monkeypatch, folder, failing=None, error=None, late=False):
    """Lists the calls that reached the disk, such as ``("fsync", "state.json")``.

    The one numbered ``failing`` raises ``error`` instead, or, if ``late``, when its work is done.
    """
    calls, numbers = [], itertools.count()

    def name_of(target):
        if not isinstance(target, int):
            return Path(target).name
        inode = os.fstat(target).st_ino
        return next(path.name for path in (folder, *folder.iterdir()) if path.stat().st_ino == inode)

    def wrapped(name, real):
        def call(*args, **kwargs):
            fails = next(numbers) == failing
            if fails and not late:
                raise error
            named = name_of(args[name == "replace"])
            result = real(*args, **kwargs)
            calls.append((name, named))
            if fails:
                raise error
            return result

        return call

    with monkeypatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, wrapped(name, getattr(owner, name)))
        yield calls


def test_everything_is_on_disk_before_the_next_step_relies_on_it(monkeypatch, old):
    before = find(old, TERMS).name
    with watched(monkeypatch, old) as calls:
        checkpoint.save(old, NEW, LM)
    now = find(old, TERMS).name
    assert [call for call in calls if call[0] != "open"] == [
        ("fsync", f"{now}.{os.getpid()}.part"),
        ("fsync", f"{STATE}.{os.getpid()}.part"),
        ("replace", now),
        ("fsync", old.name),
        ("replace", STATE),
        ("fsync", old.name),
        ("unlink", before),
    ]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "interrupt"])
@pytest.mark.parametrize("failing", range(11))
def test_save_that_fails_anywhere_leaves_the_old_or_the_new(monkeypatch, old, failing, error, late):
    raised = None
    with watched(monkeypatch, old, failing, error, late) as calls:
        try:
            checkpoint.save(old, NEW, LM)
        except (CheckpointError, KeyboardInterrupt) as caught:
            raised = caught
    # That the old tensors cannot be deleted is nobody's concern.
    unheard = failing == 10 and isinstance(error, OSError)
    assert (raised is None) == unheard
    if isinstance(raised, CheckpointError):
        assert re.search(r"expected to write a checkpoint into .*, found .*full; make room", str(raised))
    assert_same(checkpoint.load(old, LM), NEW if ("replace", STATE) in calls else OLD)
    assert not list(old.glob("*.part"))
    checkpoint.save(old, NEW, LM)
    assert_holds(old, NEW)


def test_failing_calls_above_are_all_there_are(monkeypatch, old):
    with watched(monkeypatch, old) as calls:
        checkpoint.save(old, NEW, LM)
    assert len(calls) == 11


def test_folder_that_cannot_be_synced_is_no_failure(monkeypatch, old):
    with watched(monkeypatch, old, failing=9, error=OSError(errno.EINVAL, "not on this file system")) as calls:
        checkpoint.save(old, NEW, LM)
    assert calls.count(("fsync", old.name)) == 1
    assert_holds(old, NEW)


@pytest.mark.parametrize("room", [0, 1000, 600_000])
def test_full_disk_leaves_the_old_checkpoint_alone(old, room):
    resource = pytest.importorskip("resource")
    before = {path: path.read_bytes() for path in old.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="expected to write a checkpoint into"):
            checkpoint.save(old, NEW, LM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in old.iterdir()} == before


def test_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(CheckpointError, match=r"found .*taken.*choose another folder"):
        checkpoint.save(tmp_path / "taken", OLD, LM)
    assert (tmp_path / "taken").read_text() == "mine"


# Imports once, then forks a child per line it reads; each child saves two states in turn until it is killed.
SAVER = """
import os, sys
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
import torch
from sleepgym.memory import checkpoint

linear = torch.nn.Linear(2048, 2048)
lm = SimpleNamespace(name="stand-in", fingerprint="0" * 64, linear=lambda module: linear)
*sources, target = map(Path, sys.argv[1:])
states = [checkpoint.load(source, lm) for source in sources]
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            for count, state in enumerate(islice(cycle(states), int(line), None)):
                checkpoint.save(target, state, lm)
                if count == 0:
                    print(os.getpid(), flush=True)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_save_that_is_killed_leaves_the_old_or_the_new(tmp_path):
    states, folder = [OLD, NEW], tmp_path / "checkpoint"
    sources = [tmp_path / "old", tmp_path / "new"]
    for source, state in zip(sources, states, strict=True):
        checkpoint.save(source, state, LM)
    delays, seen = random.Random(0), set()
    command = [sys.executable, "-c", SAVER, *map(str, sources), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as saver:
        for turn in range(60):
            # The first state saved alternates: on a slow disk no second save may ever come to its end.
            print(turn % 2, file=saver.stdin, flush=True)
            child = int(saver.stdout.readline())
            time.sleep(delays.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            assert int(saver.stdout.readline()) == -signal.SIGKILL
            found = checkpoint.load(folder, LM)
            assert_same(found, states[found.tick - 1])
            seen.add(found.tick)
        saver.stdin.close()
        assert saver.wait(timeout=30) == 0
    assert seen == {1, 2}
    checkpoint.save(folder, OLD, LM)
    assert_holds(folder, OLD)
