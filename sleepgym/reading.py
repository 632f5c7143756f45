"""Files that a stranger may have made, read with care: where they are and how large, before what is in them."""

from __future__ import annotations

import errno
import json
import os
import reprlib
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from sleepgym.errors import SleepGymError

if TYPE_CHECKING:
    from pydantic import BaseModel

MAX_TEXT_BYTES = 64 * 2**20
"""Size of the largest file of JSON that is read, unless its reader knows better."""
MAX_CARD_BYTES = 2**20
"""Size of the largest file of TOML that is read."""
MAX_TENSOR_BYTES = 8 * 2**30
"""Size of the largest file of tensors that is read."""

_DEPTH = 100
"""Objects and arrays within each other, at most; below what parsers and printers of JSON recurse to."""

_Model = TypeVar("_Model", bound="BaseModel")


class UnreadableError(SleepGymError, ValueError):
    """A file is not read: it is no file, too large, elsewhere, or not in its format.

    Attributes:
        found: What was found, for readers that say in their own words what they expected.
    """

    def __init__(self, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"expected {expected}, found {found}; {remedy}")
        self.found = found


def read_bytes(
    path: Path, limit: int = MAX_TEXT_BYTES, inside: Path | None = None, follow_symlinks: bool = True
) -> bytes:
    """A regular file's content.

    Args:
        path: Where.
        limit: Bytes that it may have; its size is asked for before anything is read.
        inside: Folder that it has to lie in wherever links lead, for files that are not named by who reads them.
        follow_symlinks: Whether the file itself may be a link.

    Raises:
        UnreadableError: It is a link, lies elsewhere, is no regular file, or is too large.
        OSError: There is no such file, or it cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    # Not blocking: to open a pipe would wait for somebody to write.
    flags |= getattr(os, "O_NONBLOCK", 0) | (0 if follow_symlinks else getattr(os, "O_NOFOLLOW", 0))
    try:
        if inside is not None and not _lies_in(path, inside):
            raise UnreadableError(f"a file within {inside}", f"that {path.name} leads elsewhere", "copy the file there")
        descriptor = os.open(path, flags)
    except UnreadableError:
        raise
    except ValueError as error:  # a NUL, or half of a surrogate pair
        raise UnreadableError("the name of a file", f"{str(path)!a} ({error})", "check the name") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnreadableError(f"a file at {path}", "a link", "put the file itself there") from error
        raise
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(f"a file at {path}", "something else", "name another one")
        size = status.st_size
        if size <= limit:
            # Python makes room for what it is asked for, so not for as much as there may be. It may grow meanwhile.
            data = file.read(size + 1)
            size = max(size, len(data))
            if size == status.st_size:
                return data
    raise UnreadableError(f"at most {min(limit, status.st_size)} bytes in {path}", f"{size} bytes", "make it smaller")


def read_json(path: Path, limit: int = MAX_TEXT_BYTES, inside: Path | None = None) -> Any:
    """What a file of JSON says.

    Args:
        path: Where.
        limit: See :func:`read_bytes`.
        inside: See :func:`read_bytes`.

    Raises:
        UnreadableError: As :func:`read_bytes` and :func:`parsed_json` do.
        OSError: There is no such file, or it cannot be read.
    """
    return parsed_json(read_bytes(path, limit, inside), str(path))


def parsed_json(data: bytes, name: str) -> Any:
    """What JSON says; NaN and infinities are numbers in it, as Python writes them.

    Args:
        data: The JSON, in UTF-8.
        name: What errors call it.

    Raises:
        UnreadableError: It is no JSON, is nested deeply, or has a key twice, a number of thousands of digits or half of
            a surrogate pair in it.
    """
    try:
        text = data.decode()
        found = json.loads(text, object_pairs_hook=_without_repetitions)
        require_shallow(found)
        # What JSON escapes may be no text, and would fail wherever it is written.
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"JSON in {name}", f"a mistake: {found_in(error)}", "use another copy") from error
    return found


def read_model(
    path: Path, model: type[_Model], limit: int = MAX_TEXT_BYTES, inside: Path | None = None, strict: bool = True
) -> _Model:
    """What a file of JSON with a schema says.

    Args:
        path: Where.
        model: The schema.
        limit: See :func:`read_bytes`.
        inside: See :func:`read_bytes`.
        strict: Whether a ``"3"`` is no 3.

    Raises:
        UnreadableError: As :func:`read_json` does, or it does not follow the schema.
        OSError: There is no such file, or it cannot be read.
    """
    data = read_bytes(path, limit, inside)
    parsed_json(data, str(path))
    try:
        # In JSON mode, strict validation accepts a list for a tuple.
        return model.model_validate_json(data, strict=strict)
    except (ValidationError, RecursionError) as error:
        what = f"{model.__name__.strip('_')} in {path}"
        raise UnreadableError(what, found_in(error), "use another copy") from error


def read_toml(path: Path, limit: int = MAX_CARD_BYTES) -> dict[str, Any]:
    """What a file of TOML says.

    Args:
        path: Where.
        limit: See :func:`read_bytes`.

    Raises:
        UnreadableError: As :func:`read_bytes` does, or it is no TOML or nested deeply.
        OSError: There is no such file, or it cannot be read.
    """
    try:
        found = tomllib.loads(read_bytes(path, limit).decode())
        require_shallow(found)
    except UnreadableError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"TOML in {path.name}", f"a mistake: {found_in(error)}", "correct it") from error
    return found


def read_arrays(path: Path, limit: int = MAX_TENSOR_BYTES) -> tuple[dict[str, NDArray[Any]], Mapping[str, str]]:
    """The arrays of a file of safetensors, and its metadata.

    What the header claims is compared with the size of the file before there is room made for anything.

    Args:
        path: Where.
        limit: See :func:`read_bytes`.

    Raises:
        UnreadableError: As :func:`read_bytes` does, or it is no file of safetensors, or has types that NumPy has not.
        OSError: There is no such file, or it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = read_bytes(path, limit)
    try:
        arrays = load(data)
        length = int.from_bytes(data[:8], "little")
        about: Mapping[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise UnreadableError(f"safetensors in {path}", found_in(error), "use another copy") from error
    return arrays, about


def require_array(array: NDArray[Any], what: str, kind: type[np.generic], *shape: int) -> NDArray[Any]:
    """The array, which has a type and a shape, and finite numbers.

    Args:
        array: As it was read.
        what: What errors call it.
        kind: Type of its elements.
        shape: Its shape; -1 for any length.

    Raises:
        ValueError: It has others.
    """
    fits = len(array.shape) == len(shape) and all(n in (-1, m) for n, m in zip(shape, array.shape, strict=True))
    if array.dtype != kind or not fits:
        raise ValueError(
            f"{what} of {array.dtype} {list(array.shape)} instead of {np.dtype(kind)} {list(shape)} (-1: any length)"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{what} with numbers that are not finite")
    return array


def first_mistake(error: ValidationError) -> str:
    """The first thing that validation found, as ``a mistake in where: what``."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(_short(str(part)) for part in first["loc"])
    return f"a mistake{f' in {where}' if where else ''}: {_short(first['msg'], 500)}"


def found_in(error: BaseException) -> str:
    """What went wrong with a file, in one line that quotes little of what was read."""
    if isinstance(error, UnreadableError):
        return error.found
    if isinstance(error, ValidationError):
        return first_mistake(error)
    if isinstance(error, RecursionError):
        return "objects or arrays that are nested too deeply"
    return _short(f"{type(error).__name__}: {error}", 500)


def _short(text: str, most: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


def _lies_in(path: Path, folder: Path) -> bool:
    real, within = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath((real, within)) == within


def _without_repetitions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two values for the key {reprlib.repr(twice)}")
    return record


def require_shallow(found: Any) -> None:
    """Checks how deeply objects and arrays are nested.

    Raises:
        RecursionError: Too deeply.
    """
    level = [found]
    for _ in range(_DEPTH):
        containers = [each for each in level if isinstance(each, dict | list)]
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
    if any(isinstance(each, dict | list) for each in level):
        raise RecursionError
