"""An earlier version of the package beside the present one: its worktree, and processes that play with either.

What is compared takes turns within one run, since figures of two runs differ by what else the machine did.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import records
from sleepgym.files import cache_dir

SCRIPT = Path(__file__).with_name("throughput_player.py")
"""What a player runs, whatever its version of the package."""

KEPT = ("models", "statistics", "tokenizers")
"""Kinds of cached files that players have in common with everything else; targets are not among them."""

Played = dict[str, Any]
"""``reset``: milliseconds of each; ``steps``: milliseconds of each by action."""


def commit_of(name: str, root: Path = records.ROOT) -> str:
    """Full hash of a tag, a branch or a commit.

    Args:
        name: As git understands it.
        root: Repository.

    Raises:
        SystemExit: The repository has no such commit.
    """
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found.returncode:
        raise SystemExit(
            f"expected a commit in {root}, found none that is called {name!r}; fetch it (git fetch --tags), name "
            "another one (--before COMMIT), or leave the comparison out (--before '')"
        )
    return found.stdout.strip()


@contextmanager
def worktree(commit: str, root: Path = records.ROOT) -> Iterator[Path]:
    """Files of a commit in a temporary folder, which is removed afterwards.

    Args:
        commit: Anything that :func:`commit_of` understands.
        root: Repository.

    Raises:
        SystemExit: There is no such commit, or it cannot be checked out.
    """
    with TemporaryDirectory(prefix="sleepgym-before-") as folder:
        path = Path(folder) / "sleepgym"
        made = _git(root, "worktree", "add", "--detach", str(path), commit_of(commit, root))
        if made.returncode:
            raise SystemExit(f"expected a worktree of {commit}, found that git cannot make one: {made.stderr.strip()}")
        try:
            yield path
        finally:
            _git(root, "worktree", "remove", "--force", str(path))


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)


@contextmanager
def own_targets() -> Iterator[Path]:
    """A temporary cache that starts without targets and has all else in common with the usual one.

    Versions that share targets would measure each other's; those of an earlier run would leave no fact fresh.
    """
    with TemporaryDirectory(prefix="sleepgym-cache-") as folder:
        for kind in KEPT:
            (Path(folder) / kind).symlink_to(cache_dir(kind))
        yield Path(folder)


class Player:
    """A process with one thread that has an environment of one version of the package and plays what it is told.

    It lives until :meth:`close`, so that loading a model is no part of any timing.

    Args:
        root: Folder that the package is imported from.
        cache: Folder of cached files; see :func:`own_targets`.
        card: Id of the environment.
        arguments: Further arguments of ``gymnasium.make``, such as sections of the card with the keys to replace.

    Raises:
        RuntimeError: The process has ended, or imports the package from elsewhere.
    """

    def __init__(self, root: Path, cache: Path, card: str, arguments: Mapping[str, Any] | None = None) -> None:
        self.root = root
        usual = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**usual, "PYTHONPATH": str(root), "SLEEPGYM_CACHE": str(cache)},
        )
        self._tell({"make": card, "arguments": arguments or {}})
        about = self.answer()
        self.version: str = about["version"]
        if not Path(about["package"]).is_relative_to(root.resolve()):
            self.close()
            raise RuntimeError(f"expected the package in {root}, found the one in {about['package']}")

    def begin(self, seeds: Sequence[int], timetable: Sequence[str]) -> None:
        """Starts to play an episode per seed; :meth:`answer` waits until all are over.

        Args:
            seeds: Seeds of the episodes.
            timetable: Names of actions; one that is not allowed when it is due is a ``WAIT``.
        """
        self._tell({"play": list(seeds), "timetable": list(timetable)})

    def play(self, seeds: Sequence[int], timetable: Sequence[str]) -> Played:
        """Plays an episode per seed; see :meth:`begin`."""
        self.begin(seeds, timetable)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """What the process says to the last command, once it has done it."""
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(
                f"expected an answer of the player in {self.root}, found that it has ended; see its error"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the process."""
        # Its input ends, and so does it.
        self._process.communicate()

    def _tell(self, command: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
