"""``sleepgym replay``: plays recorded episodes again and checks that the same comes of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.console import Console

AGREES, DIFFERS, UNUSABLE = 0, 1, 2


@dataclass(frozen=True)
class Args:
    """Play recorded episodes again: status 0 if they come out as recorded, 1 if not, 2 if a file cannot be played.

    An example: `sleepgym replay my-entries/night-owl/recordings/10000000.json`.
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    """recordings, as sleepgym.record.recording.Recorder writes them"""
    tolerance: float = 1e-6
    """by how much a reward or the score may differ"""
    json: bool = False
    """an object per file and line, for scripts; why a file cannot be played is said on standard error"""

    def run(self) -> int:
        """Plays one file after the other; the status is the worst of them."""
        console = Console(highlight=False, soft_wrap=True, stderr=self.json)
        if not self.files:
            console.print("expected at least one recording to replay, found none", style="red", markup=False)
            return UNUSABLE
        return max(self._play(path, console) for path in self.files)

    def _play(self, path: Path, console: Console) -> int:
        from transformers.utils import logging

        from sleepgym.cli.views import one_line, shown
        from sleepgym.lm import ModelLoadError
        from sleepgym.record.recording import Recording
        from sleepgym.record.replay import replay

        logging.disable_progress_bar()
        try:
            with console.status(f"replaying {path.name}"):
                played = replay(Recording.load(path), self.tolerance)
        except (ModelLoadError, ValueError, OSError) as error:
            console.print(shown(f"{path}: "), one_line(error), sep="")
            return UNUSABLE
        if self.json:
            print(json.dumps({"file": str(path), "agrees": played.agrees} | asdict(played)))
            return AGREES if played.agrees else DIFFERS
        if played.note:
            console.print(shown(f"{path}: note: {played.note}", "yellow"))
        if not played.agrees:
            console.print(shown(f"{path}: differs at {played.difference}", "red"))
            return DIFFERS
        how = f"within {played.largest_error:.1e}" if played.largest_error else "exactly"
        console.print(shown(f"{path}: agrees {how}: {played.steps} steps, score {played.score:.4f}", "green"))
        return AGREES
