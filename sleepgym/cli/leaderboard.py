"""``sleepgym leaderboard``: plays schedulers and policies on the frozen test streams; checks what was handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from sleepgym.evaluation import EpisodeResult
    from sleepgym.leaderboard.players import Player
    from sleepgym.leaderboard.playing import Played
    from sleepgym.leaderboard.submission import Submission

VALID, DIFFERS, UNUSABLE = 0, 1, 2


@dataclass(frozen=True)
class Args:
    """Play schedulers on the frozen test streams and print how they did, or check what was handed in.

    Streams are those of the split "test" with seeds from 10000000 on, the same for everyone. Some episodes are played
    again from their recordings. Status 0 if they come out alike, 1 if not, 2 if something cannot be played.

    A policy file is code: loading it runs what is in it. Name only files that you or people you trust have made. An
    example: `sleepgym leaderboard night-owl --streams 10 --out my-entries`.
    """

    entries: tyro.conf.Positional[tuple[str, ...]] = ()
    """schedulers with their numbers, such as night-owl, fixed-period:days=0.75 or
    look-ahead:depth=16,width=4,rule=night-owl; schedulers of your own as MODULE:NAME or FILE.py:NAME; policies as
    PATH.zip with a card beside it, or without one after what they were trained with, as maskable-ppo:PATH, ppo:PATH,
    recurrent-ppo:PATH or dqn:PATH"""
    env_id: str = "SleepLLM-v0"
    """the environment to play"""
    streams: int = 100
    """test streams that each entry plays"""
    validate: int = 5
    """episodes per entry that are drawn at random and played again; 0 for none"""
    tolerance: float = 1e-4
    """by how much a reward or a score may then differ"""
    slots: int = 16
    """episodes at once"""
    processes: int = 1
    """processes that play, with an equal share of the cores each; on a CPU they are faster than slots"""
    out: Path | None = None
    """folder for the table, and for each entry's scores and recordings; streams that an entry there has played already
    are not played again"""
    check: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """an entry's folder to check instead of playing, as --out wrote it; may be given several times"""
    json: bool = False
    """print the table as JSON, for scripts"""

    def run(self) -> int:
        """Plays or checks."""
        from transformers.utils import logging

        from sleepgym.cli.views import one_line
        from sleepgym.lm import ModelLoadError

        logging.disable_progress_bar()
        # The table alone goes to standard output, so that it can be kept in a file.
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        try:
            if bool(self.entries) == bool(self.check):
                raise ValueError("expected either entries to play or --check with a folder; see --help")
            if min(self.validate, self.streams - 1, self.slots - 1, self.processes - 1) < 0:
                raise ValueError(
                    f"expected at least one stream, one slot and one process, and no negative number of episodes to "
                    f"validate, found {self.streams}, {self.slots}, {self.processes} and {self.validate}"
                )
            return self._check(console) if self.check else self._play(console)
        except (ModelLoadError, ValueError, OSError) as error:
            console.print(one_line(error))
            return UNUSABLE

    def _check(self, console: Console) -> int:
        from sleepgym.cli.views import one_line, shown
        from sleepgym.leaderboard.submission import Submission

        worst = VALID
        for path in self.check:
            try:
                status = _validated(str(path), Submission.load(path), self.validate, self.tolerance, console)
            except ValueError as error:
                console.print(shown(f"{path}: "), one_line(error), sep="")
                status = UNUSABLE
            worst = max(worst, status)
        return worst

    def _play(self, console: Console) -> int:
        import numpy as np

        from sleepgym import files
        from sleepgym.leaderboard.playing import frozen_seeds, joined, leaderboard_sheet
        from sleepgym.leaderboard.submission import Submission, folder_name, keep, kept

        # All of them before anybody plays: a mistake in the last name is found at once.
        players = _players(self.entries, self.env_id)
        if self.out is not None and len({folder_name(name) for name in self.entries}) < len(players):
            raise ValueError(
                f"expected entries whose folders differ, found {', '.join(map(folder_name, self.entries))}"
            )
        played: dict[str, Played] = {}
        if self.out is not None:
            for player in players:
                there = kept(self.out / folder_name(player.name), player, self.env_id, self.streams)
                played |= {player.name: there} if there is not None else {}
        missing = {
            player.name: frozen_seeds(self.streams)[len(played[player.name].results) if player.name in played else 0 :]
            for player in players
        }
        waiting = [player for player in players if missing[player.name]]
        with _progress(console) as progress:
            task = progress.add_task("", total=sum(map(len, missing.values())))

            def advance(name: str, episodes: int) -> None:
                progress.update(task, description=name, advance=episodes)

            for one in self._played(waiting, missing, advance):
                played[one.name] = joined([played[one.name], one]) if one.name in played else one
                if self.out is not None:
                    # Lot by lot: what was played is not lost if a later one is interrupted.
                    keep(played[one.name], self.out / folder_name(one.name))
        title = f"{self.env_id}, {self.streams} test streams, mean [95 % interval]"
        sheet = leaderboard_sheet(list(played.values()), np.random.default_rng(0), title)
        if self.out is not None:
            tables = {"leaderboard.md": sheet.markdown().encode(), "leaderboard.json": sheet.json().encode()}
            files.write_all(self.out, tables)
        print(sheet.json() if self.json else sheet.markdown(), end="")
        submissions = [(name, Submission(played[name].scores, played[name].recordings)) for name in self.entries]
        return max(
            _validated(name, submission, self.validate, self.tolerance, console) for name, submission in submissions
        )

    def _played(
        self, players: Sequence[Player], seeds: Mapping[str, range], advance: Callable[[str, int], None]
    ) -> Iterator[Played]:
        """Plays entries, one after the other, each on its seeds, and yields them lot by lot."""
        from sleepgym.evaluation import chunks, in_processes
        from sleepgym.leaderboard.playing import play

        size = self.slots if self.processes == 1 else min(self.slots, 4)
        lots = [(player, lot) for player in players for lot in chunks(seeds[player.name], size)]
        if self.processes == 1:
            for player, lot in lots:
                yield play(player, self.env_id, lot, self.slots, partial(_tell, advance, player.name))
            return
        jobs = [_Job(player.name, self.env_id, tuple(lot), self.slots) for player, lot in lots]
        for part in in_processes(_play_chunk, jobs, self.processes):
            advance(part.name, len(part.results))
            yield part


def _tell(advance: Callable[[str, int], None], name: str, result: EpisodeResult) -> None:
    advance(name, 1)


class _Job(NamedTuple):
    """A few episodes for another process, which has to make the entry itself."""

    name: str
    env_id: str
    seeds: tuple[int, ...]
    slots: int


def _play_chunk(job: _Job) -> Played:
    from sleepgym.leaderboard.playing import play

    (player,) = _players([job.name], job.env_id)
    return play(player, job.env_id, job.seeds, job.slots)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _players(texts: Sequence[str], env_id: str) -> list[Player]:
    from sleepgym.leaderboard.players import player_named
    from sleepgym.leaderboard.playing import make_test_env

    if len(set(texts)) < len(texts):
        raise ValueError(f"expected each player once, found {', '.join(texts)}")
    env = make_test_env(env_id)
    return [player_named(text, env) for text in texts]


def _validated(name: str, submission: Submission, count: int, tolerance: float, console: Console) -> int:
    """Says whether it is as it claims."""
    import numpy as np

    from sleepgym.cli.views import shown

    differences = list(submission.mistakes(tolerance))
    with console.status(f"playing {count} episodes again"):
        # Not seeded: who hands something in cannot know which episodes will be drawn.
        replayed = list(submission.replayed(count, np.random.default_rng(), tolerance))
    differences += [f"stream {stream}: differs at {where}" for stream, where in replayed if where]
    for difference in differences:
        console.print(shown(f"{name}: {difference}", "red"))
    if not differences:
        streams = ", ".join(str(stream) for stream, _ in replayed) or "none"
        console.print(shown(f"{name}: valid; played again: {streams}", "green"))
    return DIFFERS if differences else VALID
