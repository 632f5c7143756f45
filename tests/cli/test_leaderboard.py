"""``sleepgym leaderboard``: what it plays, what it shows, what it hands in, and what it does not let pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO

from sleepgym.cli.main import main
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.wrappers import FlattenLedger
from sleepgym.episode.actions import Action
from sleepgym.evaluation import ScoreMatrix
from sleepgym.leaderboard import playing
from sleepgym.leaderboard.submission import Submission
from sleepgym.record.recording import Recording
from sleepgym.training import LedgerExtractor, PolicyCard

MINI = ("--env-id", "SleepLLM-Mini-v0", "--streams", "2")
STREAMS = (10_000_000, 10_000_001)
NAPS = "never-sleep:nap_days=0.5"


class Ran(NamedTuple):
    """What came of a command."""

    status: int
    table: str
    said: str


def leaderboard(*arguments: str) -> Ran:
    """Runs it; its table and what it says beside it."""
    table, said = StringIO(), StringIO()
    with redirect_stdout(table), redirect_stderr(said):
        status = main(["leaderboard", *arguments])
    return Ran(status, table.getvalue(), said.getvalue())


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """The folder of two schedulers that write and never sleep, and what was shown."""
    folder = tmp_path_factory.mktemp("leaderboard")
    return folder, leaderboard("never-sleep", NAPS, *MINI, "--validate", "1", "--out", str(folder))


def test_the_table_is_markdown_with_the_best_first(handed_in: tuple[Path, Ran]) -> None:
    folder, ran = handed_in
    assert ran.status == 0
    lines = ran.table.splitlines()
    assert lines[0] == "**SleepLLM-Mini-v0, 2 test streams, mean [95 % interval]**"
    assert lines[2] == "| scheduler | score | edits | nights | drift | invalid | s per episode | policy | model |"
    rows = {cells[1]: cells for cells in ([cell.strip() for cell in line.split("|")] for line in lines[4:])}
    assert set(rows) == {"never-sleep", NAPS}
    for name, cells in rows.items():
        scores = ScoreMatrix.load(folder / name.replace(":", "-") / "scores.json").scores
        # Of two streams, the interval's ends are their scores.
        assert cells[2] == f"{scores.mean():.3f} [{scores.min():.3f}, {scores.max():.3f}]"
        assert cells[8:10] == ["", SleepEnv("SleepLLM-Mini-v0").base.lm.fingerprint[:12]]
    points = [float(cells[2].split()[0]) for cells in rows.values()]
    assert points == sorted(points, reverse=True)
    assert (folder / "leaderboard.md").read_text() == ran.table
    assert [row["scheduler"] for row in json.loads((folder / "leaderboard.json").read_text())["rows"]] == list(rows)


def test_what_is_handed_in_is_scores_and_recordings_of_the_test_streams(handed_in: tuple[Path, Ran]) -> None:
    folder, _ = handed_in
    scores = ScoreMatrix.load(folder / "never-sleep" / "scores.json")
    assert (scores.name, scores.streams) == ("never-sleep", STREAMS)
    for at, stream in enumerate(STREAMS):
        recording = Recording.load(folder / "never-sleep" / "recordings" / f"{stream}.json")
        assert (recording.seed, recording.split, recording.card_id) == (stream, "test", "SleepLLM-Mini-v0")
        assert recording.score == scores.scores[0, at]
        assert set(recording.actions) <= {Action.WAIT, Action.INJECT, Action.REFRESH}


def test_as_many_episodes_as_asked_are_played_again(handed_in: tuple[Path, Ran]) -> None:
    folder, ran = handed_in
    lines = ran.said.splitlines()
    assert [line.rpartition(": valid; played again: ")[0] for line in lines] == ["never-sleep", NAPS]
    assert all(int(line.split()[-1]) in STREAMS for line in lines)
    checked = leaderboard("--check", str(folder / "never-sleep"), "--validate", "9")
    assert (checked.status, checked.table) == (0, "")
    assert checked.said.endswith("valid; played again: 10000000, 10000001\n")


@pytest.mark.parametrize("processes", [1, 2])
def test_an_entry_of_fewer_streams_is_played_on(handed_in: tuple[Path, Ran], tmp_path: Path, processes: int) -> None:
    one = ("--env-id", "SleepLLM-Mini-v0", "--streams", "1", "--validate", "0", "--out", str(tmp_path))
    assert leaderboard("never-sleep", *one).status == 0
    first = tmp_path / "never-sleep" / "recordings" / f"{STREAMS[0]}.json"
    before = ScoreMatrix.load(tmp_path / "never-sleep" / "scores.json"), first.read_bytes()
    ran = leaderboard("never-sleep", *MINI, "--validate", "0", "--processes", str(processes), "--out", str(tmp_path))
    assert ran.status == 0 and "2 test streams" in ran.table
    after = ScoreMatrix.load(tmp_path / "never-sleep" / "scores.json")
    assert (before[0].streams, after.streams) == (STREAMS[:1], STREAMS)
    assert first.read_bytes() == before[1] and after.scores[0, 0] == before[0].scores[0, 0]
    wanted = ScoreMatrix.load(handed_in[0] / "never-sleep" / "scores.json")
    np.testing.assert_allclose(after.scores, wanted.scores, atol=1e-4)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Streams that were to be played, lot by lot; the second lot fails."""
    play, lots = playing.play, list[tuple[int, ...]]()

    def recorded(player: Any, env_id: str, seeds: Sequence[int], *rest: Any) -> Any:
        lots.append(tuple(seeds))
        if len(lots) == 2:
            raise RuntimeError("the power went")
        return play(player, env_id, seeds, *rest)

    monkeypatch.setattr(playing, "play", recorded)
    return lots


def test_what_was_played_is_kept_when_a_later_stream_fails(tmp_path: Path, asked: list[tuple[int, ...]]) -> None:
    arguments = ("never-sleep", *MINI, "--validate", "0", "--slots", "1", "--out", str(tmp_path))
    with pytest.raises(RuntimeError, match="the power went"):
        leaderboard(*arguments)
    assert ScoreMatrix.load(tmp_path / "never-sleep" / "scores.json").streams == STREAMS[:1]
    assert leaderboard(*arguments).status == 0
    assert asked == [STREAMS[:1], STREAMS[1:], STREAMS[1:]]
    assert ScoreMatrix.load(tmp_path / "never-sleep" / "scores.json").streams == STREAMS


def test_scores_that_were_written_before_a_kill_cost_no_earlier_stream(
    handed_in: tuple[Path, Ran], tmp_path: Path, asked: list[tuple[int, ...]]
) -> None:
    shutil.copytree(handed_in[0] / "never-sleep", tmp_path / "never-sleep")
    path = tmp_path / "never-sleep" / "episodes.json"
    document = json.loads(path.read_text())
    document["episodes"].pop()  # as if the process had been killed between the scores and this file
    path.write_text(json.dumps(document))
    assert leaderboard("never-sleep", *MINI, "--validate", "0", "--out", str(tmp_path)).status == 0
    assert asked == [STREAMS[1:]]


def test_fewer_streams_than_an_entry_has_are_the_first_of_it_and_nothing_is_lost(
    handed_in: tuple[Path, Ran], tmp_path: Path
) -> None:
    shutil.copytree(handed_in[0], tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "never-sleep" / "episodes.json").read_bytes()
    one = ("--env-id", "SleepLLM-Mini-v0", "--streams", "1", "--validate", "0", "--out", str(tmp_path))
    ran = leaderboard("never-sleep", *one)
    scores = ScoreMatrix.load(tmp_path / "never-sleep" / "scores.json")
    assert f"| never-sleep | {scores.scores[0, 0]:.3f} [" in ran.table and scores.streams == STREAMS
    assert (tmp_path / "never-sleep" / "episodes.json").read_bytes() == before


def test_what_is_there_is_shown_and_not_played_again(handed_in: tuple[Path, Ran], tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(handed_in[0], folder)
    recordings = {path: path.stat().st_mtime_ns for path in folder.glob("*/recordings/*.json")}
    again = leaderboard("never-sleep", NAPS, *MINI, "--validate", "0", "--out", str(folder))
    assert again.table == handed_in[1].table  # measured seconds included
    assert {path: path.stat().st_mtime_ns for path in recordings} == recordings


@pytest.mark.parametrize("changed", ["seconds", "streams", "policy", "rule", "nothing left"])
def test_what_is_there_and_does_not_fit_is_played_again(
    handed_in: tuple[Path, Ran], tmp_path: Path, changed: str
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(handed_in[0] / "never-sleep", folder / "never-sleep")
    path = folder / "never-sleep" / "episodes.json"
    document = json.loads(path.read_text())
    if changed == "seconds":
        document["seconds"] = "none"
    elif changed == "policy":
        document["policy"] = "0" * 64
    elif changed == "rule":
        document["rule"] = "never-sleep:nap_days=0.5"  # as if its usual number had been another one
    elif changed == "streams":
        document["episodes"].pop()
    path.write_text("" if changed == "nothing left" else json.dumps(document))
    assert leaderboard("never-sleep", *MINI, "--validate", "0", "--out", str(folder)).status == 0
    document = json.loads(path.read_text())
    assert (document["policy"], document["rule"]) == ("", "never-sleep:nap_days=none")
    assert document["seconds"] > 0
    assert [episode["seed"] for episode in document["episodes"]] == list(STREAMS)


def test_processes_play_what_one_process_plays(handed_in: tuple[Path, Ran], tmp_path: Path) -> None:
    ran = leaderboard(
        "never-sleep", *MINI, "--validate", "0", "--slots", "1", "--processes", "2", "--out", str(tmp_path)
    )
    assert ran.status == 0, ran.said
    alone, apart = (ScoreMatrix.load(folder / "never-sleep" / "scores.json") for folder in (handed_in[0], tmp_path))
    assert apart.streams == alone.streams
    assert apart.scores == pytest.approx(alone.scores, abs=1e-4)


# ------------------------------------------------------------ what does not pass


@pytest.fixture
def forged(handed_in: tuple[Path, Ran], tmp_path: Path) -> Callable[..., Ran]:
    """Checks a copy of what was handed in, in which a file's JSON was changed."""

    def check(file: str, change: Callable[[Any], None], validate: int = 0) -> Ran:
        copy = tmp_path / "forged"
        shutil.copytree(handed_in[0] / "never-sleep", copy)
        document = json.loads((copy / file).read_text())
        change(document)
        (copy / file).write_text(json.dumps(document))
        return leaderboard("--check", str(copy), "--validate", str(validate))

    return check


FIRST = "recordings/10000000.json"


def put(**values: Any) -> Callable[[Any], None]:
    return lambda document: document.update(values)


def test_a_claim_above_what_was_recorded_does_not_pass(forged: Callable[..., Ran]) -> None:
    ran = forged("scores.json", put(scores=[[0.5, 0.123]]))
    assert ran.status == 1
    assert "stream 10000001: expected the claimed score of 0.123, found " in ran.said


def test_a_recording_that_comes_out_differently_does_not_pass(forged: Callable[..., Ran]) -> None:
    def idle(document: Any) -> None:
        at = document["actions"].index(Action.INJECT)
        document["actions"][at] = int(Action.WAIT)

    ran = forged(FIRST, idle, validate=2)
    assert ran.status == 1
    assert "stream 10000000: differs at step" in ran.said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put(seed=3), "found seed 3, split 'test'"),
        (put(split="train"), "split 'train'"),
        (put(overrides={"episode": {"days": 1}}), "replaced {'episode': {'days': 1}}"),
        (put(ended=False), "not ended"),
        (put(card_id="SleepLLM-v0"), "one environment of this package, found ['SleepLLM-Mini-v0', 'SleepLLM-v0']"),
        (put(fingerprint="0" * 64), "recordings with one model, found ['000000000000', "),
        (put(card_id="mine"), "one environment of this package"),
    ],
)
def test_other_episodes_than_the_test_streams_do_not_pass(
    forged: Callable[..., Ran], change: Callable[[Any], None], said: str
) -> None:
    ran = forged(FIRST, change)
    assert ran.status == 1
    assert said in ran.said


def test_an_easier_card_under_the_same_name_does_not_pass(forged: Callable[..., Ran]) -> None:
    ran = forged(FIRST, lambda document: document["card"]["budget"].update(inject=5))
    assert ran.status == 1
    assert "stream 10000000: expected the card of SleepLLM-Mini-v0 as it is here" in ran.said
    assert "budget.inject: expected 4, found 5" in ran.said


def test_streams_of_ones_own_choice_do_not_pass(handed_in: tuple[Path, Ran], tmp_path: Path) -> None:
    copy = tmp_path / "chosen"
    shutil.copytree(handed_in[0] / "never-sleep", copy)
    scores = ScoreMatrix.load(copy / "scores.json")
    ScoreMatrix(scores.name, STREAMS[1:], scores.scores[:, 1:]).save(copy / "scores.json")
    ran = leaderboard("--check", str(copy), "--validate", "0")
    assert ran.status == 1
    assert "on the streams from 10000000 on" in ran.said


def test_what_cannot_be_played_again_does_not_stop_the_rest(
    handed_in: tuple[Path, Ran], forged: Callable[..., Ran], tmp_path: Path
) -> None:
    assert forged(FIRST, put(fingerprint="0" * 64)).status == 1
    good = str(handed_in[0] / "never-sleep")
    ran = leaderboard("--check", "nowhere", "--check", str(tmp_path / "forged"), "--check", good, "--validate", "2")
    assert ran.status == 2
    nowhere, forgery, last = ran.said.splitlines()
    assert nowhere.startswith("nowhere: expected scores, found")
    assert "stream 10000000: expected model 'tiny' with fingerprint 000000000000" in forgery
    assert last.startswith(f"{good}: valid")


def test_a_missing_recording_is_an_error(handed_in: tuple[Path, Ran], tmp_path: Path) -> None:
    copy = tmp_path / "partial"
    shutil.copytree(handed_in[0] / "never-sleep", copy)
    (copy / FIRST).unlink()
    ran = leaderboard("--check", str(copy))
    assert ran.status == 2
    assert "expected a recording" in ran.said


# --------------------------------------------------------------------- policies


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """Saves an untrained policy that prefers to write, to wait and to look, in this order; gives its path."""

    def save(algorithm: Any, kind: str, flat: bool, **arguments: Any) -> str:
        env: Any = SleepEnv("SleepLLM-Mini-v0")
        model = algorithm(kind, FlattenLedger(env) if flat else env, seed=0, device="cpu", **arguments)
        head = model.policy.q_net.q_net[-1] if algorithm is DQN else model.policy.action_net
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.tensor([1.0, 2.0, -1.0, 0.0, -2.0, -1.0]))
        path = tmp_path / "policy.zip"
        model.save(path)
        return str(path)

    return save


@pytest.mark.parametrize(
    ("prefix", "algorithm", "kind", "flat", "masked"),
    [
        ("maskable-ppo", MaskablePPO, "MultiInputPolicy", False, True),
        ("ppo", PPO, "MlpPolicy", True, False),
        ("recurrent-ppo", RecurrentPPO, "MultiInputLstmPolicy", False, False),
        ("dqn", DQN, "MlpPolicy", True, False),
    ],
)
def test_policies_play_as_they_were_trained(
    saved: Callable[..., str], tmp_path: Path, prefix: str, algorithm: Any, kind: str, flat: bool, masked: bool
) -> None:
    small = {"buffer_size": 10} if algorithm is DQN else {"n_steps": 64}
    path = saved(algorithm, kind, flat, **small)
    streams = ("--env-id", "SleepLLM-Mini-v0", "--streams", "1")
    ran = leaderboard(f"{prefix}:{path}", *streams, "--validate", "0", "--out", str(tmp_path / "out"))
    assert ran.status == 0, ran.said
    (recording,) = (tmp_path / "out").glob("*/recordings/10000000.json")
    actions = Recording.load(recording).actions
    # With masks, it waits where there is nothing to write; without, it tries in vain.
    assert set(actions) == ({Action.WAIT, Action.INJECT} if masked else {Action.INJECT})
    policy = ran.table.splitlines()[4].split("|")[8].strip()
    assert len(policy) == 12
    assert int(policy, 16) > 0


def test_how_a_policy_was_trained_is_handed_in_with_it(saved: Callable[..., str], tmp_path: Path) -> None:
    path = Path(saved(MaskablePPO, "MultiInputPolicy", False, n_steps=64))
    card = PolicyCard(algorithm="MaskablePPO", env_id="SleepSim-Mini-v0", seed=3, steps=64, arguments={"gamma": 1.0})
    path.with_suffix(".json").write_text(card.model_dump_json(), encoding="utf-8")
    streams = ("--env-id", "SleepLLM-Mini-v0", "--streams", "1", "--validate", "0")
    ran = leaderboard(str(path), *streams, "--out", str(tmp_path / "out"), "--json")
    assert ran.status == 0 and json.loads(ran.table)["rows"][0]["scheduler"] == str(path)
    (entry,) = (folder for folder in (tmp_path / "out").iterdir() if folder.is_dir())
    assert Submission.load(entry).card == card
    assert leaderboard("--check", str(entry), "--validate", "0").status == 0
    (entry / "policy.json").write_text("{}", encoding="utf-8")
    ran = leaderboard("--check", str(entry), "--validate", "0")
    assert ran.status == 2 and "expected a policy card in" in ran.said


def test_a_policy_of_other_spaces_is_refused_before_anybody_plays(saved: Callable[..., str]) -> None:
    path = saved(PPO, "MlpPolicy", True, n_steps=64)
    ran = leaderboard("never-sleep", f"ppo:{path}", "--env-id", "SleepLLM-v0")
    assert (ran.status, ran.table) == (2, "")
    assert "found one for [" in ran.said
    assert "play it where it was trained" in ran.said


def test_a_policy_that_reads_a_set_plays_where_the_ledger_is_smaller(tmp_path: Path) -> None:
    larger: Any = SleepEnv("SleepLLM-Mini-v0", budget={"capacity": 20})
    kwargs = {"features_extractor_class": LedgerExtractor}
    path = tmp_path / "policy.zip"
    MaskablePPO("MultiInputPolicy", larger, n_steps=64, policy_kwargs=kwargs, device="cpu").save(path)
    streams = ("--env-id", "SleepLLM-Mini-v0", "--streams", "1", "--validate", "0")
    assert leaderboard(f"maskable-ppo:{path}", *streams).status == 0
    smaller: Any = SleepEnv("SleepLLM-Mini-v0", budget={"capacity": 5})
    MaskablePPO("MultiInputPolicy", smaller, n_steps=64, policy_kwargs=kwargs, device="cpu").save(path)
    assert leaderboard(f"maskable-ppo:{path}", *streams).status == 2


def test_what_is_no_policy_is_refused(saved: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "notes.zip").write_text("no policy")
    dqn = saved(DQN, "MlpPolicy", True, buffer_size=10)
    for text, said in [
        (f"ppo:{tmp_path / 'notes.zip'}", "expected a policy of PPO in"),
        (f"ppo:{tmp_path / 'nowhere.zip'}", "check the path"),
        (f"ppo:{dqn}", "name the algorithm that it was trained with"),
    ]:
        ran = leaderboard(text, *MINI)
        assert (ran.status, ran.table) == (2, "")
        assert said in ran.said, ran.said


# --------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either entries to play or --check"),
        (("never-sleep", "--check", "folder"), "either entries to play or --check"),
        (("owl", *MINI), "known schedulers are always-sleep; "),
        (("sac:policy.zip", *MINI), "known algorithms are dqn, maskable-ppo, ppo, recurrent-ppo"),
        (("night-owl:load=1", *MINI), "known are night-owl (traffic_at"),
        (("never-sleep", "never-sleep", *MINI), "each player once"),
        (("never-sleep", "--env-id", "CartPole-v1"), "expected an id of this package, found 'CartPole-v1'"),
        (("never-sleep", "--streams", "0"), "at least one stream"),
        (("never-sleep", "--slots", "0"), "at least one stream, one slot and one process"),
        (("never-sleep", "--processes", "0"), "at least one stream, one slot and one process"),
        (("never-sleep", "--validate", "-1"), "no negative number"),
    ],
)
def test_mistakes_are_a_line_and_status_2(arguments: tuple[str, ...], said: str) -> None:
    ran = leaderboard(*arguments)
    assert (ran.status, ran.table) == (2, "")
    assert said in ran.said
    assert len(ran.said.splitlines()) == 1


def test_the_help_warns_of_policy_files(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["leaderboard", "--help"])
    assert "A policy file is code" in capsys.readouterr().out
