"""Files on disk: written all or nothing, and where those are kept that can be recomputed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel

PART = ".part"
"""How the names of files end that are not written to the end yet; between the name and this, the process."""


def cache_dir(kind: str) -> Path:
    """The folder for one kind of cached file, made if needed and possible.

    Where nothing can be written, nothing is there to be found: who writes into it does without.

    It is ``$SLEEPGYM_CACHE/kind``, or ``$XDG_CACHE_HOME/sleepgym/kind``, or ``~/.cache/sleepgym/kind``.
    """
    root = os.environ.get("SLEEPGYM_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sleepgym"
    folder = base / kind
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(path: Path, data: bytes) -> bool:
    """Writes a file that can be made again, if there is a place for it: all or nothing.

    Args:
        path: Where to, in :func:`cache_dir`.
        data: What.

    Returns:
        Whether it is there: the disk may be full, or not to be written.
    """
    try:
        write(path, data)
    except OSError:
        return False
    return True


def card_paths(kind: str = "") -> dict[str, Path]:
    """Every card of the package by its id, which is the name of its file.

    A wheel carries the cards inside the package; an editable checkout has them in its ``envs`` folder.

    Args:
        kind: Folder within it, for environments whose cards have other sections.
    """
    package = Path(__file__).parent
    shipped, checkout = package / "env" / "cards", package.parent / "envs"
    folder = shipped if shipped.is_dir() else checkout
    return {path.stem: path for path in sorted((folder / kind).glob("*.toml"))}


def write(path: Path, data: bytes) -> None:
    """Writes a file; whatever happens, it is the old one or the new one.

    Args:
        path: Where to; its folder is made.
        data: What.

    Raises:
        OSError: It cannot be written; an earlier file is whole.
    """
    write_all(path.parent, {path.name: data})


def write_with(path: Path, writer: Callable[[Path], object]) -> None:
    """Lets a function write a file that is too large to be held in memory; it is the old one or the new one.

    Args:
        path: Where to; its folder is made.
        writer: Writes to the path that it is given.

    Raises:
        OSError: It cannot be written; an earlier file is whole.
    """
    with _parts(path.parent, [path.name]) as parts:
        part = parts[path.name]
        part.touch()
        usual = part.stat().st_mode
        writer(part)
        part.chmod(usual)  # safetensors makes files that only their owner may read
        part.replace(path)


def write_all(folder: Path, files: Mapping[str, bytes], durable: bool = False) -> None:
    """Writes several files, each of which is the old one or the new one whatever happens.

    All are written before the first takes its name, so a full disk is found out while nothing has changed. They take
    their names in the order given: the last one can vouch for those before it.

    Args:
        folder: Made if needed.
        files: Contents by name.
        durable: Whether they must outlast a power cut, which takes milliseconds.

    Raises:
        OSError: They cannot be written.
    """
    with _parts(folder, files) as parts:
        for name, data in files.items():
            with parts[name].open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        for name, part in parts.items():
            part.replace(folder / name)
            if durable:
                sync(folder)


@contextmanager
def _parts(folder: Path, names: Iterable[str]) -> Iterator[dict[str, Path]]:
    """Paths to write to before files take their names; none of them is left behind by an error."""
    folder.mkdir(parents=True, exist_ok=True)
    # Parallel processes may write the same file.
    parts = {name: folder / f"{name}.{os.getpid()}{PART}" for name in names}
    try:
        yield parts
    except BaseException:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)
        raise


def sync(folder: Path) -> None:
    """Makes renames and deletions in a folder outlast a power cut, where the system has a way to.

    Raises:
        OSError: The folder cannot be opened, or writing to the disk failed.
    """
    if os.name == "nt":  # opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems sync no folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, content: BaseModel) -> None:
    """Writes a model as JSON, all or nothing.

    Raises:
        OSError: It cannot be written.
    """
    write(path, (content.model_dump_json(indent=1) + "\n").encode())
