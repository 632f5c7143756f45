"""A response is fitted to records of real episodes, kept in a file, and played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.reading import read_arrays
from sleepgym.sim.features import FORMS
from sleepgym.sim.fit import FitError, Tried, fit_response, samples_of
from sleepgym.sim.fit_files import card_of, load_fit, save_fit
from sleepgym.sim.fitted import CHANCES, DAMAGE, MARGINS, SURE, FittedResponse
from sleepgym.sim.recorder import Policy, Record, RecordError, record_episode
from sleepgym.sim.replay import changes_of
from sleepgym.sim.vector import SimVectorEnv
from tests.sim.conftest import NOTES


@pytest.fixture(scope="module")
def records(mini: Callable[..., SleepEnv], busy: Callable[[int], Policy]) -> list[Record]:
    return [record_episode(mini(), busy(seed), seed, f"busy {seed % 2}") for seed in range(5)]


@pytest.fixture(scope="module")
def fitted(records: list[Record]) -> tuple[FittedResponse, list[Tried]]:
    return fit_response(records)


def test_every_form_of_every_model_is_tried_and_one_is_chosen(fitted: tuple[FittedResponse, list[Tried]]) -> None:
    response, tried = fitted
    names = {*MARGINS, *DAMAGE, *CHANCES}
    assert {*response.linear, *response.logistic} == names
    assert {(each.model, each.form) for each in tried} == {(name, form) for name in names for form in FORMS}
    for name in names:
        own = [each for each in tried if each.model == name]
        assert sum(each.chosen for each in own) == 1
        best = next(each for each in own if each.chosen)
        assert not any(each.likelihood > best.likelihood for each in own)


def test_a_fit_in_a_file_is_the_same_fit(
    fitted: tuple[FittedResponse, list[Tried]], records: list[Record], tmp_path: Path
) -> None:
    save_fit(tmp_path / "fit.safetensors", fitted[0], card_of("SleepLLM-Mini-v0", records, fitted[1]))
    loaded, card = load_fit(tmp_path / "fit.safetensors")
    assert (card.episodes, card.policies, card.model) == (5, ("busy 0", "busy 1"), "tiny")
    assert len(card.tried) == len(fitted[1])
    played = [play(SimVectorEnv(6, records[0].about.card, each)) for each in (fitted[0], loaded)]
    assert np.array_equal(*played)


def test_a_fit_of_a_card_with_notes_knows_what_was_read_and_when_the_model_is_sure(
    mini: Callable[..., SleepEnv], busy: Callable[[int], Policy], tmp_path: Path
) -> None:
    env = mini(notes=NOTES, budget={"edits": [3.0, 4.0]})
    records = [record_episode(env, busy(seed), seed, "busy") for seed in range(3)]
    response, tried = fit_response(records)
    assert response.read is not None and {each.form for each in tried if each.model == SURE} == set(FORMS)
    tokens = np.concatenate([record.streams.note_tokens[0] for record in records])
    np.testing.assert_array_equal(response.read.tokens, tokens[tokens > 0])
    for number, record in enumerate(records):
        record.save(tmp_path / f"{number}.safetensors")
        again = Record.load(tmp_path / f"{number}.safetensors")
        assert again.taught is not None and record.taught is not None
        assert all(np.array_equal(getattr(again.taught, n), a) for n, a in vars(record.taught).items())
        assert np.array_equal(again.sure, record.sure)
    save_fit(tmp_path / "fit.safetensors", response, card_of("SleepLLM-Mini-v0", records, tried))
    loaded, _ = load_fit(tmp_path / "fit.safetensors")
    played = [play(SimVectorEnv(6, env.card, each)) for each in (response, loaded)]
    assert np.array_equal(*played)


def test_what_is_sure_in_records_follows_from_margins_but_for_wrong_answers(
    mini: Callable[..., SleepEnv], busy: Callable[[int], Policy]
) -> None:
    """The fit draws the sureness of answers that are wrong, and takes all others from their margins."""
    nats = NOTES["sure_nats"]
    for seed in range(3):
        record = record_episode(mini(notes=NOTES, budget={"edits": [3.0, 4.0]}), busy(seed), seed, "busy")
        for change in changes_of(record):
            written = change.at.state.facts.written >= 0
            chat, sure = change.after.chat[written], change.after.sure[written]
            assert sure[chat >= nats].all() and not sure[np.abs(chat) < nats].any()


def test_records_from_before_there_were_notes_are_read(records: list[Record], tmp_path: Path) -> None:
    records[0].save(tmp_path / "new.safetensors")
    arrays, about = read_arrays(tmp_path / "new.safetensors")
    before = {name: array for name, array in arrays.items() if name != "sure" and "stream.note" not in name}
    assert len(before) == len(arrays) - 3
    save_file(before, tmp_path / "old.safetensors", about)
    assert changes_of(Record.load(tmp_path / "old.safetensors"))[0].at.state.mind.sure.shape == (1, 0)


def play(envs: SimVectorEnv) -> np.ndarray:
    """Rewards of random play, ``[steps, environments]``."""
    envs.reset(seed=0)
    rng, rewards = np.random.default_rng(0), []
    for _ in range(60):
        masks = envs.action_masks()
        actions = (rng.random(masks.shape) * masks).argmax(1)
        observation, reward, *_ = envs.step(actions)
        assert envs.observation_space.contains(observation)
        rewards.append(reward)
    return np.array(rewards)


def test_what_the_fit_sees_in_a_record_is_all_that_changed(records: list[Record]) -> None:
    for record in records:
        kinds = [change.action for change in changes_of(record)]
        done = record.action[~record.invalid].tolist()
        assert kinds == [action for action in done if action in (Action.INJECT, Action.REFRESH, Action.SLEEP)]
        samples = dict(samples_of(changes_of(record)))
        written = sum(int(c.chosen.sum()) for c in changes_of(record) if c.action == Action.INJECT)
        assert len(samples["inject.written"].targets) == written


def test_a_record_in_a_file_is_the_same_record(records: list[Record], tmp_path: Path) -> None:
    records[0].save(tmp_path / "one.safetensors")
    loaded = Record.load(tmp_path / "one.safetensors")
    assert loaded.about == records[0].about
    for name, array in vars(records[0]).items():
        if isinstance(array, np.ndarray):
            assert np.array_equal(getattr(loaded, name), array), name
    assert all(np.array_equal(getattr(loaded.streams, n), a) for n, a in vars(records[0].streams).items())


def test_what_cannot_be_fitted_or_read_is_said(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(FitError, match="at least two records"):
        fit_response(records[:1])
    sleepless = [replace(record, action=np.zeros_like(record.action)) for record in records]
    with pytest.raises(FitError, match="records with INJECT"):
        fit_response(sleepless)
    others = [records[0], replace(records[1], about=replace(records[1].about, fingerprint="other"))]
    with pytest.raises(FitError, match="records of one model"):
        card_of("", others, [])
    (tmp_path / "no.safetensors").write_bytes(b"no")
    for load, error in ((Record.load, RecordError), (load_fit, FitError)):
        for path in ("no.safetensors", "absent.safetensors"):
            with pytest.raises(error, match=path):
                load(tmp_path / path)
