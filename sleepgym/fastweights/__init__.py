"""Fast weights: a small model that digests its context into a state by passes at a window's end."""

from sleepgym.fastweights.checkpoint import CheckpointError, Trained, load_model, save_model, shipped
from sleepgym.fastweights.hops import Hops
from sleepgym.fastweights.model import FastWeightModel, ModelSpec
from sleepgym.fastweights.rule110 import Rule110
from sleepgym.fastweights.state import FastState, FastStateError
from sleepgym.fastweights.task import Batch, Task
from sleepgym.fastweights.tasks import TaskError, task_named

__all__ = [
    "Batch",
    "CheckpointError",
    "FastState",
    "FastStateError",
    "FastWeightModel",
    "Hops",
    "ModelSpec",
    "Rule110",
    "Task",
    "TaskError",
    "Trained",
    "load_model",
    "save_model",
    "shipped",
    "task_named",
]
