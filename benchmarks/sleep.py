"""Runs one of the experiments of the "Sleeping LLM" papers, and shows what they report beside what was found.

    python benchmarks/sleep.py capacity --model tiny --seeds 3 --out docs/sleep/tiny.capacity.json

Experiments: capacity, convergence, second-wave, sweep, lifetime, life, over-capacity, alignment-tax, ablations.
``--quick`` only shows that everything runs; ``--spec.*`` changes numbers of a night.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.common import records
from benchmarks.sleep_bench import FULL, QUICK, REAL, Plan, bench_of
from benchmarks.sleep_experiments import EXPERIMENTS
from benchmarks.sleep_tables import TITLES, table
from sleepgym.consolidation.spec import SleepError, SleepSpec
from sleepgym.editing import EditError
from sleepgym.episode.card import load_card

GEMMA = "gemma-3-270m"


@dataclass
class Args:
    experiment: tyro.conf.Positional[
        Literal[
            "capacity",
            "convergence",
            "second-wave",
            "sweep",
            "lifetime",
            "life",
            "over-capacity",
            "alignment-tax",
            "ablations",
        ]
    ]
    """what is run"""
    model: str = "tiny"
    """tiny or gemma-3-270m; any other name is taken for a model that knows the synthetic world"""
    seeds: int = 3
    """draws of facts"""
    first_seed: int = 0
    """number of the first draw"""
    quick: bool = False
    """a few facts only"""
    variants: tuple[str, ...] = ()
    """run only these variants; by default all"""
    counts: tuple[int, ...] = ()
    """numbers of facts for sweep and ablations"""
    changes: dict[str, int] = field(default_factory=dict)
    """other numbers of the plan, such as ``--changes days 10 per_day 5``"""
    spec: SleepSpec = field(default_factory=SleepSpec)
    """numbers of a night; by default the project's, for Gemma those of its environment"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """precision of the model"""
    out: Path | None = None
    """JSON with everything that was measured; written anew after every run"""


def plan_of(args: Args) -> Plan:
    plan = QUICK if args.quick else REAL if args.model == GEMMA else FULL
    if args.counts:
        plan = replace(plan, sweep=args.counts, ablations=args.counts)
    return replace(plan, **args.changes)  # type: ignore[arg-type]  # numbers all


def show(record: dict[str, Any], console: Console) -> None:
    rows = table(record)
    shown = Table(title=f"{TITLES[record['experiment']]} ({record['model']})", show_lines=True)
    for name in rows[0]:
        shown.add_column(name)
    for row in rows[1:]:
        shown.add_row(*row)
    console.print(shown)


def main(args: Args) -> None:
    console, plan = Console(width=180), plan_of(args)
    bench = bench_of(args.model, args.dtype, args.spec, plan)
    variants = EXPERIMENTS[args.experiment](bench, plan)
    unknown = set(args.variants) - set(variants)
    if unknown:
        raise SystemExit(f"expected --variants among {list(variants)}, found {sorted(unknown)}")
    record = records.circumstances(args.seeds) | {
        "experiment": args.experiment,
        "model": args.model,
        "fingerprint": bench.lm.fingerprint[:16],
        "dtype": args.dtype,
        "quick": args.quick,
        "plan": asdict(plan),
        "spec": asdict(args.spec),
        "edit": asdict(bench.edit),
        "perplexity": bench.bare,
        "known": len(bench.known),
        "seconds": 0.0,
        "runs": [],
    }
    begun = time.perf_counter()
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in args.variants or variants:
            started = time.perf_counter()
            run: dict[str, Any] = {"variant": name, "seed": seed}
            try:
                run["points"] = variants[name](seed)
            except (EditError, SleepError) as error:
                run |= {"points": [], "error": str(error)}
            run["seconds"] = time.perf_counter() - started
            record["runs"].append(run)
            record["seconds"] = time.perf_counter() - begun
            last = "  ".join(f"{k} {v:.3g}" for k, v in run["points"][-1].items()) if run["points"] else run["error"]
            console.print(f"seed {seed}, {name}, {run['seconds']:.0f} s: {last}", soft_wrap=True, highlight=False)
            if args.out:
                records.write(args.out, record)
    show(record, console)


def parsed(arguments: list[str]) -> Args:
    # What a night is by default depends on the model.
    spec = load_card("SleepLLM-Gemma-v0").sleep if GEMMA in arguments else SleepSpec()
    return tyro.cli(Args, args=arguments, default=Args(experiment=tyro.MISSING, spec=spec))


if __name__ == "__main__":
    main(parsed(sys.argv[1:]))
