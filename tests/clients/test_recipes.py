"""The recipes of docs/integrations.md run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a section's recipe imports, where that is not its title in lower case. CleanRL is no package.
MODULES = {
    "CleanRL": ["gymnasium"],
    "Minari": ["minari", "h5py", "jax"],
    "RLlib": ["ray"],
    "Stable-Baselines3": ["stable_baselines3"],
    "sb3-contrib": ["sb3_contrib"],
}


def recipes() -> list[tuple[str, str, str]]:
    page = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    blocks = [(part.splitlines()[0], part) for part in sections]
    return [(title, *b) for title, part in blocks for b in re.findall(r"```(\w+)\n(.*?)```", part, flags=re.DOTALL)]


@pytest.mark.parametrize(("library", "language", "source"), recipes(), ids=lambda value: value.split("\n")[0][:20])
def test_it_runs(library: str, language: str, source: str, tmp_path: Path) -> None:
    missing = [name for name in MODULES.get(library, [library.lower()]) if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    (tmp_path / "cleanrl").mkdir()
    shutil.copy(Path(__file__).with_name("cleanrl_ppo.py"), tmp_path / "cleanrl" / "ppo.py")
    (tmp_path / "recipe").write_text(source, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MINARI_DATASETS_PATH": str(tmp_path / "minari"),
    }
    command = [sys.executable, "recipe"] if language == "python" else ["sh", "-e", "recipe"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_library_has_a_recipe() -> None:
    libraries = {title for title, *_ in recipes()}
    assert len(libraries) == 12
    assert set(MODULES) <= libraries
