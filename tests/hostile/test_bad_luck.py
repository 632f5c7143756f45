"""Full and read-only disks, caches that vanish, two processes at once, kills: nothing is half-written or lost."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO

from sleepgym import files
from sleepgym.editing import EditSpec
from sleepgym.editing.statistics import statistics_for
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.evaluation.scores import ScoreError, ScoreMatrix
from sleepgym.leaderboard.playing import play
from sleepgym.leaderboard.submission import Submission, keep, kept
from sleepgym.lm import load
from sleepgym.memory.checkpoint import CheckpointError
from sleepgym.notes import NoteStore, operations
from sleepgym.record.recording import Recording, RecordingError
from sleepgym.sleeper import SleepingLM, make_base
from sleepgym.training.policy_card import PolicyCard, load_policy

ROOT = Path(__file__).parents[2]
MINI = "SleepLLM-Mini-v0"
QUICK = EditSpec(prefixes=1, steps=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def full_disk(room: int = 100) -> Iterator[None]:
    """Lets no file grow beyond some bytes: writing fails as on a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write into a folder; the superuser neither, for whom it is a disk of its own."""
    folder.mkdir(exist_ok=True)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root and subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], capture_output=True).returncode:
        pytest.skip("the superuser may write anywhere, and mount nothing")
    folder.chmod(0o500) if not root else None
    try:
        with pytest.raises(OSError):
            (folder / "x").write_bytes(b"x")
        yield
    finally:
        subprocess.run(["umount", folder], check=True) if root else folder.chmod(0o700)


@pytest.fixture(scope="module")
def played(short: Callable[..., SleepEnv]) -> Any:
    """Two entries of one player on one test stream: the same but for a claim."""
    from sleepgym.leaderboard import player_named

    env = SleepEnv(MINI)
    return play(player_named("never-sleep", env), MINI, range(10_000_000, 10_000_001))


# ------------------------------------------------------------------- disk


def test_a_full_disk_leaves_every_kind_of_file_as_it_was(learner, facts, played, tmp_path: Path) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=8, device="cpu")
    card = PolicyCard(algorithm="PPO", env_id="CartPole-v1", seed=0, steps=1)
    store = NoteStore(tmp_path / "notes")
    scores = ScoreMatrix("rule", (1, 2), np.array([[0.5, 0.25]]))
    (recording,) = played.recordings
    learner.inject(facts[:1])
    writers: dict[str, tuple[Callable[[], object], type[Exception]]] = {
        "checkpoint": (lambda: learner.save(tmp_path / "checkpoint"), CheckpointError),
        "recording": (lambda: recording.save(tmp_path / "recording.json"), RecordingError),
        "scores": (lambda: scores.save(tmp_path / "scores.json"), ScoreError),
        "policy": (lambda: card.save(model, tmp_path / "policy" / "best.zip"), OSError),
        "entry": (lambda: keep(played, tmp_path / "entry"), RecordingError),
        "adapter": (lambda: learner.export_adapter(tmp_path / "adapter"), OSError),
        "notes": (lambda: operations.add(store, f"Likes tea {len(store.files())} " * 50), OSError),
    }
    for round_ in ("first", "again"):
        for name, (write, error) in writers.items():
            before = contents(tmp_path)
            with full_disk(), pytest.raises(error):
                write()
            after = contents(tmp_path)
            assert {path: data for path, data in after.items() if ".notes/" not in path} == {
                path: data for path, data in before.items() if ".notes/" not in path
            }, (round_, name)
            assert not [path for path in after if path.endswith(files.PART)]
            write()
    learner.load(tmp_path / "checkpoint")
    assert Recording.load(tmp_path / "recording.json") == recording
    kept = PolicyCard.read(tmp_path / "policy" / "best.zip")
    kept.check(tmp_path / "policy" / "best.zip")
    assert kept == card.model_copy(update={"sha256": kept.sha256})


def taught(cache: Path, facts: Any, monkeypatch: pytest.MonkeyPatch, disk: Any = None) -> str:
    """Hash of what a fresh base of the bundled model writes for some facts, with this cache."""
    monkeypatch.setenv("SLEEPGYM_CACHE", str(cache))
    lm = load("tiny")
    with disk or nullcontext():
        learner = SleepingLM(make_base(lm, QUICK), seed=0)
        for fact in facts:
            learner.inject([fact])
    return memory_hash(learner)


def memory_hash(learner: SleepingLM) -> str:
    digest = hashlib.sha256()
    for owner, term in learner.state.memory.terms.items():
        digest.update(owner.encode())
        for a, b in term.factors.values():
            digest.update(a.numpy().tobytes() + b.numpy().tobytes())
    return digest.hexdigest()


def test_a_cache_that_cannot_be_written_or_is_gone_changes_no_result(
    facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = facts[:3]
    expected = taught(tmp_path / "own", facts, monkeypatch)
    assert list((tmp_path / "own" / "targets").rglob("*.safetensors"))
    assert taught(tmp_path / "own", facts, monkeypatch) == expected  # from the cache

    assert taught(tmp_path / "full", facts, monkeypatch, full_disk()) == expected
    assert not [path for path in (tmp_path / "full").rglob("*") if path.is_file()]

    (tmp_path / "file").write_text("no folder")
    assert taught(tmp_path / "file", facts, monkeypatch) == expected

    over = threading.Event()

    def delete() -> None:
        while not over.wait(0.005):
            shutil.rmtree(tmp_path / "own", ignore_errors=True)

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        assert taught(tmp_path / "own", facts, monkeypatch) == expected
    finally:
        over.set()
        thread.join()


def test_a_read_only_cache_changes_no_result(facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = taught(tmp_path / "own", facts[:1], monkeypatch)
    with read_only(tmp_path / "locked"):
        assert taught(tmp_path / "locked", facts[:1], monkeypatch) == expected


def test_statistics_that_cannot_be_kept_are_those_that_are_read(
    small_llm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model("llama", vocab_size=2048, num_key_value_heads=2, **size)
    lm = small_llm(AutoModelForCausalLM.from_config(config))
    found = []
    for place in ("kept", "file"):
        if place == "file":
            (tmp_path / place).touch()
        monkeypatch.setenv("SLEEPGYM_CACHE", str(tmp_path / place))
        found.append(statistics_for(lm, [0], rows=8))
    again = statistics_for(lm, [0], rows=8)
    assert found[0].rehearsal == found[1].rehearsal == again.rehearsal
    assert bool((found[0].moments[0] == found[1].moments[0]).all())


# ------------------------------------------------------------------ kills


class Killed(BaseException):
    """Stands for a kill: no handler of errors may do anything about it that needs the disk."""


@contextmanager
def killed_at(call: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Ends a block when it is about to give a file its name for the n-th time, as a kill would."""
    names: list[str] = []
    real_replace, real_unlink = os.replace, os.unlink

    def replace(source: Any, target: Any, **more: Any) -> None:
        if len(names) == call:
            raise Killed
        names.append(Path(target).name)
        real_replace(source, target, **more)

    def unlink(path: Any, **more: Any) -> None:
        if len(names) != call:
            real_unlink(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        patch.setattr(os, "unlink", unlink)
        with suppress(Killed):
            yield names


def test_an_entry_whose_writing_is_killed_is_the_old_one_the_new_one_or_played_again(
    played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Player:
        name, policy, rule, card = played.name, played.policy, played.rule, played.card

    seen = set()
    for call in range(4):
        shutil.rmtree(tmp_path / "entry", ignore_errors=True)
        with killed_at(call, monkeypatch) as names:
            keep(played, tmp_path / "entry")
        found = kept(tmp_path / "entry", Player(), MINI, 1)  # type: ignore[arg-type]
        assert (found is not None) == (len(names) == 3), names
        seen.add(found is not None)
        keep(played, tmp_path / "entry")
        assert Submission.load(tmp_path / "entry").recordings == played.recordings
        assert kept(tmp_path / "entry", Player(), MINI, 1) is not None  # type: ignore[arg-type]
    assert seen == {False, True}


def test_a_policy_whose_writing_is_killed_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.zip"
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=8, device="cpu")
    card = PolicyCard(algorithm="PPO", env_id="CartPole-v1", seed=0, steps=1)
    card.save(model, path)
    seen = []
    for call in range(3):
        with killed_at(call, monkeypatch):
            card.model_copy(update={"steps": 2 + call}).save(model, path)
        loaded, found = load_policy(path)
        seen.append(found.steps)
        assert loaded.num_timesteps == model.num_timesteps
    assert seen == [1, 3, 4], "the old one; the new one with the card within it; the new one"


def killed_when(happened: Callable[[], bool], delay: float, arguments: list[str], cwd: Path) -> bool:
    """Runs a command, and kills it some seconds after something has happened; says whether it was still running."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, *arguments], cwd=cwd, env=environment, **pipes) as process:
        while process.poll() is None and not happened():
            time.sleep(0.01)
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            return True
        assert process.returncode == 0
        return False


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_leaderboard_that_is_killed_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    names = ("night-owl", "never-sleep", "fixed-period")
    command = ["-m", "sleepgym", "leaderboard", *names, "--env-id", MINI, "--streams", "2", "--validate", "1", "--out"]
    assert not killed_when(lambda: False, 0, [*command, "whole"], tmp_path)
    moments, kills = random.Random(0), 0
    for files_there in (1, 4, 6, 9, 11):
        kills += killed_when(
            lambda n=files_there: len(list((tmp_path / "killed").rglob("*"))) >= n,  # folders and parts as well
            moments.uniform(0, 0.05),
            [*command, "killed"],
            tmp_path,
        )
        for entry in (tmp_path / "killed").glob("*/scores.json"):
            Submission.load(entry.parent)
    assert kills
    assert not killed_when(lambda: False, 0, [*command, "killed"], tmp_path)
    for name in names:
        one, other = (Submission.load(tmp_path / place / name) for place in ("whole", "killed"))
        assert one.recordings == other.recordings and np.array_equal(one.scores.scores, other.scores.scores)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_training_that_is_killed_leaves_policies_that_load_and_go_on(tmp_path: Path) -> None:
    command = [
        str(ROOT / "agents" / "ppo.py"), "--env-id", "SleepSim-v0", "--n-envs", "8", "--n-steps", "16",
        "--batch-size", "64", "--save-every", "128", "--out", "runs", "--total-steps", "1000000",
    ]  # fmt: skip
    last, moments, resume, steps = tmp_path / "runs" / "last.zip", random.Random(1), [], []

    def stamp() -> int:
        with suppress(OSError):
            return last.stat().st_mtime_ns
        return 0

    for _ in range(6):
        before = stamp()
        assert killed_when(
            lambda before=before: stamp() != before, moments.uniform(0, 2), [*command, *resume], tmp_path
        )
        for path in (tmp_path / "runs").glob("*.zip"):
            load_policy(path)
        steps.append(PolicyCard.read(last).steps)
        resume = ["--resume", str(last)]
    assert steps == sorted(steps) and steps[-1] > steps[0]


SHARING = """
import sys
from pathlib import Path
import numpy as np
from sleepgym.editing import EditSpec
from sleepgym.facts.world import World
from sleepgym.lm import load
from sleepgym.sleeper import SleepingLM, make_base
sys.path.insert(0, sys.argv[1])
from test_bad_luck import memory_hash

learner = SleepingLM(make_base(load("tiny"), EditSpec(prefixes=1, steps=2)), seed=0)
for fact in World().new_facts(np.random.default_rng(5), 12):
    learner.inject([fact])
print(memory_hash(learner))
"""


@pytest.mark.slow
def test_processes_that_share_a_cache_teach_what_one_alone_teaches(tmp_path: Path) -> None:
    def start(cache: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SLEEPGYM_CACHE": str(tmp_path / cache)}
        arguments = [sys.executable, "-c", SHARING, str(Path(__file__).parent)]
        return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)

    alone, _ = start("alone").communicate(timeout=200)
    together = [start("shared") for _ in range(3)]
    assert {process.communicate(timeout=200)[0] for process in together} == {alone}
    assert len(alone.strip()) == 64
    assert contents(tmp_path / "shared").keys() == contents(tmp_path / "alone").keys()
