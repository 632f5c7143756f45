"""Notes beside the weights: what is noted, looked up, taught and paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

from sleepgym.env.observation import FeatureNameError, column, stat, structured
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector import SleepVectorEnv
from sleepgym.env.wrappers import RecordSleepStatistics
from sleepgym.episode.actions import LOOK_UPS, OPERATORS, Action, NoteAction
from sleepgym.episode.card import CardError, load_card
from sleepgym.episode.reward import question_weights
from sleepgym.episode.snapshot import Snapshot
from sleepgym.memory.doubt import are_sure, sureness
from sleepgym.notes.retrieval import with_notes
from sleepgym.record import Recorder, Recording
from sleepgym.record.replay import replay
from sleepgym.schedulers import allowed
from sleepgym.sleeper import SleepingLM

NOTE, NEVER, UNSURE, ALWAYS = NoteAction
NOTES: dict[str, Any] = {
    "capacity": 9,
    "ticks": 1,
    "token_price": 0.02,
    "look_up_price": 0.05,
    "sure_nats": 2.0,
    "while_offline": False,
}
QUICK: dict[str, Any] = {
    "edit": {"steps": 6},
    "sleep": {"scales": [1.0, 0.0], "rehearsal_rows": 2, "validation_rows": 4},
    "stream": {"arrival_rate": [1.0, 1.0], "update_share": [0.3, 0.5], "known_facts": 3},
    "budget": {"capacity": 6, "edits": [1.0, 1.0], "inject": 2},
    "ticks": {"sleep": 2, "offline": ["nap", "sleep"]},
    "episode": {"days": 1, "perplexity_rows": 4},
}


def make(**notes: Any) -> SleepEnv:
    return SleepEnv("SleepLLM-Mini-v0", notes=NOTES | notes, **QUICK)


@pytest.fixture(scope="module")
def env() -> SleepEnv:
    return make()


def until(env: SleepEnv, action: Any, seed: int = 0) -> None:
    """Waits from the beginning until an action is allowed."""
    env.reset(seed=seed)
    while not env.action_masks()[action]:
        env.step(Action.WAIT)


def changed(env: SleepEnv, first: Any) -> tuple[str, str]:
    """Handles facts by an action as they arrive, until one of them changes, and then not at once again; its key."""
    for seed in range(20):
        env.reset(seed=seed)
        while not env.over:
            episode = env.episode
            soon = {a.fact.key for tick in episode.stream.arrivals[episode.tick + 1 :][:2] for a in tick}
            for key, arrival in episode.inbox.pending.items():
                handled = key in {**episode.notes.told, **episode.learner.state.ledger}
                if arrival.is_update and handled and key not in soon:
                    return key
            env.step(first if env.action_masks()[first] else Action.WAIT)
    raise AssertionError("no fact changed after it was handled")


def drawn(env: SleepEnv, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(env.action_masks())))


# -------------------------------------------------------------------- answers


def test_readings_are_what_the_bare_model_answers_with_the_note_before_the_question(env: SleepEnv) -> None:
    env.reset(seed=3)
    readings, bare = env.episode.readings, SleepingLM(env.base)
    for fact, right in readings.right.items():
        answer = bare.ask(with_notes(fact.questions[0], [fact.statement]))
        assert right == (answer == fact.object)
    assert np.mean(list(readings.right.values())) > 0.9
    assert all(3 <= tokens <= 20 for tokens in readings.tokens.values())


def test_readings_are_the_same_whatever_the_weights_were_taught(env: SleepEnv) -> None:
    until(env, Action.INJECT)
    before = env.episode.readings
    env.step(Action.INJECT)
    env.episode.examiner.answers.readings = None
    assert env.episode.readings.right == before.right


def test_are_sure_is_sureness_at_a_threshold(learner, world, facts) -> None:
    learner.inject(facts[:4])
    asked = [fact.questions[0] for fact in (*facts, *world.known_facts()[:10])]
    margins = [sureness(learner.lm, question, learner.ask(question), learner.score) for question in asked]
    prompts = [learner.lm.encode(learner.lm.chat(question)).ids for question in asked]
    for nats in (0.0, 1.0, 4.0):
        sure = are_sure(learner.lm, prompts, nats, learner.base.overlay.asked(learner.state.memory))
        assert sure == [margin >= nats for margin in margins]
    assert 0 < sum(margin >= 1.0 for margin in margins) < len(margins)


def test_a_model_is_not_sure_of_an_answer_that_it_does_not_give(learner) -> None:
    ended = learner.lm.encode(learner.lm.chat("Who?")).ids

    def silence(rows, at):
        logits = np.zeros((len(at[0]), len(learner.lm.tokenizer)), np.float32)
        logits[:, learner.lm.tokenizer.eos_token_id] = 9
        return learner.lm.model.lm_head.weight.new_tensor(logits)

    assert are_sure(learner.lm, [ended], 1.0, silence) == [False]


def test_what_is_looked_up(env: SleepEnv) -> None:
    """Never nothing, always what is noted; if unsure, what the weights were not taught or are not sure of."""
    until(env, NOTE)
    env.step(NOTE)
    noted = np.array([key in env.episode.notes.told for key in env.episode.inbox.current])
    assert noted.any() and not env.episode.looked_up().any()
    env.step(ALWAYS)
    assert np.array_equal(env.episode.looked_up()[: len(noted)], noted)
    env.step(UNSURE)
    assert np.array_equal(env.episode.looked_up()[: len(noted)], noted)
    while not env.over:
        env.step(Action.INJECT if env.action_masks()[Action.INJECT] else Action.WAIT)
        episode = env.episode
        for key, looked_up in zip(episode.inbox.current, episode.looked_up(), strict=True):
            fact, note = episode.inbox.current[key].fact, episode.notes.told.get(key)
            taught = episode.inbox.written.get(key) in (fact, note)
            sure = episode.learner.ask(fact.questions[0]) and episode.examiner.sure([fact], 2.0)[0]
            assert looked_up == (note is not None and not (taught and sure))


@pytest.mark.parametrize("while_offline", [False, True])
@pytest.mark.parametrize("mode", LOOK_UPS)
def test_served_is_the_worth_of_the_answers(while_offline: bool, mode: NoteAction) -> None:
    """Per question: 1 if the weights are right, 1 minus the price if a note is, else 0."""
    env, rng = make(while_offline=while_offline, capacity=12), np.random.default_rng(1)
    env.reset(seed=5)
    if mode != NEVER:
        env.step(mode)
    offline_looked_up = 0.0
    for _ in range(40):
        if env.over:
            env.reset()
            env.step(mode if mode != NEVER else Action.WAIT)
        mask, before = env.action_masks(), env.episode.tick
        naps = mask[Action.NAP] and env.episode.notes.told and rng.random() < 0.4
        others = [a for a in np.flatnonzero(mask) if OPERATORS[a] not in LOOK_UPS]
        env.step(Action.NAP if naps else int(rng.choice(others)))
        episode, spec = env.episode, env.card.stream
        if env.over or len(episode.history) - before != 1 or len(episode.stream.arrivals[episode.tick]):
            continue  # several ticks, or facts that were not there when it was asked
        arrived, offline = episode.arrived, episode.history.offline[-1]
        age = before - arrived.arrived_at
        weights = question_weights(arrived.popularity, age, spec.recency_boost, spec.recency_ticks)
        worth = 0.0
        for key, weight, looked_up in zip(episode.inbox.current, weights, episode.looked_up(offline), strict=True):
            fact = episode.inbox.current[key].fact
            if looked_up:
                right = episode.notes.told[key] == fact and episode.readings.right[fact]
                worth += weight * right * (1 - 0.05 - 0.02 * episode.readings.tokens[episode.notes.told[key]])
            elif not offline:
                right = episode.inbox.written.get(key) == fact and episode.examiner.correct([fact])[0]
                worth += weight * right
        known = 0.0 if offline else np.mean(episode.examiner.correct(episode.stream.known))
        expected = (1 - spec.known_share) * worth + spec.known_share * known if len(weights) else known
        assert episode.history.served[-1] == pytest.approx(expected, abs=1e-9)
        offline_looked_up += offline * episode.history.served[-1]
    assert (offline_looked_up > 0) == (while_offline and mode != NEVER)


def test_an_answer_is_never_worth_less_than_nothing() -> None:
    env = make(token_price=1.0)
    until(env, NOTE)
    env.step(NOTE)
    env.step(ALWAYS)
    assert env.episode.looked_up().any()
    assert min(env.episode.history.served) >= 0
    assert env.episode.noted.price.max() == 1


# -------------------------------------------------------------------- routing


def test_a_note_costs_no_edit_and_clears_the_inbox(env: SleepEnv) -> None:
    until(env, NOTE)
    waiting = {key: arrival.fact for key, arrival in env.episode.inbox.pending.items()}
    version = env.episode.learner.state.memory.version
    *_, info = env.step(NOTE)
    assert env.episode.notes.told == waiting
    assert not waiting.keys() & {k for k, a in env.episode.inbox.pending.items() if a.fact == waiting.get(k)}
    assert info["edits_used"] == 0 and env.episode.learner.state.memory.version == version
    assert info["notes"] == len(waiting)


def test_inject_takes_the_most_popular_first_from_inbox_and_notes(env: SleepEnv) -> None:
    env.reset(seed=2)
    while len(env.episode.notes.told) < 5:
        env.step(NOTE if env.action_masks()[NOTE] else Action.WAIT)
    episode = env.episode
    there = [episode.inbox.current[key] for key in {**episode.notes.told, **episode.inbox.pending}]
    best = sorted((arrival.popularity for arrival in there), reverse=True)[:2]
    env.step(Action.INJECT)
    taught = [episode.inbox.current[key].popularity for key in episode.inbox.written]
    assert sorted(taught, reverse=True) == best
    assert episode.notes.told.keys() >= episode.inbox.written.keys() - episode.inbox.pending.keys()


def test_a_changed_fact_makes_its_note_stale_until_it_is_noted_anew(env: SleepEnv) -> None:
    key = changed(env, NOTE)
    fact = env.episode.inbox.pending[key].fact
    observation = env._observe()
    rows = list(env.episode.learner.state.ledger) + list(env.episode.inbox.pending)
    assert column(observation, "noted")[rows.index(key)] == column(observation, "stale")[rows.index(key)] == 1
    place = list(env.episode.inbox.current).index(key)
    assert not env.episode.noted.right[place]
    env.step(NOTE)
    assert env.episode.notes.told[key] == fact
    assert env.episode.noted.right[place] == env.episode.readings.right[fact]


def test_a_note_is_brought_up_to_what_the_weights_were_taught(env: SleepEnv) -> None:
    key = changed(env, NOTE)
    while key in env.episode.inbox.pending and not env.over:
        env.step(Action.INJECT)
    assert not env.over and env.episode.notes.told[key] != env.episode.inbox.written[key]
    env.step(NOTE)
    assert env.episode.notes.told[key] == env.episode.inbox.written[key]


@pytest.mark.parametrize("audit", [Action.NAP, Action.SLEEP])
def test_an_audit_teaches_what_notes_tell_otherwise_than_the_weights(env: SleepEnv, audit: Action) -> None:
    key = changed(env, Action.INJECT)
    old, new = env.episode.inbox.written[key], env.episode.inbox.pending[key].fact
    env.step(NOTE)
    assert env.episode.learner.state.ledger[key].fact == old
    used = env.episode.edits_used
    *_, info = env.step(audit)
    assert not info["invalid_action"] and env.episode.inbox.written[key] == new
    assert env.episode.learner.state.ledger[key].fact == new
    assert info["edits_used"] > used
    if audit == Action.NAP:
        assert env.episode.learner.state.ledger[key].audited


def test_an_audit_teaches_nothing_without_edits(env: SleepEnv) -> None:
    key = changed(env, Action.INJECT)
    env.step(NOTE)
    env.episode.state.edits_used = env.episode.stream.rhythm.edit_budget
    *_, info = env.step(Action.NAP)
    assert not info["invalid_action"] and info["edits_left"] == 0
    assert env.episode.inbox.written[key] != env.episode.notes.told[key]


def test_an_audit_that_fails_leaves_everything_as_it_was(env: SleepEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    from sleepgym.consolidation.spec import SleepError

    key = changed(env, Action.INJECT)
    env.step(NOTE)
    episode = env.episode
    before, written, used = episode.learner.state, dict(episode.inbox.written), episode.edits_used

    def fail(*args: Any, **kwargs: Any) -> None:
        raise SleepError("ill")

    monkeypatch.setattr(episode.learner, "sleep", fail)
    *_, info = env.step(Action.SLEEP)
    assert info["invalid_action"] and info["error_code"] == 4
    assert episode.learner.state.memory is before.memory and episode.learner.state.ledger[key] == before.ledger[key]
    assert (episode.inbox.written, episode.edits_used) == (written, used)


def test_full_notes_archive_what_slow_weights_hold_alone_and_lose_nothing() -> None:
    env, rng = make(capacity=4), np.random.default_rng(0)
    env.reset(seed=0)
    archived = 0
    while not env.over:
        mask, told = env.action_masks(), dict(env.episode.notes.told)
        wanted = [a for a in (NOTE, Action.INJECT, Action.SLEEP) if mask[a]] or [Action.WAIT]
        env.step(int(rng.choice(wanted)))
        notes = env.episode.notes
        assert len(notes.told) <= 4
        assert told.keys() <= {**notes.told, **notes.archived}.keys()
        archived = max(archived, len(notes.archived))
    assert archived > 0


# -------------------------------------------------------------- environment


def test_masks_and_observations_hold_whatever_is_done(env: SleepEnv) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        observation, info = env.reset(seed=seed)
        while not env.over:
            episode, notes = env.episode, env.episode.notes
            assert env.observation_space.contains(observation)
            assert notes.told.keys() <= episode.inbox.current.keys()
            assert len(notes.told) <= 9
            mask = env.action_masks()
            guess = allowed(observation)
            assert guess.shape == (10,) and np.array_equal(guess[list(LOOK_UPS)], mask[list(LOOK_UPS)])
            assert stat(observation, "answering") == LOOK_UPS.index(notes.answering) / 2
            present = column(observation, "present") > 0
            assert not column(observation, "noted")[~present].any()
            assert (column(observation, "looked_up") <= column(observation, "noted")).all()
            action = drawn(env, rng) if rng.random() < 0.8 else int(rng.integers(len(OPERATORS)))
            observation, _, _, _, info = env.step(action)
            assert info["invalid_action"] == (not mask[action])
            assert 0 <= info["score"] <= 1 and 0 <= info["look_ups"] <= 1
            assert info["edits_left"] >= 0


def test_snapshots_restore_and_are_saved_bit_for_bit(env: SleepEnv, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    env.reset(seed=7)
    for action in (UNSURE, NOTE, Action.INJECT, *(drawn(env, rng) for _ in range(4))):
        env.step(action)
    env.snapshot().save(tmp_path)
    read = Snapshot.load(tmp_path, env.base.lm)
    assert read.state.notes == env.episode.notes and read.state.answers.sure == env.episode.examiner.answers.sure
    others = [env.fork(), make(), make()]
    others[1].restore(read)
    others[2].restore(env.snapshot())
    while not env.over:
        action = drawn(env, rng)
        expected = env.step(action)
        for other in others:
            assert data_equivalence(other.step(action), expected, exact=True)


def test_a_vector_lives_through_what_single_environments_do() -> None:
    arguments = {"card": "SleepLLM-Mini-v0", "notes": NOTES, **QUICK}
    envs = SleepVectorEnv(3, **arguments)
    singles = [make() for _ in range(3)]
    _, infos = envs.reset(seed=[4, 5, 6])
    for seed, single in zip((4, 5, 6), singles, strict=True):
        single.reset(seed=seed)
    rng = np.random.default_rng(0)
    for _ in range(10):
        actions = [drawn(single, rng) for single in singles]
        _, _, terminated, truncated, infos = envs.step(np.array(actions))
        for i, (single, action) in enumerate(zip(singles, actions, strict=True)):
            *_, info = single.step(action)
            for name in ("recall", "score", "notes", "look_ups", "edits_used", "pending"):
                assert infos[name][i] == pytest.approx(info[name], abs=1e-6), name
        if (terminated | truncated).any():
            break


def test_recordings_replay(tmp_path: Path) -> None:
    env, rng = Recorder(make()), np.random.default_rng(5)
    env.reset(seed=9)
    while not env.unwrapped.over:
        env.step(drawn(env.unwrapped, rng))
    env.recording.save(tmp_path / "episode.json")
    found = replay(Recording.load(tmp_path / "episode.json"))
    assert found.agrees and found.largest_error == 0


def test_flat_observations_are_told_from_those_without_notes() -> None:
    flat = SleepEnv("SleepLLM-Mini-v0", notes=NOTES, flat=True, **QUICK)
    vector, _ = flat.reset(seed=0)
    seen, usual = structured(vector), make().reset(seed=0)[0]
    assert all(np.array_equal(seen[name], usual[name]) for name in usual)
    plain, _ = SleepEnv("SleepLLM-Mini-v0", **QUICK).reset(seed=0)
    with pytest.raises(FeatureNameError, match="answering"):
        stat(plain, "answering")
    with pytest.raises(FeatureNameError, match="noted"):
        column(plain, "noted")


def test_summaries_name_the_actions_of_notes() -> None:
    env = RecordSleepStatistics(make())
    env.reset(seed=0)
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step(NOTE if env.unwrapped.action_masks()[NOTE] else UNSURE)
        over = terminated or truncated
    actions = info["sleep"]["actions"]
    assert list(actions) == [action.name.lower() for action in OPERATORS]
    assert actions["note"] > 0 and sum(actions.values()) == pytest.approx(1)


def test_pictures_and_texts_show_notes(env: SleepEnv) -> None:
    env.reset(seed=0)
    for action in (UNSURE, NOTE, NOTE, ALWAYS, NEVER, Action.WAIT):
        env.step(action)
    shown = SleepEnv(env.card, render_mode="ansi")
    shown.restore(env.snapshot())
    assert "looked up never" in shown.render() and "of 9" in shown.render()
    shown.render_mode = "rgb_array"
    assert shown.render().shape == (480, 640, 3)


# ----------------------------------------------------------------------- card


def test_other_cards_have_neither_actions_nor_features_of_notes() -> None:
    env = SleepEnv("SleepLLM-Mini-v0", **QUICK)
    _, info = env.reset(seed=0)
    assert env.action_space.n == len(Action) == 6
    assert env.observation_space["ledger"].shape[1] == 11 and env.observation_space["stats"].shape == (21,)
    assert not {"notes", "look_ups"} & info.keys()


def test_impossible_cards_are_refused() -> None:
    with pytest.raises(CardError, match=r"key notes: expected notes on a card without \[parameters\]"):
        load_card("SleepLLM-Param-v0", notes=NOTES)
    with pytest.raises(CardError, match=r"key notes\.token_price"):
        load_card("SleepLLM-Mini-v0", notes=NOTES | {"token_price": 1.5})
    with pytest.raises(CardError, match=r"notes\.capacity: expected another number of rows .* 21"):
        SleepEnv(
            "SleepLLM-Mini-v0",
            notes=NOTES | {"capacity": 21 - 6 - load_card("SleepLLM-Mini-v0").budget.pending},
            **QUICK,
        )
