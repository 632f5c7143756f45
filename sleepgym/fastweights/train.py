"""Trains a model of fast weights on a task, from scratch.

    python -m sleepgym.fastweights.train --task rule110 --passes 4 --seed 1 --out runs/fastweights/rule110-n4-1

``--passes 4`` digests every context window in four passes. ``--passes 0`` draws N of every window anew in each batch,
from 1 to ``--most-passes``, so that one model serves all N; the paper has one model per N. A run that was stopped goes
on from its last checkpoint when the command is repeated, and ends with the same weights.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from sleepgym.errors import SleepGymError
from sleepgym.fastweights.checkpoint import Trained, save_model
from sleepgym.fastweights.model import FastWeightModel, ModelSpec
from sleepgym.fastweights.scoring import Accuracy, accuracies, logits_of
from sleepgym.fastweights.task import Batch, Task
from sleepgym.fastweights.tasks import task_named
from sleepgym.files import write_all
from sleepgym.settings import above_zero, at_least

FINAL_RATE = 0.05
"""Where the cosine schedule ends, relative to its peak."""


class ResumeError(SleepGymError, ValueError):
    """A folder has a run with other settings."""


@dataclass(frozen=True)
class Args:
    """Settings of a run; but for the last ones, all of them decide its result."""

    task: Literal["rule110", "hops"] = "rule110"
    """task"""
    settings: dict[str, int] = field(default_factory=dict)
    """settings of the task that differ from its defaults, such as --settings deepest 8 cells 17"""
    passes: int = 1
    """N, the passes over each context window; 0 to draw them per window and batch"""
    most_passes: int = 4
    """largest N that is drawn"""
    uncut: bool = False
    """keep the context in front of the queries, so that attention sees all of it: an upper bound"""
    seed: int = 0
    """seed of weights and sequences"""
    steps: int = 4000
    """optimiser steps"""
    grow: int = 0
    """steps over which the largest depth that is drawn rises to that of the task, a curriculum"""
    batch: int = 32
    """sequences per step"""
    width: int = 48
    """size of the residual stream"""
    blocks: int = 2
    """number of blocks"""
    heads: int = 1
    """heads of both mixers"""
    optimizer: Literal["muon", "adamw"] = "muon"
    """optimiser of the matrices; everything else is trained by AdamW"""
    matrix_lr: float = 0.005
    """peak learning rate of the matrices under Muon"""
    lr: float = 5e-3
    """peak learning rate of AdamW"""
    weight_decay: float = 0.01
    """decoupled weight decay of the matrices"""
    warm_up: int = 100
    """steps until the peak, from where the rate falls to a twentieth along a cosine"""
    clip: float = 1.0
    """largest norm of the gradient"""
    out: Path = Path("runs/fastweights/last")
    """folder of the run: model.safetensors, scores.json, tensorboard logs, and the state that it goes on from"""
    device: str = "cpu"
    """device"""
    threads: int = 1
    """number of torch threads; the model is too small to benefit from many"""
    check_every: int = 500
    """steps between scores on validation sequences, and between checkpoints"""
    check_sequences: int = 256
    """validation sequences per depth"""

    def __post_init__(self) -> None:
        at_least(self, 0, "passes", "grow", "warm_up", "weight_decay")
        at_least(self, 1, "most_passes", "steps", "batch", "threads", "check_every", "check_sequences")
        above_zero(self, "matrix_lr", "lr", "clip")

    @property
    def recipe(self) -> dict[str, Any]:
        """What decides the result."""
        free = ("out", "device", "threads", "check_every", "check_sequences")
        return {name: value for name, value in asdict(self).items() if name not in free}


class Run:
    """A model in training.

    Args:
        args: Settings.

    Attributes:
        task: Task.
        model: Model.
        done: Steps that were made.
        seconds: Time that they took, over all sittings.
    """

    def __init__(self, args: Args) -> None:
        self.args = args
        self.task: Task = task_named(args.task, args.settings)
        context, asked = self.task.context_tokens, 2 * self.task.queries
        tokens = sum(context) + asked if args.uncut else max(*context, asked)
        spec = ModelSpec(self.task.vocabulary, tokens, args.width, args.blocks, args.heads)
        self.model = FastWeightModel(spec, args.seed).to(args.device)
        self.optimizers = _optimizers(self.model, args)
        self.done, self.seconds = 0, 0.0

    def step(self) -> tuple[float, float]:
        """Makes one step.

        Returns:
            Loss, and the norm of the gradient before it was clipped.
        """
        args = self.args
        # A generator per step: what a step sees does not depend on where the run was resumed.
        rng = np.random.default_rng((args.seed, self.done))
        batch = up_to(self.task, self.done, args.grow).batch(rng, args.batch).to(args.device)
        passes = [args.passes or int(rng.integers(1, args.most_passes + 1)) for _ in batch.windows]
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate(self.done, args.steps, args.warm_up)
        loss = loss_of(self.model, batch.uncut() if args.uncut else batch, [] if args.uncut else passes)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), args.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.done += 1
        return loss.item(), norm.item()

    def scores(self) -> list[Accuracy]:
        """Accuracy on validation sequences by depth; with N drawn, at the largest."""
        args = self.args
        passes = args.passes or args.most_passes
        return accuracies(self.model, self.task, passes, args.check_sequences, seed=args.seed, uncut=args.uncut)

    def trained(self) -> Trained:
        """The model as it is now."""
        return Trained(self.model, self.task, {**self.args.recipe, "done": self.done, "seconds": round(self.seconds)})

    def save(self) -> None:
        """Writes everything that the run goes on from; the last file vouches for the one before it."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for place, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{place}.{key}": value for key, value in state.items()}
        about = {"recipe": self.args.recipe, "done": self.done, "seconds": self.seconds}
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        header = {"run": json.dumps(about)}
        write_all(self.args.out, {"state.safetensors": save(tensors, header), "run.json": json.dumps(about).encode()})

    def resume(self) -> None:
        """Goes on from what was saved, if anything was.

        Raises:
            ResumeError: It is of other settings.
        """
        folder = self.args.out
        if not (folder / "run.json").exists():
            return
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        ours, theirs = self.args.recipe, about["recipe"]
        if changed := sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key)):
            key = changed[0]
            raise ResumeError(
                f"{folder}: expected a run with {key}={ours.get(key)!r}, found one with {theirs.get(key)!r}; "
                "choose another --out, or delete the folder to begin anew"
            )
        tensors = load_file(folder / "state.safetensors", device=self.args.device)
        part = lambda prefix: {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
        self.model.load_state_dict(part("model."))
        for number, optimizer in enumerate(self.optimizers):
            found: dict[int, dict[str, Tensor]] = {}
            for name, value in part(f"optimizer.{number}.").items():
                place, key = name.split(".", 1)
                found.setdefault(int(place), {})[key] = value
            optimizer.load_state_dict({"state": found, "param_groups": optimizer.state_dict()["param_groups"]})
        self.done, self.seconds = about["done"], about["seconds"]


def up_to(task: Task, step: int, grow: int) -> Task:
    """The task as it is drawn at a step: with depths up to a limit that rises evenly, and as it is from ``grow`` on."""
    if step >= grow:
        return task
    limit = task.shallowest + (task.deepest - task.shallowest) * step // grow
    return replace(task, deepest=max(1, limit))  # type: ignore[type-var]  # its tokens are the first of the whole task's


def loss_of(model: FastWeightModel, batch: Batch, passes: list[int]) -> Tensor:
    """Cross-entropy of the answers, averaged over all queries."""
    return F.cross_entropy(logits_of(model, batch, passes).flatten(0, 1), batch.answers.flatten())


def rate(step: int, steps: int, warm_up: int) -> float:
    """Learning rate of a step relative to its peak: a linear warm-up, then a cosine."""
    if step < warm_up:
        return (step + 1) / warm_up
    along = (step - warm_up) / max(1, steps - warm_up)
    return FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * along)) / 2


def _optimizers(model: FastWeightModel, args: Args) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks (Jordan 2024), AdamW for embeddings, head, norms, convolutions and gates."""
    matrices = [p for name, p in model.blocks.named_parameters() if p.ndim == 2 and not name.endswith("conv")]
    chosen = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in chosen]
    rest: list[dict[str, Any]] = [{"params": others, "peak": args.lr, "weight_decay": 0.0}]
    of_matrices = {"params": matrices, "weight_decay": args.weight_decay}
    if args.optimizer == "adamw":
        return [torch.optim.AdamW([*rest, {**of_matrices, "peak": args.lr}], betas=(0.9, 0.98))]
    muon = torch.optim.Muon([{**of_matrices, "peak": args.matrix_lr}], adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, betas=(0.9, 0.98))]


def train(args: Args) -> Trained:
    """Trains a model, or goes on with it, and writes it to ``args.out``.

    Raises:
        ResumeError: The folder has a run with other settings.
        OSError: The folder cannot be written to.
    """
    torch.set_num_threads(args.threads)
    run = Run(args)
    run.resume()
    name = f"{args.task}, N = {args.passes or f'1 to {args.most_passes}'}, seed {args.seed}"
    print(f"{name}: {sum(p.numel() for p in run.model.parameters()):,} parameters, step {run.done} of {args.steps}")
    with SummaryWriter(str(args.out)) as writer:
        begun, before = time.perf_counter(), run.seconds
        while run.done < args.steps:
            loss, norm = run.step()
            if run.done % 20 == 0:
                writer.add_scalar("train/loss", loss, run.done)
                writer.add_scalar("train/gradient", norm, run.done)
            if run.done % args.check_every == 0 or run.done == args.steps:
                run.seconds = before + time.perf_counter() - begun
                _report(run, loss, writer)
                run.save()
    trained = run.trained()
    save_model(args.out / "model.safetensors", trained)
    return trained


def _report(run: Run, loss: float, writer: SummaryWriter) -> None:
    scores = run.scores()
    for score in scores:
        writer.add_scalar(f"joint/depth {score.depth}", score.per_sequence, run.done)
        writer.add_scalar(f"query/depth {score.depth}", score.per_query, run.done)
    shown = " ".join(f"{score.depth}:{score.per_query:.2f}/{score.per_sequence:.2f}" for score in scores)
    print(
        f"step {run.done} of {run.args.steps}, {run.seconds:.0f} s, loss {loss:.3f}, depth:query/joint {shown}",
        flush=True,
    )


if __name__ == "__main__":
    train(tyro.cli(Args))
