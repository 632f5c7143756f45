"""Settings every test runs under, and the few things most tests need."""

from __future__ import annotations

import importlib.util
import io
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    # Fixed, not left to the machine: how a sum is split over threads decides its last bits. One, since passes of small
    # models are too small to share, and tests run in two processes; those that tests start get one as well.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    # Kept between runs, so edit targets are warm; emptied by `pytest --cache-clear`; never the user's own.
    os.environ["SLEEPGYM_CACHE"] = str(config.cache.mkdir("sleepgym"))
    # A test that reaches for a hub by mistake fails at once instead of hanging without a network.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from sleepgym.evaluation.processes import PRELOADED  # now: libraries read the environment when imported

    # Whoever first needs workers starts the server that they are forked from, and all that follow find torch loaded.
    multiprocessing.set_forkserver_preload([*PRELOADED])


@pytest.fixture(scope="session")
def run_script() -> Callable[..., str]:
    """Runs a script of the repository in a folder, as ``run_script("agents/demo.py", "--seed", "1", cwd=folder)``.

    All that `python agents/demo.py` would run, but in this process: most of a short run would be importing torch.
    """
    root = Path(__file__).parents[1]

    def run(script: str, *arguments: str, cwd: Path) -> str:
        shown = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown):
            patch.chdir(cwd)
            patch.syspath_prepend(root)
            patch.setattr(sys, "argv", [script, *arguments])
            patch.setenv("COLUMNS", "80")
            runpy.run_path(str(root / script), run_name="__main__")
        return shown.getvalue()

    return run


@pytest.fixture(scope="session")
def run_process() -> Callable[..., str]:
    """As ``run_script``, in a process of its own, for what starts processes itself or is shown to people as a whole."""
    root = Path(__file__).parents[1]

    def run(script: str, *arguments: str, cwd: Path) -> str:
        command = [sys.executable, str(root / script), *arguments]
        # The checkout's package, installed or not.
        environment = {**os.environ, "PYTHONPATH": str(root)}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def load_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A script of the repository as a module, as ``load_script("agents/ppo.py")``."""
    root = Path(__file__).parents[1]

    def load(script: str) -> ModuleType:
        name = Path(script).stem
        spec = importlib.util.spec_from_file_location(name, root / script)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Where dataclasses look up the types that annotations name.
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def quick_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SleepLLM-Mini-v0 with one day, and with little effort in edits and nights: an episode takes a second."""
    from sleepgym.episode.card import load_card
    from sleepgym.files import card_paths

    path = tmp_path_factory.mktemp("cards") / "quick.toml"
    text = card_paths()["SleepLLM-Mini-v0"].read_text(encoding="utf-8")
    fewer = {
        "\nsteps = 12\n": "\nsteps = 2\n",
        "rehearsal_rows = 4": "rehearsal_rows = 1",
        "validation_rows = 16": "validation_rows = 2",
        "perplexity_rows = 16": "perplexity_rows = 2",
        "days = 2": "days = 1",
    }
    for usual, quick in fewer.items():
        assert usual in text
        text = text.replace(usual, quick)
    path.write_text(text, encoding="utf-8")
    assert (load_card(path).sleep.steps, load_card(path).edit.steps, load_card(path).horizon) == (2, 2, 12)
    return path


@pytest.fixture(scope="session")
def episode() -> Callable:
    """Makes results of episodes, as ``episode(seed=3, score=0.2)``."""
    from sleepgym.evaluation import EpisodeResult

    usual = EpisodeResult(
        seed=1, score=0.5, recall=0.75, edits_used=9, budget=12, sleeps=2, naps=1, ppl_ratio=1.1, seconds=3.0,
        episode_return=20.0, collapsed=False, actions=(0, 1, 1, 4), degraded=2,
    )  # fmt: skip
    return partial(replace, usual)


@pytest.fixture(scope="session")
def base():
    """The bundled model with hooks, statistics and editor; never written to."""
    from sleepgym.editing import EditSpec
    from sleepgym.lm import load
    from sleepgym.sleeper import make_base

    return make_base(load("tiny"), EditSpec())


@pytest.fixture
def learner(base):
    """A learner that was taught nothing, with short nights."""
    from sleepgym.consolidation.spec import SleepSpec
    from sleepgym.sleeper import SleepingLM

    return SleepingLM(base, SleepSpec(steps=40), seed=0)


@pytest.fixture(scope="session")
def world():
    from sleepgym.facts.world import World

    return World()


@pytest.fixture(scope="session")
def facts(world):
    """Twelve facts about people the model was never taught anything about."""
    return world.new_facts(np.random.default_rng(5), 12)


@pytest.fixture(scope="session")
def small_llm(base) -> Callable:
    """Makes a language model from a small random model; it shares the bundled tokenizer (take its vocabulary size)."""
    from sleepgym.lm import LanguageModel, find_blocks

    def make(model) -> LanguageModel:
        model.eval().requires_grad_(False)
        return LanguageModel("random", model, base.lm.tokenizer, find_blocks(model))

    return make


@pytest.fixture
def unchanged() -> Callable[..., AbstractContextManager]:
    """Checks around a block that terms, ledger, random state, clock and logits of a learner stay as they were."""

    def logits(learner) -> torch.Tensor:
        ids = learner.lm.pad(
            [learner.lm.encode(fact.statement).ids for fact in learner.state.ledger.facts] or [[1, 2, 3]]
        )
        with torch.no_grad(), learner.base.overlay.use(learner.state.memory):
            return learner.lm.model(input_ids=ids).logits

    @contextmanager
    def check(learner) -> Iterator[None]:
        before, logits_before = learner.state.copy(), logits(learner)
        yield
        after = learner.state
        assert list(after.memory.terms) == list(before.memory.terms)
        assert all(after.memory.terms[owner] is term for owner, term in before.memory.terms.items())
        assert after.memory.version == before.memory.version
        assert list(after.ledger) == list(before.ledger)
        assert all(after.ledger[key] is entry for key, entry in before.ledger.items())
        assert after.ledger.capacity == before.ledger.capacity
        assert after.rng.bit_generator.state == before.rng.bit_generator.state
        assert after.tick == before.tick
        assert after.settled == before.settled
        assert torch.equal(logits(learner), logits_before)

    return check


@pytest.fixture(scope="session")
def assert_consistent() -> Callable:
    """Checks that inbox, ledger, memory and budget of an environment agree with each other."""
    from sleepgym.memory.owners import EDIT, owner_of

    def check(env) -> None:
        episode, state = env.episode, env.episode.learner.state
        ledger, scales = state.ledger, env.card.sleep.scales
        assert len(ledger) <= env.card.budget.capacity == ledger.capacity
        assert episode.edits_left >= 0
        assert len(episode.inbox.pending) <= env.card.budget.pending
        owners = [owner_of(entry.fact) for entry in ledger.values()]
        # An edit is kept, if only at scale 0, as long as its fact is in the ledger, and not a moment longer.
        assert len(set(owners)) == len(owners)
        edits = {owner for owner in state.memory.terms if owner.startswith(EDIT)}
        assert edits == set(owners)
        for (key, entry), owner in zip(ledger.items(), owners, strict=True):
            assert entry.fact.key == key
            assert 0 <= entry.stage <= env.card.sleep.last_stage
            scale = state.scale_of(key)
            assert scale == state.memory.terms[owner].scale
            # At stage 0 an edit is in force, unless it spoilt more than it held.
            assert scale == scales[entry.stage] or (entry.stage, scale) == (0, 0.0)
            assert entry.written_at <= episode.tick
            assert entry.audited_at <= episode.tick
        assert ledger.keys() <= episode.inbox.current.keys()

    return check
