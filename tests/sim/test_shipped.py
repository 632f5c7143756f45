"""The fits that ship: each says what it was made of, and plays the sim of its card without its model."""

import gymnasium as gym
import numpy as np
import pytest

import sleepgym  # noqa: F401 - registers the sims
from sleepgym.episode.actions import Action
from sleepgym.evaluation import simulate
from sleepgym.schedulers import Caretaker, NightOwl, NoteFirst, NotesOnly
from sleepgym.sim.fit_files import load_fit
from sleepgym.sim.maker import FITS, setting_and_response, shipped
from sleepgym.sim.registration import sim_id

CARDS = ("SleepLLM-v0", "SleepLLM-Gemma-v0", "SleepLLM-Notes-v0")


def test_fits_ship_for_the_bundled_and_for_a_pretrained_model_and_for_notes():
    assert set(shipped()) == set(CARDS) == {path.stem for path in FITS.glob("*.safetensors")}


@pytest.mark.parametrize("card_id", CARDS)
def test_a_fit_says_what_it_was_made_of(card_id):
    _, card = load_fit(FITS / f"{card_id}.safetensors")
    assert card.card_id == card_id and card.episodes >= 12 and len(card.policies) >= 6
    assert len(card.fingerprint) == 64 and card.date and card.sleepgym


@pytest.mark.parametrize("card_id", CARDS)
def test_episodes_of_a_shipped_fit_go_to_their_end(card_id):
    envs = gym.make_vec(sim_id(card_id), num_envs=16)
    observation, info = envs.reset(seed=3)
    rng, scores = np.random.default_rng(0), []
    for _ in range(200):
        actions = [rng.choice(np.flatnonzero(mask)) for mask in info["action_mask"]]
        observation, reward, _, _, info = envs.step(np.array(actions))
        assert np.isfinite(reward).all() and all(np.isfinite(part).all() for part in observation.values())
        scores += info["score"].tolist()
    assert min(scores) >= 0 and max(scores) <= 1


def test_a_card_without_notes_is_played_as_when_its_fit_was_made():
    """Simulated scores of the version that made the fit: streams, states and masks draw in the same order since."""
    setting, response = setting_and_response("SleepLLM-v0", None, {})
    before = {
        Caretaker(): [0.662964, 0.810337, 0.772738, 0.820236, 0.751147, 0.836981],
        NightOwl(): [0.669797, 0.764503, 0.75709, 0.859009, 0.742309, 0.787945],
    }
    for rule, scores in before.items():
        found = [episode.score for episode in simulate(setting, response, rule, range(6))]
        assert found == pytest.approx(scores, abs=1e-6)


def test_notes_and_weights_together_are_worth_more_than_either():
    setting, response = setting_and_response("SleepLLM-Notes-v0", None, {})

    def score(rule):
        return np.mean([episode.score for episode in simulate(setting, response, rule, range(12))])

    assert score(NoteFirst(popular_at=0.2)) > max(score(NotesOnly()), score(NightOwl())) + 0.03


@pytest.mark.parametrize("card_id", CARDS)
def test_teaching_and_sleeping_are_worth_more_than_waiting(card_id):
    setting, response = setting_and_response(card_id, None, {})

    def score(rule):
        return np.mean([episode.score for episode in simulate(setting, response, rule, range(12))])

    assert score(NightOwl(load_at=0.15)) > score(lambda observation, mask: Action.WAIT) + 0.1
