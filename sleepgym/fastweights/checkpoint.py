"""Models on disk: one safetensors file, whose header says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from sleepgym.errors import SleepGymError
from sleepgym.fastweights.model import FastWeightModel, ModelSpec
from sleepgym.fastweights.task import Task
from sleepgym.fastweights.tasks import name_of, task_named
from sleepgym.files import write


class CheckpointError(SleepGymError, ValueError):
    """A file holds no model, or a damaged one."""


@dataclass(frozen=True)
class Trained:
    """A model, the task it was trained on, and how.

    Attributes:
        model: Model, in evaluation.
        task: Task.
        about: Settings and figures of its training, for people.
    """

    model: FastWeightModel
    task: Task
    about: Mapping[str, Any] = field(default_factory=dict)


def shipped(name: str) -> Path:
    """Path of a model that comes with the package."""
    return Path(__file__).parent / "models" / f"{name}.safetensors"


def save_model(path: str | Path, trained: Trained) -> None:
    """Writes a model, all or nothing.

    Raises:
        OSError: It cannot be written.
    """
    header = {
        "spec": asdict(trained.model.spec),
        "task": {"name": name_of(trained.task), "settings": asdict(trained.task)},  # type: ignore[call-overload]
        "about": dict(trained.about),
    }
    weights = {name: weight.detach().cpu().contiguous() for name, weight in trained.model.state_dict().items()}
    write(Path(path), save(weights, {key: json.dumps(value) for key, value in header.items()}))


def load_model(path: str | Path) -> Trained:
    """Reads what :func:`save_model` wrote.

    Raises:
        CheckpointError: The file is missing, damaged, or is something else.
    """
    try:
        with safe_open(path, "pt") as file:
            header = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        model = FastWeightModel(ModelSpec(**header["spec"]))
        model.load_state_dict(weights)
        task = task_named(header["task"]["name"], header["task"]["settings"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: expected a model of sleepgym.fastweights.train, found {type(error).__name__}: {error}"
        ) from error
    return Trained(model.eval().requires_grad_(False), task, header.get("about", {}))
