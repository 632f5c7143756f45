"""Whatever bytes a stranger hands over, a reader takes them as data or says what is wrong, and nothing else happens."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Files = Mapping[str, bytes]
Reader = Any  # as the fixture makes them

READERS = (
    "card", "counterfact", "json lines", "csv", "relations", "real facts", "checkpoint", "snapshot", "recording",
    "scores", "submission", "policy card", "notes", "exported notes", "fit", "record", "calibration", "recipe",
    "statistics", "targets", "fast snapshot",
)  # fmt: skip

QUICK, THOROUGH = 12, 1500
"""Generated inputs of each reader, in the quick and in the slow run."""

# What stands for something that Python's writer of JSON would refuse to write.
DEEP, HUGE = "@deep@", "@huge@"
HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "1",
    "\0", "\ud800", "\r\n", "../../../etc/passwd", "/etc/passwd", "__import__('os').abort()", "x" * 5_000, DEEP, HUGE,
    [], {}, [None], [[]], [1, 2, 3], ["a", "b"], {"": 1}, {"__class__": "os.system"}, [["x"] * 50] * 50, [1e9] * 3,
)  # fmt: skip
TOKENS = (
    "NaN", "-Infinity", "1e999", "9" * 5_000, "[" * 100_000, '{"a":' * 20_000, "\0", "\ufeff", "\\ud800", '"', "\\",
    ",", "\n", "'''", "!!python/object/apply:os.system", "0x" + "f" * 4_000, "=", "{}", "../..", "\x1b[2J",
)  # fmt: skip


# ----------------------------------------------------------------- inputs


def places(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to everything in a document."""
    yield way
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield from places(value, (*way, key))


def changed_document(document: Any, rng: random.Random) -> Any:
    """A document with something else in one place, or with a key too few, too many or renamed."""
    way = rng.choice(list(places(document)))
    hostile = rng.choice(HOSTILE)
    if not way:
        return hostile if rng.random() < 0.3 else document | {"surprise": hostile} if isinstance(document, dict) else []
    *above, last = way
    holder = document
    for key in above:
        holder = holder[key]
    match rng.randrange(6):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(("surprise", "", "\ud800", "x" * 300))] = holder.pop(last)
        case 2 if isinstance(holder, list):
            holder.extend(holder[:] * rng.choice((1, 50)))
        case _:
            holder[last] = hostile
    return document


def written(document: Any, rng: random.Random) -> bytes:
    """The document as JSON; with its hostile texts, and sometimes with a key twice."""
    text = json.dumps(document, indent=rng.choice((None, 1)))
    text = text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000, 1).replace(f'"{HUGE}"', "7" * 5_000)
    keys = re.findall(r'"[\w ]+": ', text)
    if keys and rng.random() < 0.1:
        key = rng.choice(keys)
        text = text.replace(key, f"{key}0, {key}", 1)
    return text.encode()


def changed_text(data: bytes, rng: random.Random) -> bytes:
    """Text with another word, or with lines that are gone, repeated or joined."""
    words = list(re.finditer(rb"[\w.+-]+|[^\w\s]", data))
    if not words:
        return rng.choice(TOKENS).encode()
    word = rng.choice(words)
    lines = data.split(b"\n")
    match rng.randrange(4):
        case 0:
            at = rng.randrange(len(lines))
            return b"\n".join(
                [*lines[:at], *rng.choice(([], [lines[at]] * 3, [b"".join(lines[at : at + 2])])), *lines[at + 1 :]]
            )
        case _:
            return data[: word.start()] + rng.choice(TOKENS).encode() + data[word.end() :]


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes that are cut, turned, put in or taken out."""
    at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    match rng.randrange(5):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + rng.randbytes(rng.choice((1, 8, 200))) + data[at:]
        case 2:
            return data[:at] + data[to:]
        case 3:
            return rng.randbytes(rng.choice((0, 1, 9, 1000)))
        case _:
            turned = bytearray(data)
            for _ in range(rng.choice((1, 3, 20))):
                turned[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            return bytes(turned)


def changed_tensors(data: bytes, rng: random.Random) -> bytes:
    """Safetensors with another header, or with one that claims to be longer or shorter than it is."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = rng.choice([name for name in header if name != "__metadata__"])
    match rng.randrange(6):
        case 0:
            header[name]["shape"] = rng.choice(([2**60], [2**32, 2**32], [0, 2**60], [-1], [], [1.5], [1] * 100))
        case 1:
            header[name]["data_offsets"] = rng.choice(([0, 2**60], [8, 0], [0, 0], [-8, 8], [0], [2**64, 2**65]))
        case 2:
            header[name]["dtype"] = rng.choice(("F64", "BF16", "I64", "BOOL", "F8_E4M3", "os", "", None))
        case 3:
            return rng.choice((2**63, 2**64 - 1, length * 2, length - 1, 0)).to_bytes(8, "little") + data[8:]
        case 4 if "__metadata__" in header:
            about = header["__metadata__"]
            key = rng.choice(list(about))
            try:
                about[key] = written(changed_document(json.loads(about[key]), rng), rng).decode()
            except ValueError:
                about[key] = rng.choice(("", "2", "[]", "\0"))
        case _:
            header = changed_document(header, rng)
    text = written(header, rng)
    return len(text).to_bytes(8, "little") + text + rest


def changed(files: Files, rng: random.Random) -> Files:
    """Files of which one was changed, by somebody who knows its format or does not."""
    name = rng.choice([name for name, data in files.items() if data])
    data = files[name]
    kinds = [changed_bytes]
    if name.endswith(".safetensors"):
        kinds += [changed_tensors] * 3
    else:
        kinds += [changed_text]
        if name.endswith(".json"):
            kinds += [lambda data, rng: written(changed_document(json.loads(data), rng), rng)] * 4
    try:
        return {**files, name: rng.choice(kinds)(data, rng)}
    except UnicodeEncodeError:
        return {**files, name: b"\xed\xa0\x80"}


# ------------------------------------------------------------------ watch

FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
)
_WATCHED: dict[str, Any] = {"events": None}


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    events = _WATCHED["events"]
    if events is not None and (event in FORBIDDEN or event == "open"):
        events.append((event, arguments))


sys.addaudithook(_hook)  # for good: Python can take none away


@contextmanager
def nothing_else(folder: Path, around: Path) -> Iterator[None]:
    """Checks that a block starts no code and opens no files but those of a folder and Python's own."""
    _WATCHED["events"] = events = []
    try:
        yield
    finally:
        _WATCHED["events"] = None
    for event, arguments in events:
        assert event == "open", (event, arguments)
        path = arguments[0]
        if isinstance(path, int) or path is None:
            continue
        path = Path(path if isinstance(path, str) else bytes(path).decode()).absolute()
        own = any(path.is_relative_to(place) for place in (sys.prefix, sys.base_prefix, Path(__file__).parents[2]))
        assert path.is_relative_to(folder) or (own and not path.is_relative_to(around)), (path, arguments)


@contextmanager
def little_memory(gib: float = 3.0) -> Iterator[None]:
    """Lets whatever takes more than some further gigabytes fail with a MemoryError, which no reader may raise."""
    resource = pytest.importorskip("resource")
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(gib * 2**30), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outcome(reader: Reader, files: Files, root: Path) -> str:
    """Lets a reader read files; says whether it took them, and checks that nothing else happened."""
    folder = root / "given"
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    start = time.monotonic()
    with nothing_else(folder, root):
        try:
            reader.read(folder)
            found = "taken"
        except reader.errors as error:
            found = "refused"
            message = str(error)
            assert "expected" in message and "found" in message, message
            assert "\n" not in message and len(message) < 5_000 + 2 * len(str(folder)), message
            message.encode()
    assert time.monotonic() - start < 30
    assert list(root.iterdir()) == [folder]
    assert reader.changes or contents(folder) == dict(files)
    return found


def fuzzed(reader: Reader, root: Path, inputs: int) -> Counter[str]:
    """Lets a reader read so many generated inputs."""
    counts: Counter[str] = Counter()
    assert outcome(reader, reader.files, root) == "taken"

    @given(st.integers(0, 2**64))
    @settings(
        max_examples=inputs, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def read(seed: int) -> None:
        rng = random.Random(seed)
        files = changed(reader.files, rng)
        if rng.random() < 0.8:
            files = reader.signed(files)
        counts["as it was" if files == reader.files else outcome(reader, files, root)] += 1

    with little_memory():
        read()
    return counts


def test_every_reader_is_tried(readers: dict[str, Reader]) -> None:
    assert set(readers) == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_few_changed_files_are_taken_or_refused(readers: dict[str, Reader], tmp_path: Path, name: str) -> None:
    fuzzed(readers[name], tmp_path, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_changed_files_are_taken_or_refused(
    readers: dict[str, Reader], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total: Counter[str] = Counter()
    for name in READERS:
        (tmp_path / name).mkdir()
        counts = fuzzed(readers[name], tmp_path / name, THOROUGH)
        total += counts
        with capsys.disabled():
            print(f"\n{name:<16}" + "".join(f"{counts[what]:>7} {what}" for what in ("refused", "taken")), end="")
    bad = total["refused"] + total["taken"]
    with capsys.disabled():
        print(f"\n{bad} changed inputs: {total['refused']} refused, {total['taken']} taken as data or made anew")
    assert bad >= 20_000
