"""The wheel is complete, safe and small, and works outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import sleepgym
from sleepgym.cli.scripted import SCRIPTS

ROOT = Path(__file__).parents[1]
MEBIBYTE = 2**20
# Only gymnasium is imported by hand: "sleepgym:" in the id makes gymnasium import the package that registers it.
# (Gymnasium 1.0 removed the entry points that once registered environments of packages nobody imported.)
FIRST_STEP = """
import gymnasium as gym
env = gym.make("sleepgym:SleepLLM-v0")
env.reset(seed=0)
env.step(0)
"""

SUBCOMMANDS = """
from importlib import import_module
from sleepgym.cli.main import main
from sleepgym.cli.scripted import SCRIPTS
for script in SCRIPTS.values():
    import_module(f"sleepgym.cli.scripts.{script.module}")
assert main(["evaluate", "never-sleep", "--env-id", "SleepLLM-Mini-v0", "--episodes", "1", "--json"]) == 0
"""

PLACE = """
import sleepgym
print(sleepgym.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command as a stranger to this checkout, and returns the last line it printed."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip().rpartition("\n")[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # No isolation: the build backend is part of the `dev` extra, so nothing is downloaded.
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture
def empty_venv(tmp_path: Path) -> Path:
    # Without pip of its own: the pip that runs the tests installs into it with `--python`, which saves seconds.
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    return tmp_path / "venv"


def install(venv: Path, *arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", *arguments, cwd=venv)


def assert_first_step_works(venv: Path, folder: Path, then: str = "") -> None:
    imported = Path(run(venv / "bin/python", "-c", FIRST_STEP + then + PLACE, cwd=folder))
    assert imported.is_relative_to(venv), f"expected the installed wheel, found {imported}"


def test_wheel_has_the_version_that_the_package_reports(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Version"] == sleepgym.__version__


def test_wheel_ships_every_card(members: set[str]) -> None:
    folder = ROOT / "envs"
    cards = {f"sleepgym/env/cards/{card.relative_to(folder).as_posix()}" for card in folder.rglob("*.toml")}
    assert {f"sleepgym/env/cards/{name}.toml" for name in ("SleepLLM-v0", "fastweights/FastWeights-v0")} <= cards
    assert cards <= members


def test_wheel_ships_the_tiny_model(members: set[str]) -> None:
    tiny = {name.removeprefix("sleepgym/lm/tiny/") for name in members if name.startswith("sleepgym/lm/tiny/")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= tiny
    assert any(name.startswith("statistics") for name in tiny)


def test_wheel_ships_the_model_of_fast_weights(wheel: Path, members: set[str]) -> None:
    (model,) = (name for name in members if name.startswith("sleepgym/fastweights/models/"))
    with zipfile.ZipFile(wheel) as archive:
        assert model.endswith(".safetensors") and archive.getinfo(model).file_size < 5 * MEBIBYTE


def test_wheel_ships_the_scripts_that_are_subcommands(members: set[str]) -> None:
    scripts = {f"sleepgym/cli/scripts/{script.module}.py" for script in SCRIPTS.values()}
    assert scripts == {name for name in members if name.startswith("sleepgym/cli/scripts/")} - {
        "sleepgym/cli/scripts/__init__.py"
    }


def test_an_editable_install_is_the_checkout(tmp_path: Path) -> None:
    build = f"from hatchling.build import build_editable; build_editable({str(tmp_path)!r})"
    run(sys.executable, "-c", build, cwd=ROOT)
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        assert [name for name in archive.namelist() if ".dist-info/" not in name] == ["_sleepgym.pth"]
        assert archive.read("_sleepgym.pth").decode().strip() == str(ROOT)


def test_wheel_holds_nothing_that_runs_when_loaded(members: set[str]) -> None:
    # An allow-list: a pickle can have any name (.pt, .bin, .npy, ...).
    data = {".toml", ".json", ".jinja", ".safetensors", ".typed", ".py"}
    package = {Path(name) for name in members if name.startswith("sleepgym/")}
    assert {path for path in package if path.suffix not in data} == set()


def test_wheel_is_the_package_alone_and_small(wheel: Path, members: set[str]) -> None:
    assert {name.partition("/")[0].partition("-")[0] for name in members} == {"sleepgym"}
    assert wheel.stat().st_size < 40 * MEBIBYTE


def test_installed_wheel_makes_its_first_step(wheel: Path, empty_venv: Path, tmp_path: Path) -> None:
    install(empty_venv, "--no-deps", wheel)
    # The dependencies are borrowed from the environment that runs the tests, not downloaded again (gigabytes).
    # Folders named in a .pth file come last on the path and their own .pth files are not read, so neither an
    # editable nor a regular installation of sleepgym there can stand in for the wheel.
    own = sysconfig.get_path("purelib", "venv", {"base": str(empty_venv)})
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(own, "borrowed.pth").write_text("\n".join(borrowed))
    assert_first_step_works(empty_venv, tmp_path, then=SUBCOMMANDS)  # in one process, of which most is importing torch


@pytest.mark.slow
@pytest.mark.timeout(1800)  # downloads every dependency
def test_wheel_with_real_dependencies_makes_its_first_step(wheel: Path, empty_venv: Path, tmp_path: Path) -> None:
    install(empty_venv, "-c", ROOT / "constraints.txt", wheel)
    assert_first_step_works(empty_venv, tmp_path)
