"""Text of episodes, for terminals."""

from __future__ import annotations

import pytest
import torch
from rich.text import Text

from sleepgym.env.render.text import ACTIONS, NOTE_ACTIONS, ROWS, STANDINGS, WIDTH
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import OPERATORS, Action, NoteAction
from sleepgym.episode.history import Standing
from sleepgym.episode.stream import Arrival
from sleepgym.facts.fact import Fact


@pytest.fixture
def env() -> SleepEnv:
    """An environment whose first facts have just been written."""
    env = SleepEnv("SleepLLM-Mini-v0", render_mode="ansi")
    env.reset(seed=1)
    while not env.action_masks()[Action.INJECT]:
        env.step(Action.WAIT)
    env.step(Action.INJECT)
    return env


def plain(env: SleepEnv) -> str:
    seen = env.render()
    assert isinstance(seen, str)
    return Text.from_ansi(seen).plain


def rows(env: SleepEnv) -> list[str]:
    """The ledger's, without what is above."""
    lines = plain(env).splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[:2] == ["fact", "object"])
    return [line for line in lines[head + 2 :] if line.strip() and "nats" not in line]


def test_every_action_has_a_letter_of_its_own_and_every_standing_a_word() -> None:
    assert set(ACTIONS) == {action.name for action in Action}
    assert set(NOTE_ACTIONS) == {action.name for action in NoteAction}
    assert len({letter for letter, _ in (ACTIONS | NOTE_ACTIONS).values()}) == len(OPERATORS)
    assert set(STANDINGS) == set(Standing)


def test_vitals_say_what_the_info_says(env: SleepEnv) -> None:
    *_, info = env.step(Action.WAIT)
    words = plain(env)
    assert f"day 1 of 2, tick {info['tick']} of 12" in words
    assert f"{info['recall']:.2f}" in words
    assert f"{info['edits_left']} of {info['edits_left'] + info['edits_used']}" in words
    assert f"{info['ppl_ratio'] - 1:+.1%}" in words
    assert f"arrived {info['arrived']}: " in words
    assert f"inbox, {info['pending']} of 4: " in words
    assert "".join(ACTIONS[doing][0] for doing in env.episode.history.doing) in words


def test_no_line_is_wider_than_a_hundred_columns(env: SleepEnv) -> None:
    assert max(map(len, plain(env).splitlines())) <= WIDTH


def test_a_forgotten_fact_comes_first_and_is_named_so(env: SleepEnv) -> None:
    last = list(env.episode.learner.state.ledger.values())[-1].fact
    env.episode.examiner.note([last], torch.tensor([1.0]))
    assert rows(env)[-1].split()[-1] == "recalled"
    env.episode.examiner.note([last], torch.tensor([-1.0]))
    first = rows(env)[0]
    assert last.object in first
    assert first.split()[-1] == "forgotten"


def test_an_outdated_fact_is_named_so(env: SleepEnv) -> None:
    fact = env.episode.learner.state.ledger.facts[0]
    newer = Fact(fact.subject, fact.prompt, "somewhere else", fact.relation)
    env.episode.inbox.arrive([Arrival(newer, env.episode.tick, 1.0, is_update=True)])
    (row,) = (row for row in rows(env) if row.split()[-1] == "outdated")
    # What is listed is what was written.
    assert fact.object in row


def test_at_most_some_facts_are_listed(env: SleepEnv) -> None:
    facts = [Fact(f"Person {i}", f"Person {i} lives in", f"Town {i}", "home") for i in range(ROWS + 3)]
    episode = env.episode
    episode.learner.state.ledger.capacity += len(facts)
    for fact in facts:
        episode.inbox.arrive([Arrival(fact, episode.tick, 1.0)])
        episode.inbox.mark_written([fact])
        episode.learner.state.ledger.put(type(next(iter(episode.learner.state.ledger.values())))(fact))
    episode.examiner.note(facts, torch.full((len(facts),), -1.0))
    assert len(rows(env)) == ROWS


def test_facts_cannot_act_on_the_terminal(env: SleepEnv) -> None:
    bad = Fact("Eve", "Eve [red]lives in", "Rome", "home")
    # Facts refuse control characters; one that came in by another way is still shown harmlessly.
    object.__setattr__(bad, "prompt", "Eve\x1b[2J\x07 [red]lives in")
    env.episode.inbox.arrive([Arrival(bad, env.episode.tick, 1.0)])
    seen = env.render()
    assert isinstance(seen, str)
    assert "\x1b[2J" not in seen
    assert "\x07" not in seen
    assert "[red]lives in" in Text.from_ansi(seen).plain


def test_equal_episodes_make_equal_texts_and_drawing_asks_nothing(env: SleepEnv) -> None:
    passes = env.episode.examiner.answers.forward_passes
    assert env.render() == env.fork().render()
    assert env.episode.examiner.answers.forward_passes == passes


def test_colours_can_be_turned_off(env: SleepEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = env.render()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" in str(coloured)
    assert "\x1b[33m" not in str(env.render())
    assert plain(env) == Text.from_ansi(str(coloured)).plain


def test_the_end_is_named(env: SleepEnv) -> None:
    while not env.over:
        env.step(Action.WAIT)
    assert "the end after 24 ticks" in plain(env)
