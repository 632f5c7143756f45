"""``sleepgym inspect`` says what is in a model, or why nothing can be done with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sleepgym.cli.main import main
from sleepgym.editing import spec_for
from sleepgym.lm import load


def test_a_model_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "tiny", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    lm = load("tiny", device="cpu")
    assert found["blocks"] == len(lm.blocks) and found["settings"] == "calibrated"
    assert found["edited blocks"] == list(spec_for(lm).layers)
    assert found["parameters"] == sum(weight.numel() for weight in lm.model.parameters())
    assert found["fingerprint"] == lm.fingerprint[:16]


def test_a_fact_takes_what_is_said(capsys: pytest.CaptureFixture[str], base, facts) -> None:  # type: ignore[no-untyped-def]
    main(["inspect", "tiny", "--json"])
    said = json.loads(capsys.readouterr().out)["a fact, kB"]
    from sleepgym.memory.overlay import Memory

    memory = Memory()
    base.editor.write(memory, facts[:4])
    assert memory.parameters * 4 / 4 / 1000 == pytest.approx(said, abs=0.06)


def test_the_table_has_the_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "tiny"]) == 0
    assert "edited linears" in capsys.readouterr().out


def test_what_is_no_model_is_refused_with_the_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main(["inspect", str(tmp_path)]) == 2
    assert "expected" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path), "--json"]) == 2
    said = capsys.readouterr()
    assert not said.out and "expected" in said.err
