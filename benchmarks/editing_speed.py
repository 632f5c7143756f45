"""Speed of the editor as ratios of two timings in one run.

    python benchmarks/editing_speed.py --model tiny --out docs/editing/speed.tiny.json

Each pair is timed in turns, and the ratio is that of the medians, so that a busy machine slows both sides alike.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from unittest import mock

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.common import markdown, records, timing
from benchmarks.common.records import Record
from benchmarks.common.timing import Row
from sleepgym.editing import Editor, EditSpec, optimize_targets, spec_for, statistics_for
from sleepgym.editing.solver import NormalMatrix
from sleepgym.editing.targets import contexts, key_position
from sleepgym.facts import Fact
from sleepgym.lm import LanguageModel, facts_for, load, score
from sleepgym.lm.continuation import Continuation, Start
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import hooked
from sleepgym.memory.overlay import Memory, Overlay


@dataclass
class Args:
    model: str = "tiny"
    """any name that sleepgym.lm.load understands"""
    facts: int = 32
    """facts of a batch"""
    repeats: int = 5
    """timings of each side"""
    device: str | None = None
    """cpu or cuda; by default cuda if there is one"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """precision"""
    out: Path | None = None
    """JSON with every figure"""


class Bench:
    """A model, its editor and facts to write."""

    def __init__(self, args: Args) -> None:
        self.args = args
        self.lm: LanguageModel = load(args.model, device=args.device, dtype=getattr(torch, args.dtype))
        self.overlay = Overlay(self.lm)
        self.spec: EditSpec = spec_for(self.lm)
        self.statistics = statistics_for(self.lm, self.spec.layers)
        source = facts_for(args.model)
        self.facts: list[Fact] = source.new_facts(np.random.default_rng(0), args.facts, "train")
        self.editor = Editor(self.overlay, self.statistics, self.spec)

    def pair(self, name: str, slow: Callable[[], object], fast: Callable[[], object], goal: str) -> Row:
        """Times two calls in turns after one warm-up of each."""
        return timing.pair(name, slow, fast, self.args.repeats, warm_up=(slow, fast)) | {"goal": goal}

    def targets(self) -> list[Row]:
        prefixes = self.editor.prefixes

        def batched() -> None:
            optimize_targets(self.lm, self.facts, prefixes, self.spec)

        def one_at_a_time() -> None:
            for fact in self.facts:
                optimize_targets(self.lm, [fact], prefixes, self.spec)

        def plain() -> None:
            # Pretends that what is kept disagrees with a full pass, so that nothing is.
            with mock.patch.object(Continuation, "_agrees", lambda run, rows: False):
                one_at_a_time()

        n, goal = len(self.facts), ">= 8 (tiny), >= 2.5 (Gemma)"
        return [
            self.pair(f"targets of {n} facts: one at a time / batched", one_at_a_time, batched, goal),
            self.pair("the same, one at a time in full passes / batched, nothing run twice", plain, batched, goal),
        ]

    def prefix(self) -> Row:
        """A step of the optimisation: forward and backward to a perturbation at the key."""
        rows = [row for fact in self.facts for row in contexts(self.lm, fact, self.editor.prefixes)]
        ids = [row.ids[:-1] for row in rows]
        starts = [key_position(row, self.spec) for row in rows]
        at = torch.arange(len(rows), device=self.lm.device)
        last = torch.tensor([len(i) - 1 for i in ids], device=self.lm.device)
        module = self.lm.linear(self.lm.blocks[self.spec.layers[0]].down_proj)

        def step(run: Continuation) -> Callable[[], None]:
            where = torch.tensor(starts, device=self.lm.device) - run.starts

            def call() -> None:
                delta = torch.zeros(1, device=self.lm.device, dtype=self.lm.dtype, requires_grad=True)

                def add(module: torch.nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
                    return out.index_put((at, where), delta.expand(len(rows), out.shape[-1]), accumulate=True)

                with hooked(module.register_forward_hook(add)):
                    run.logits(at, last).logsumexp(-1).sum().backward()

            return call

        full = Continuation(self.lm, ids, [0] * len(ids), Start(0))
        kept = Continuation(self.lm, ids, starts, Start(self.spec.layers[0]))
        return self.pair(
            "one optimisation step: full pass / kept prefix and lower blocks", step(full), step(kept), ">= 1.5"
        )

    def injection(self) -> list[Row]:
        """Writing with cached targets against one forward pass over the same prompts."""
        rows = []
        for count in (1, len(self.facts)):
            facts = self.facts[:count]
            self.editor.targets(facts)
            probes = [self.lm.encode(fact.prompt, fact.object) for fact in facts]

            def write(facts: list[Fact] = facts) -> None:
                self.editor.write(Memory(), facts)

            def forward(probes: list[Encoded] = probes) -> None:
                score(self.lm, probes)

            rows.append(self.pair(f"{count} cached: injection / one pass over the prompts", write, forward, "<= 2"))
        return rows

    def solve(self, counts: Sequence[int] = (10, 50, 100, 200, 400)) -> list[Row]:
        """The n-th fact added to a solved system against solving for all n."""
        layer = self.spec.layers[0]
        normal = NormalMatrix(
            self.statistics.moments[layer].to(self.lm.device), self.spec.covariance_weight, self.spec.ridge
        )
        d_in = len(self.statistics.moments[layer])
        generator = torch.Generator().manual_seed(0)
        keys = torch.randn(max(counts), d_in, dtype=torch.float64, generator=generator).to(self.lm.device)
        rows = []
        for n in counts:
            before = normal.empty().extended(normal.whiten(keys[: n - 1]))

            def nth(before=before, n=n) -> None:  # type: ignore[no-untyped-def]  # late binding
                normal.unwhiten(before.extended(normal.whiten(keys[n - 1 : n])).rows(1))

            def scratch(n: int = n) -> None:
                normal.solve(keys[n - 1 : n], keys[: n - 1])

            rows.append(self.pair(f"fact {n}: solving from scratch / incrementally", scratch, nth, "cost flat in n"))
        return rows

    def memory(self) -> list[Row]:
        """What a fact takes, and what writing a batch takes at its peak, in a process of its own."""
        memory = Memory()
        self.editor.write(memory, self.facts)
        size = torch.finfo(self.lm.dtype).bits // 8
        rows: list[Row] = [
            {"what": "memory per fact (kB)", "value": memory.parameters * size / len(self.facts) / 1000, "goal": ""}
        ]
        if self.lm.device.type == "cpu":
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                added = pool.submit(batch_memory, self.args).result()
            what = f"peak memory of writing {len(self.facts)} facts at once, over that of writing one (MB)"
            rows.append({"what": what, "value": added, "goal": "<= 100"})
        return rows


def batch_memory(args: Args) -> float:
    """Megabytes that a process grows by while it optimises and writes a batch of facts, after it wrote one."""
    bench = Bench(args)
    with TemporaryDirectory() as folder:
        editor = Editor(bench.overlay, bench.statistics, bench.spec, Path(folder))
        editor.write(Memory(), bench.facts[:1])
        before = peak()
        editor.write(Memory(), bench.facts)
        return peak() - before


def peak() -> float:
    """Megabytes that this process has had at most."""
    # Not what getrusage says: there a process begins with the peak of the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024  # type: ignore[index]  # Linux always says it


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Rows of pairs as text, and single values last."""
    pairs = [
        [
            str(row["what"]),
            *(f"{row[side]:.{0 if float(row[side]) >= 10 else 1}f}" for side in ("slow (ms)", "fast (ms)")),
            markdown.interval(row, ".3g", "ratio"),
            str(row["goal"]),
        ]
        for row in rows
        if "ratio" in row
    ]
    singles = [[str(row["what"]), f"{row['value']:.1f}", "", "", str(row["goal"])] for row in rows if "value" in row]
    return [*pairs, *singles]


COLUMNS = ("", "first (ms)", "second (ms)", "ratio (range)", "goal")


def table(record: Record) -> str:
    """Pairs of a record in Markdown, with the machine below."""
    return markdown.table(COLUMNS, cells(record["rows"])) + f"\n\n{record['model']}: {record['machine']}."


def main(args: Args) -> None:
    bench = Bench(args)
    record = records.circumstances(device=bench.lm.device.type)
    record["machine"] += f", {args.dtype}"
    rows = [*bench.targets(), bench.prefix(), *bench.injection(), *bench.solve(), *bench.memory()]
    shown = Table(*COLUMNS, title=f"{args.model}: {record['machine']}, medians of {args.repeats}")
    for row in cells(rows):
        shown.add_row(*row)
    Console(width=140).print(shown)
    if args.out:
        found = {"model": args.model, "facts": args.facts, "repeats": args.repeats, "rows": rows}
        records.write(args.out, record | found)


if __name__ == "__main__":
    main(tyro.cli(Args))
