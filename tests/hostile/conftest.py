"""Readers of files that a stranger may hand over, each with files that it takes and the errors that it may raise."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sleepgym.editing.calibration import Calibration, CalibrationError, Trial, read_recipe, recipe_document
from sleepgym.editing.spec import EditError, EditSpec
from sleepgym.editing.statistics import ModelStatistics
from sleepgym.editing.target_cache import TargetCache
from sleepgym.env.fastweights.env import FastWeightsEnv
from sleepgym.env.fastweights.snapshot import FastSnapshotError
from sleepgym.env.fastweights.snapshot import Snapshot as FastSnapshot
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.episode.card import CardError, load_card
from sleepgym.episode.snapshot import Snapshot, SnapshotError
from sleepgym.errors import SleepGymError
from sleepgym.evaluation.episodes import EpisodeResult
from sleepgym.evaluation.scores import ScoreError, ScoreMatrix
from sleepgym.facts import FactError, load_facts
from sleepgym.facts.real import RealFacts
from sleepgym.files import card_paths
from sleepgym.leaderboard.playing import FIRST_SEED, Played
from sleepgym.leaderboard.submission import Submission, keep, kept
from sleepgym.memory.checkpoint import CheckpointError
from sleepgym.notes import FactNotes, NotesError, NoteStore, Retriever, operations
from sleepgym.notes.merging import merge
from sleepgym.notes.omf import exported_omf, read_omf
from sleepgym.record.recording import Recorder, Recording, RecordingError
from sleepgym.record.replay import _require_card
from sleepgym.sim.fit import FitError
from sleepgym.sim.fit_files import load_fit
from sleepgym.sim.maker import FITS
from sleepgym.sim.recorder import Record, RecordError, record_episode
from sleepgym.sleeper import SleepingLM
from sleepgym.training.policy_card import PolicyCard, PolicyError

MINI = "SleepLLM-Mini-v0"
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        files: Files that it takes, by their names in a folder.
        read: Reads the folder, and uses what was read.
        errors: What it may raise.
        signed: Puts the checksums of changed files right, as a forger would.
        changes: Whether it may change the folder.
    """

    files: Files
    read: Callable[[Path], object]
    errors: tuple[type[SleepGymError], ...] = ()
    signed: Callable[[Files], Files] = lambda files: files
    changes: bool = False


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def signed_checkpoint(files: Files) -> Files:
    """Checksums of whatever is in the files now; of JSON that is none, they stay as they are."""
    (terms,) = (name for name in files if name.startswith("terms-"))
    checksum = hashlib.sha256(files[terms]).hexdigest()
    try:
        document = json.loads(files["state.json"])
        document |= {"terms_sha256": checksum} if "terms_sha256" in document else {}
        rest = {key: value for key, value in document.items() if key != "sha256"}
        document["sha256"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        return {**files, "state.json": json.dumps(document).encode()}
    except (ValueError, TypeError, RecursionError):
        return files


@pytest.fixture(scope="session")
def short() -> Callable[..., SleepEnv]:
    """Makes environments of which edits and nights take a moment."""

    def make(**overrides: Any) -> SleepEnv:
        return SleepEnv(
            MINI,
            **overrides,
            edit={"prefixes": 2, "steps": 2},
            sleep={"steps": 1, "lessons": 8, "rehearsal_rows": 1, "validation_rows": 2},
            stream={"known_facts": 2},
            episode={"days": 1, "perplexity_rows": 2},
        )

    return make


@pytest.fixture(scope="session")
def readers(base, facts, short, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    """Every reader by its name."""
    root = tmp_path_factory.mktemp("made")
    made: dict[str, Reader] = {}

    def reader(name: str, read: Callable[[Path], object], *errors: type[SleepGymError], **more: Any) -> None:
        made[name] = Reader(contents(root / name), read, errors, **more)

    def put(name: str, file: str, content: Any) -> None:
        (root / name).mkdir(exist_ok=True)
        (root / name / file).write_text(content if isinstance(content, str) else json.dumps(content, indent=1))

    put("card", "card.toml", card_paths()[MINI].read_text())
    reader("card", lambda folder: load_card(folder / "card.toml"), CardError)

    plain = {
        "subject": "Tom Lork", "prompt": "{} lives in", "object": "Oslo", "relation": "city",
        "paraphrases": ["The home of {} is"], "neighbours": [["Bo Quell lives in", "Riga"]],
    }  # fmt: skip
    rewrite = {
        "prompt": "The mother tongue of {} is", "relation_id": "P103", "subject": "Odo Brenk",
        "target_new": {"str": "Frisian"}, "target_true": {"str": "Basque"},
    }  # fmt: skip
    put(
        "counterfact", "f.json", [{"case_id": 7, "requested_rewrite": rewrite, "paraphrase_prompts": ["Odo Brenk, of"]}]
    )
    put("json lines", "f.jsonl", "\n".join(json.dumps(plain | {"subject": name}) for name in ("Ann", "Bo", "Cy")))
    put(
        "csv",
        "f.csv",
        'subject,prompt,object,paraphrases\nTom,{} is,"tall, not short","[""{} will be""]"\nAnn,{} is,old,\n',
    )
    relation = {
        "prompt_templates": ["The capital of {} is"], "prompt_templates_zs": ["The seat of {} is"],
        "samples": [{"subject": "Aland", "object": "Ava"}, {"subject": "Bland", "object": "Bova"}],
    }  # fmt: skip
    put("relations", "capital.json", relation)
    put(
        "real facts",
        "real.toml",
        '[capital]\nstatements = ["The capital of {} is"]\nquestions = ["What is the capital of {}?"]\n'
        'samples = { "Aland" = "Ava", "Bland" = "Bova", "Cland" = "Cava" }\n',
    )
    for name, file in (("counterfact", "f.json"), ("json lines", "f.jsonl"), ("csv", "f.csv")):
        reader(name, lambda folder, file=file: load_facts(folder / file).latest, FactError)
    reader("relations", lambda folder: load_facts(folder).latest, FactError)

    def real(folder: Path) -> None:
        found = RealFacts.read(folder / "real.toml")
        found.known_facts()
        if found.truth:
            found.new_facts(np.random.default_rng(0), 1)

    reader("real facts", real, FactError)

    learner = SleepingLM(base)
    learner.inject(facts[:2])
    learner.save(root / "checkpoint")
    kept_state = learner.state

    def load_checkpoint(folder: Path) -> None:
        try:
            learner.load(folder)
        except CheckpointError:
            assert learner.state is kept_state
            raise
        learner.audit()
        learner.state = kept_state

    reader("checkpoint", load_checkpoint, CheckpointError, signed=signed_checkpoint)

    env = short()
    env.reset(seed=3)
    for action in (Action.INJECT, Action.WAIT, Action.NAP):
        env.step(action)
    env.snapshot().save(root / "snapshot")

    def load_snapshot(folder: Path) -> None:
        before = env.snapshot()
        try:
            found = Snapshot.load(folder, env.base.lm)
            env.restore(found)
        except SleepGymError:
            assert env.episode.tick == before.state.tick
            raise
        if not env.over:
            observation, *_ = env.step(Action.WAIT)
            assert env.observation_space.contains(observation)
        env.restore(before)

    reader("snapshot", load_snapshot, CheckpointError, SnapshotError, signed=signed_checkpoint)

    fast = FastWeightsEnv("FastWeights-v0", stream={"documents": 1})
    fast.reset(seed=3)
    fast.step(2)
    (root / "fast snapshot").mkdir()
    fast.snapshot().save(root / "fast snapshot" / "moment.json")

    def load_fast_snapshot(folder: Path) -> None:
        fast.restore(FastSnapshot.load(folder / "moment.json", fast.card, fast.trained))
        if not fast.life.over:
            observation, *_ = fast.step(0)
            assert fast.observation_space.contains(observation)

    reader("fast snapshot", load_fast_snapshot, FastSnapshotError)

    recorder = Recorder(short(), root / "recording")
    recorder.reset(seed=3)
    while not recorder.unwrapped.over:  # type: ignore[attr-defined]
        recorder.step(Action.WAIT)
    recording = recorder.recording.model_copy(update={"card_id": MINI})
    reader(
        "recording", lambda folder: _require_card(Recording.load(folder / "episode-00000.json")), RecordingError
    )  # fmt: skip

    ScoreMatrix("rule", (1, 2), np.array([[0.5, 0.25]])).save(root / "scores" / "scores.json")
    reader("scores", lambda folder: ScoreMatrix.load(folder / "scores.json"), ScoreError)

    result = EpisodeResult(
        seed=FIRST_SEED, score=recording.score, recall=0.75, edits_used=9, budget=12, sleeps=2, naps=1, ppl_ratio=1.1,
        seconds=3.0, episode_return=20.0, collapsed=False, actions=(0, 1, 1, 4), degraded=2,
    )  # fmt: skip
    played = Played("rule", "", "rule", (result,), (recording,), 3.0)
    keep(played, root / "submission")

    def submission(folder: Path) -> None:
        class Player:
            name, policy, rule = "rule", "", "rule"

        kept(folder, Player(), MINI, 1)  # type: ignore[arg-type]
        list(Submission.load(folder).mistakes())

    reader("submission", submission, ScoreError, RecordingError)

    card = PolicyCard(algorithm="PPO", env_id=MINI, seed=1, steps=100, arguments={"out": "runs", "rate": 1e-3})
    put("policy card", "p.json", card.model_dump_json(indent=1))
    reader("policy card", lambda folder: PolicyCard.read(folder / "p.zip").about(), PolicyError)

    store = NoteStore(root / "notes" / "mine", clock=lambda: datetime(2026, 1, 31))
    operations.add(store, "Likes tea", "personal/about.md")
    FactNotes(store).record(facts[:2])
    put("exported notes", "notes.json", exported_omf(store))

    def notes(folder: Path) -> None:
        found = NoteStore(folder / "mine")
        for path in found.files():
            found.read(path)
        Retriever(found, index=folder / "index.sqlite").retrieve("tea")
        FactNotes(found).edited()
        found.undo()
        operations.add(found, "Likes mate", "personal/about.md")

    reader("notes", notes, NotesError, changes=True)

    def exported(folder: Path) -> None:
        incoming = read_omf((folder / "notes.json").read_text(errors="replace"))
        merge(NoteStore(folder / "mine"), incoming)

    reader("exported notes", exported, NotesError, changes=True)

    (root / "fit").mkdir()
    shutil.copy(FITS / "SleepLLM-Gemma-v0.safetensors", root / "fit" / "fit.safetensors")
    reader("fit", lambda folder: load_fit(folder / "fit.safetensors"), FitError)
    record_episode(short(), lambda observation, mask: Action.WAIT, 3, "waits").save(root / "record" / "r.safetensors")
    reader("record", lambda folder: Record.load(folder / "r.safetensors"), RecordError)

    calibration = Calibration("0" * 64, EditSpec(layers=(0, 1)), (Trial("clamp 1", 1.0, 0.5, float("nan"), 0.5, 0.1),))
    (root / "calibration").mkdir()
    calibration.save(root / "calibration" / "c.json")
    reader("calibration", lambda folder: Calibration.read(folder / "c.json"), CalibrationError)
    put("recipe", "sleepgym_edit.json", recipe_document(EditSpec()).decode())
    reader("recipe", lambda folder: read_recipe(folder / "sleepgym_edit.json"), EditError)

    # What is kept in the cache is made anew where it is damaged: these raise nothing.
    own = base.statistics
    rows = own.rehearsal[:3], own.held_out[:3]
    ModelStatistics({0: own.moments[0][:8, :8]}, *rows, own.prefixes).save(root / "statistics" / "s.safetensors", "0")
    reader("statistics", lambda folder: ModelStatistics.read(folder / "s.safetensors", "0"))
    cache = TargetCache(root / "targets", "0", torch.float32, EditSpec(), ())
    name = cache.name(facts[0])
    cache.put(name, base.editor.target_store.of(facts[:1])[0].target)
    reader("targets", lambda folder: TargetCache(folder, "0", torch.float32, EditSpec(), ()).get(name), changes=True)

    return made
