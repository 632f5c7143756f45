"""``sleepgym calibrate`` writes settings that are used from then on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleepgym.cli.main import main
from sleepgym.editing.calibration import Calibration


@pytest.mark.slow
def test_the_best_settings_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    flags = ["--facts", "2", "--layers", "0", "--clamps", "1.0", "--prefixes", "1", "--gate", "0", "--out", str(out)]
    assert main(["calibrate", "tiny", *flags]) == 0
    found = Calibration.read(out)
    assert (found.spec.layers, found.spec.clamp, found.spec.prefixes, found.spec.gate) == ((0,), 1.0, 1, 0.0)
    shown = capsys.readouterr().out
    assert str(out) in shown.replace("\n", "") and shown.count("quality") == len(found.trials)


@pytest.mark.parametrize("flags", [["no-such-model"], ["tiny", "--gate", "1.5"], ["tiny", "--layers", "9"]])
def test_what_cannot_be_done_is_said(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *flags, "--facts", "2"]) == 2
    assert "expected" in capsys.readouterr().out
