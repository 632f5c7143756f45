"""``sleepgym play``: what is typed is what the environment does."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import pytest
from PIL import Image

from sleepgym.cli.main import main
from sleepgym.cli.play import action_of
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action, NoteAction
from sleepgym.evaluation import run_episode
from sleepgym.record.recording import Recording
from sleepgym.schedulers import NeverSleep

MINI = "SleepLLM-Mini-v0"


@pytest.fixture
def play(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    def run(typed: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        status = main(["play", *arguments])
        return status, capsys.readouterr().out

    return run


def test_what_is_typed_is_played_recorded_and_drawn(play: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    typed = "inject\nW\nnonsense\nrefresh\nn\nq\n"
    status, shown = play(typed, "--record", "mine.json", "--picture", "now.png", "--seed", "0")
    assert status == 0
    recording = Recording.load(tmp_path / "mine.json")
    assert recording.actions == (Action.INJECT, Action.WAIT, Action.NAP)
    assert (recording.seed, recording.split, recording.ended) == (0, "validation", False)
    assert "found 'nonsense'" in shown and "found 'refresh'" in shown
    env = gym.make(MINI, split="validation", render_mode="rgb_array")
    env.reset(seed=0)
    for action in recording.actions:
        env.step(action)
    with Image.open(tmp_path / "now.png") as picture:
        # As of the last state: who leaves has seen it.
        assert picture.convert("RGB").tobytes() == Image.fromarray(env.render()).tobytes()  # type: ignore[arg-type]


def test_at_the_end_a_rule_plays_the_same_stream(play: Callable[..., tuple[int, str]]) -> None:
    status, shown = play("w\n" * 40, "--against", "never-sleep", "--no-window")
    assert status == 0
    rule = run_episode(gym.make(MINI, split="validation"), NeverSleep(), seed=0)
    (line,) = (line for line in shown.splitlines() if "questions answered correctly" in line)
    assert f"{rule.score:.1%}" in line and line.count("%") == 2


def test_the_end_of_the_input_leaves(play: Callable[..., tuple[int, str]]) -> None:
    status, shown = play("", "--no-window")
    assert status == 0 and "0, 0" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--against", "owl"), "'owl'"),
        (("--env-id", "SleepSim-v0"), "SleepSim-v0"),
        (("--env-id", "SleepLLM-None-v0"), "SleepLLM-None"),
    ],
)
def test_what_cannot_be_played_is_a_line_and_status_2(
    play: Callable[..., tuple[int, str]], arguments: tuple[str, ...], said: str
) -> None:
    status, shown = play("q\n", *arguments)
    assert status == 2 and said in shown


def test_a_split_that_there_is_not_is_refused_with_those_there_are(
    play: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        play("q\n", "--split", "tomorrow")
    said = capsys.readouterr()
    assert ended.value.code == 2 and all(split in said.out + said.err for split in ("tomorrow", "train", "validation"))


def test_a_number_goes_with_actions_that_have_one() -> None:
    env = SleepEnv("SleepLLM-Param-v0", split="validation")
    env.reset(seed=0)
    assert env.card.parameters is not None
    facts, nights = env.card.parameters.facts, env.card.parameters.sleep
    assert action_of("wait", env).tolist() == env.choices.usual(Action.WAIT).tolist()
    while not env.episode.mask()[Action.INJECT]:
        env.step(env.choices.usual(Action.WAIT))
    assert env.choices.of(action_of(f"i {facts[1]}", env)).facts == facts[1]
    env.step(env.choices.usual(Action.INJECT))
    assert env.choices.of(action_of(f"sleep {nights[-1]}", env)).ticks == nights[-1]
    for line in ("wait 3", "sleep 999", "sleep x", "x", ""):
        with pytest.raises(ValueError, match="expected"):
            action_of(line, env)
    plain = SleepEnv(MINI)
    plain.reset(seed=0)
    plain.step(Action.INJECT)
    with pytest.raises(ValueError, match="without a number"):
        action_of("sleep 3", plain)


def test_a_card_with_notes_has_its_further_actions() -> None:
    env = SleepEnv("SleepLLM-Notes-v0")
    env.reset(seed=0)
    assert action_of("look_up_a", env) == NoteAction.LOOK_UP_ALWAYS
    with pytest.raises(ValueError, match=r"expected one of .*look_up_unsure, look_up_always, found 'note'"):
        action_of("note", env)
