"""Where files are and how large they say they are is settled before anything in them is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sleepgym.episode.card import CardError, load_card
from sleepgym.leaderboard.submission import Submission
from sleepgym.memory import checkpoint
from sleepgym.memory.checkpoint import CheckpointError
from sleepgym.reading import UnreadableError, parsed_json, read_arrays, read_bytes, read_json
from sleepgym.record.recording import Recording, RecordingError
from sleepgym.record.replay import replay
from sleepgym.training.policy_card import PolicyCard, PolicyError

Reader = Any  # as the fixture makes them
HANDED_OVER = (
    "card", "counterfact", "json lines", "csv", "relations", "real facts", "checkpoint", "snapshot", "recording",
    "scores", "submission", "policy card", "fit", "record", "calibration", "recipe", "fast snapshot",
)  # fmt: skip


@contextmanager
def hardly_memory(mib: int = 300) -> Iterator[None]:
    """Lets whatever takes much more memory than there is now fail with a MemoryError."""
    resource, statm = pytest.importorskip("resource"), Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("knows only Linux's way to say how much memory a process takes")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + mib * 2**20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def given(reader: Reader, folder: Path) -> list[Path]:
    """The files of a reader in a folder, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in reader.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return [folder / name for name, data in reader.files.items() if data and name != "episodes.json"]


def put_sparse(path: Path) -> None:
    """Gigabytes, of which the disk holds the first few bytes."""
    os.truncate(path, 2**30 if path.suffix != ".safetensors" else 2**37)


def put_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("put", [put_sparse, put_pipe, put_folder, put_loop], ids=["1 GB", "pipe", "folder", "loop"])
@pytest.mark.parametrize("name", HANDED_OVER)
def test_what_is_no_file_of_its_size_is_refused_unread(
    readers: dict[str, Reader], tmp_path: Path, name: str, put
) -> None:
    reader = readers[name]
    for number in range(len(given(reader, tmp_path / "given"))):
        put(given(reader, tmp_path / "given")[number])
        with hardly_memory(), pytest.raises(reader.errors, match="expected"):
            reader.read(tmp_path / "given")


@pytest.mark.parametrize("name", ["checkpoint", "snapshot", "submission", "notes"])
def test_links_do_not_lead_out_of_the_folder(readers: dict[str, Reader], tmp_path: Path, name: str) -> None:
    reader, folder, outside = readers[name], tmp_path / "given", tmp_path / "outside"
    for number in range(len(given(reader, folder))):
        shutil.rmtree(outside, ignore_errors=True)
        given(reader, outside)
        path = given(reader, folder)[number]
        path.unlink()
        path.symlink_to(outside / path.relative_to(folder))  # of the same content
        before = {each: each.read_bytes() for each in outside.rglob("*") if each.is_file()}
        if name != "notes":  # of which a file that is a link is none
            with pytest.raises(reader.errors, match=r"within|elsewhere"):
                reader.read(folder)
        else:
            try:
                reader.read(folder)
            except reader.errors as error:
                assert "expected" in str(error)
        assert {each: each.read_bytes() for each in outside.rglob("*") if each.is_file()} == before


def test_a_folder_of_recordings_that_is_a_link_is_refused(readers: dict[str, Reader], tmp_path: Path) -> None:
    given(readers["submission"], tmp_path / "given")
    (tmp_path / "given" / "recordings").rename(tmp_path / "outside")
    (tmp_path / "given" / "recordings").symlink_to(tmp_path / "outside")
    with pytest.raises(RecordingError, match="leads elsewhere"):
        Submission.load(tmp_path / "given")


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5_000, ""])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    for read, error in ((load_card, CardError), (lambda path: PolicyCard.read(Path(path) / "x"), PolicyError)):
        with pytest.raises(error, match="expected"):
            read(name)


@pytest.mark.parametrize(
    "text",
    [
        f"a = {'[' * 10_000}{']' * 10_000}",
        f"a = {'{a=' * 10_000}1{'}' * 10_000}",
        f"{'.'.join('a' * 10_000)} = 1",
        f"[{'.'.join('a' * 10_000)}]",
        f"a = {'9' * 5_000}",
        f"a = 0x{'f' * 100_000}",
    ],
    ids=["arrays", "tables", "key", "header", "digits", "hexadecimal"],
)
def test_a_card_of_great_depth_or_numbers_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.toml").write_text(text)
    with pytest.raises(CardError, match="expected"):
        load_card(tmp_path / "card.toml")


@pytest.mark.parametrize(
    "section",
    [
        {"episode": {"days": 10**7}},
        {"stream": {"arrival_rate": [1e6, 1e6]}},
        {"budget": {"capacity": 10**7}},
        {"sleep": {"rank": 10**9, "max_rank": 10**9}},
        {"edit": {"learning_rate": float("inf")}},
        {"edit": {"covariance_weight": 1e300}},
    ],
)
def test_a_card_with_numbers_that_no_machine_has_room_for_is_refused(section: dict[str, Any]) -> None:
    with hardly_memory(), pytest.raises(CardError, match="expected"):
        load_card("SleepLLM-Mini-v0", **section)


@pytest.mark.parametrize("overrides", [{"path_or_id": {}}, {"self": {}}, {"": {}}, {"model": {"name": "../elsewhere"}}])
def test_overrides_of_a_recording_are_sections_of_its_card(
    readers: dict[str, Reader], tmp_path: Path, overrides: dict[str, Any]
) -> None:
    given(readers["recording"], tmp_path)
    found = Recording.load(tmp_path / "episode-00000.json").model_copy(update={"overrides": overrides})
    with pytest.raises(RecordingError, match="expected a recording with card SleepLLM-Mini-v0"):
        replay(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("[" * 200 + "]" * 200, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a": 1, "b": 2, "a": 3}', "two values for the key 'a'"),
        ('{"a": {"\\ud800": 1}}', "surrogates not allowed"),
        ('["\\udfff"]', "surrogates not allowed"),
        ("1" * 5_000, "digits"),
        ("\x00", "Expecting value"),
        ("", "Expecting value"),
    ],
)
def test_json_that_would_fail_later_is_refused_at_once(text: str, found: str) -> None:
    with pytest.raises(UnreadableError, match=found):
        parsed_json(text.encode(), "x.json")


def test_json_that_python_writes_is_read() -> None:
    document = {"a": [1, 2.5, float("inf"), None, True, "é", "\U0001f600"], "b": {"c": {}}}
    assert parsed_json(json.dumps(document).encode(), "x.json") == document


@pytest.mark.parametrize("shape", [[2**60], [2**31, 2**31], [2**64], [0, 2**64]])
def test_tensors_that_claim_more_than_the_file_holds_are_refused(tmp_path: Path, shape: list[int]) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with hardly_memory(), pytest.raises(UnreadableError, match="safetensors"):
        read_arrays(tmp_path / "a.safetensors")


def test_a_file_is_read_up_to_its_limit_and_not_beyond(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, 100) == b"x" * 100
    with pytest.raises(UnreadableError, match=r"at most 99 bytes in .*, found 100 bytes"):
        read_bytes(path, 99)
    path.write_bytes(b"[" + b"1," * 60 + b"1]")
    with pytest.raises(UnreadableError, match="at most 99 bytes"):
        read_json(path, 99)


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "sub" / "b").symlink_to("../a")
    assert read_bytes(tmp_path / "sub" / "b", inside=tmp_path) == b"x"
    with pytest.raises(UnreadableError, match="leads elsewhere"):
        read_bytes(tmp_path / "sub" / "b", inside=tmp_path / "sub")


def test_factors_that_do_not_fit_the_model_are_refused(learner, facts, tmp_path: Path) -> None:
    """Under a valid checksum: what would fail at the first question is found out when it is read."""
    learner.inject(facts[:1])
    state = learner.state.copy()
    for owner, term in list(state.memory.terms.items()):
        (module, (a, b)), *_ = term.factors.items()
        for forged in ((a[:, :-1], b), (a, b[:-1]), (a.long(), b)):
            state.memory.put(owner, {module: forged}, 1.0)
            checkpoint.save(tmp_path, state, learner.lm)
            with pytest.raises(CheckpointError, match=f"factors .*{module}"):
                learner.load(tmp_path)
