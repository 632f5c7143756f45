"""Does it matter what a night rehearses, and do dreams that private feedback has tuned protect more than others?

    python benchmarks/dreams.py order --out docs/dreams/order.json
    python benchmarks/dreams.py lives --out docs/dreams/lives.json
    python benchmarks/dreams.py page

``order`` compares what a dream does for known facts with what each feedback says about the dream: a night rehearses
that dream alone, or a night without rehearsal is repaired by one step on it. ``lives`` teaches 300 facts in 30 days
with a night after each, and nights differ in the texts that they rehearse alone. Known facts are split in two halves by
subject: prompts of dreams and feedback use one, and what is reported is the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch.nn.functional import kl_div

from benchmarks import dreams_page
from benchmarks.common import markdown, records
from benchmarks.common.asking import correct
from benchmarks.dreams_writer import FEEDBACK, Client, DreamSpec, Writer, pairs, tally, tune
from benchmarks.sleep_bench import FULL, Bench
from benchmarks.sleep_experiments import days_through
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.facts import Fact
from sleepgym.lm import perplexity, score
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.probes import object_positions
from sleepgym.memory.asking import chat_probe, raw_probe
from sleepgym.memory.overlay import Memory, Term
from sleepgym.memory.owners import ADAPTER
from sleepgym.memory.rehearsal import Rehearsal

STEP = 0.02
"""Length of a step that a dream is judged by, relative to the adapter's norm."""


class Dreamt(Bench):
    """The bundled model; its known facts in two halves, and public prompts about the first."""

    def __init__(self) -> None:
        super().__init__("tiny", "float32", SleepSpec(), replace(FULL, known=10**6))
        subjects = list(dict.fromkeys(fact.subject for fact in self.teachable))
        public = set(subjects[::2])
        self.public = [fact for fact in self.known if fact.subject in public]
        self.reported = [fact for fact in self.known if fact.subject not in public]
        self.prompts = [fact.prompt for fact in self.public]

    def pool(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Has nights rehearse other texts from now on."""
        self.base = replace(self.base, rehearsal=Rehearsal(self.base.overlay, rows))


# ----------------------------------------------------------------------- order


@dataclass(frozen=True)
class Order:
    """Compare what feedback says about single dreams with what they do."""

    seeds: int = 3
    """draws of facts and dreams"""
    facts: int = 10
    """taught facts, each of which scores as a client"""
    dreams: int = 40
    """dreams of a draw, one per prompt"""
    out: Path = records.ROOT / "docs" / "dreams" / "order.json"
    """record"""


def order(args: Order, bench: Dreamt) -> None:
    """Measures benefit and scores of every dream."""
    runs = []
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        learner, facts = bench.learner(seed), bench.draw(seed, args.facts)
        learner.inject(facts)
        picked = rng.permutation(len(bench.public))
        known = [bench.public[i] for i in picked[: args.facts]]
        dreams = Writer(bench.base.overlay, seed=seed).write(
            [bench.prompts[i] for i in picked[-args.dreams :]], 1, DreamSpec.tokens
        )
        clients = {
            "taught": [Client([fact], learner.state.memory) for fact in facts],
            "known": [Client([fact], learner.state.memory) for fact in known],
        }
        scores = {
            f"{name}, {whose} facts": feedback(bench.base.overlay, each, dreams).mean(0).tolist()
            for name, feedback in FEEDBACK.items()
            for whose, each in clients.items()
        }
        memory = _after_a_night(bench, seed, facts, None)
        nothing = _lost(bench, memory)
        benefits = {
            "alone": [nothing - _lost(bench, _after_a_night(bench, seed, facts, dream)) for dream in dreams],
            "one step": [nothing - _lost(bench, _repaired(bench, memory, dream)) for dream in dreams],
        }
        bare = _lost(bench, Memory())
        runs.append({"seed": seed, "bare": bare, "without": nothing, "benefits": benefits, "scores": scores})
        print(f"seed {seed}: {dreams_page.all_ordered(runs[-1])}", flush=True)
    records.write(args.out, _about(args, bench) | {"runs": runs})


def _after_a_night(bench: Dreamt, seed: int, facts: Sequence[Fact], dream: Encoded | None) -> Memory:
    """Memory after a night that rehearses one dream, or nothing."""
    spec = replace(bench.spec, rehearsal_rows=int(dream is not None), settled=0, stop_nll=0.0)
    bench.pool([dream.ids] if dream is not None else [(0, 0)])
    learner = bench.learner(seed, replace(spec, max_perplexity_ratio=1e6, max_recall_drop=1.0, steps=20))
    learner.inject(facts)
    learner.sleep()
    return learner.state.memory


def _repaired(bench: Dreamt, memory: Memory, dream: Encoded) -> Memory:
    """Memory whose adapter has made one step, of one length for all dreams, down the gradient of KL(base || now)."""
    overlay, adapter = bench.base.overlay, memory.terms[ADAPTER]
    term = Term(
        {name: (a.clone().requires_grad_(), b.clone().requires_grad_()) for name, (a, b) in adapter.factors.items()}
    )
    rows, columns = object_positions([dream])
    ids = bench.lm.pad([dream.ids])
    with torch.no_grad(), overlay.use(()):
        wanted = bench.lm.logits_at(ids, rows, columns - 1).log_softmax(-1)
    with overlay.use(memory.without([ADAPTER]), term):
        now = bench.lm.logits_at(ids, rows, columns - 1).log_softmax(-1)
    weights = [weight for pair in term.factors.values() for weight in pair]
    gradients = torch.autograd.grad(kl_div(now, wanted, log_target=True, reduction="batchmean"), weights)
    lengths = [torch.cat([each.detach().flatten() for each in of]).norm() for of in (weights, gradients)]
    step = STEP * float(lengths[0] / lengths[1])
    moved = iter([(weight - step * gradient).detach() for weight, gradient in zip(weights, gradients, strict=True)])
    repaired = memory.without([ADAPTER])
    repaired.put(ADAPTER, {name: (next(moved), next(moved)) for name in term.factors})
    return repaired


def _lost(bench: Dreamt, memory: Memory) -> float:
    """What margins of reported facts lack to one nat on average, on slow weights alone.

    Likelihood would not do: a night makes objects likelier, those of lost facts among them.
    """
    slow = memory.without([owner for owner in memory.terms if owner != ADAPTER])
    with bench.base.overlay.use(slow):
        margin = score(bench.lm, [raw_probe(bench.lm, fact) for fact in bench.reported]).margin
    return float((1 - margin).clamp_min(0).mean())


# ----------------------------------------------------------------------- lives


@dataclass(frozen=True)
class Lives:
    """Live 300 facts with nights that rehearse different texts."""

    seeds: int = 3
    """draws of facts"""
    days: int = 30
    """days, with a night after each"""
    per_day: int = 10
    """facts of a day"""
    room: int = 48
    """places of the ledger"""
    ask_every: int = 10
    """days from one questioning to the next"""
    pools: tuple[str, ...] = ()
    """names of pools; by default all"""
    rows: int = 400
    """texts of a pool"""
    more: int = 5
    """factor of texts in the larger pool of untuned ones"""
    dream: DreamSpec = field(default_factory=DreamSpec)
    """how writers are tuned"""
    out: Path = records.ROOT / "docs" / "dreams" / "lives.json"
    """record"""


Rows = list[tuple[int, ...]]


def pools(bench: Dreamt, args: Lives, seed: int) -> dict[str, Callable[[], tuple[Rows, dict[str, Any]]]]:
    """What nights rehearse, by name: texts, with what was seen while they were made.

    Clients are a fact each: one of every day of the life, held by a learner that was taught them at once (more than
    anybody has in the first nights, and so in favour of tuning), or as many known facts of the public half.
    """
    facts = bench.draw(seed, args.days * args.per_day)
    clients: list[Client] = []

    def fresh() -> Writer:
        return Writer(bench.base.overlay, args.dream.rank, seed)

    def whose() -> list[Client]:
        if not clients:
            learner = bench.learner(seed)
            learner.inject(facts[:: args.per_day])
            clients.extend(Client([fact], learner.state.memory) for fact in facts[:: args.per_day])
        return clients

    def written(writer: Writer, count: int) -> Rows:
        rng = np.random.default_rng(seed)
        prompts = [bench.prompts[i] for i in rng.choice(len(bench.prompts), count)]
        return [dream.ids for dream in writer.write(prompts, 1, args.dream.tokens)]

    def knowing() -> list[Client]:
        picks = np.random.default_rng(seed).permutation(len(bench.public))[: len(whose())]
        return [Client([bench.public[i]], whose()[0].memory) for i in picks]

    def tuned(
        feedback: str | None, imitate: bool = False, asked: Callable[[], list[Client]] = whose
    ) -> tuple[Rows, dict[str, Any]]:
        writer, rng, started = fresh(), np.random.default_rng(seed), time.time()
        scorer = FEEDBACK[feedback] if feedback else None
        rounds = tune(writer, bench.prompts, asked(), scorer, args.dream, rng, imitate)
        return written(writer, args.rows), {"rounds": rounds, "seconds": time.time() - started}

    def best(feedback: str) -> tuple[Rows, dict[str, Any]]:
        rng, writer = np.random.default_rng(seed), fresh()
        prompts = [bench.prompts[i] for i in rng.choice(len(bench.prompts), args.rows)]
        dreams = writer.write(prompts, args.dream.samples, args.dream.tokens)
        votes = tally(FEEDBACK[feedback](bench.base.overlay, whose(), dreams), 0.0, rng)
        return [dreams[i].ids for i in pairs(votes, args.dream.samples, args.dream.rejected)[0]], {}

    shipped = list(bench.base.statistics.rehearsal)
    return {
        "none": lambda: ([], {}),
        "shipped": lambda: (shipped, {}),
        "untuned": lambda: (written(fresh(), args.rows), {}),
        "more untuned": lambda: (written(fresh(), args.more * args.rows), {}),
        "tuned by cosine": lambda: tuned("cosine"),
        "tuned by recall": lambda: tuned("recall"),
        "tuned by recall of known facts": lambda: tuned("recall", asked=knowing),
        "tuned by gradient": lambda: tuned("gradient"),
        "best of J by cosine": lambda: best("cosine"),
        "random preferences": lambda: tuned(None),
        "likelihood of the best by cosine": lambda: tuned("cosine", imitate=True),
        "statements of known facts": lambda: (_statements(bench, seed), {}),
    }


def _statements(bench: Dreamt, seed: int) -> Rows:
    """What could be told at best: all known facts of the public half, five a text."""
    rng, lm = np.random.default_rng(seed), bench.lm
    told = []
    for i in rng.permutation(len(bench.public)):
        fact = bench.public[i]
        phrasings = [fact.prompt, *fact.paraphrases]
        told.append(f"{phrasings[rng.integers(len(phrasings))]} {fact.object}.")
    return [lm.encode(" ".join(told[i : i + 5])).ids for i in range(0, len(told), 5)]


def lives(args: Lives, bench: Dreamt) -> None:
    """Lives a life for every pool and seed; what is done already is kept."""
    record = records.read(args.out) if args.out.exists() else {"commands": [], "runs": []}
    done = {(run["pool"], run["seed"]) for run in record["runs"]}
    commands = record["commands"]
    record |= _about(args, bench)
    record["commands"] = list(dict.fromkeys([*commands, *record["commands"]]))
    for seed in range(args.seeds):
        for name, make in pools(bench, args, seed).items():
            if (name, seed) in done or (args.pools and name not in args.pools):
                continue
            rows, seen = make()
            started = time.time()
            points = _life(bench, args, seed, rows)
            tokens = sum(map(len, rows))
            run = {"pool": name, "seed": seed, "rows": len(rows), "tokens": tokens, "seconds": time.time() - started}
            record["runs"].append(run | seen | {"points": points})
            records.write(args.out, record)
            last = points[-1]
            kept = float(np.mean(dreams_page.hits(last)))
            print(f"seed {seed}, {name}: kept {kept:.4f}, raw {last['raw']:.3f}, {last['drift']:+.3f}", flush=True)


def _life(bench: Dreamt, args: Lives, seed: int, rows: Rows) -> list[dict[str, Any]]:
    bench.pool(rows)
    spec = bench.spec if rows else replace(bench.spec, rehearsal_rows=0)
    learner, facts = bench.learner(seed, spec, capacity=args.room), bench.draw(seed, args.days * args.per_day)
    points, steps = [], 0
    for day, taught, _ in days_through(learner, facts, args.days, args.per_day, args.room):
        steps += learner.sleep().steps
        if day % args.ask_every == 0:
            points.append({"day": day, "steps": steps} | _asked(bench, learner.state.memory, facts[:taught]))
    return points


def _asked(bench: Dreamt, memory: Memory, facts: Sequence[Fact]) -> dict[str, Any]:
    lm = bench.lm
    with bench.base.overlay.use(memory):
        return {
            "raw": float(np.mean(correct(lm, [raw_probe(lm, fact) for fact in facts]))),
            "chat": float(np.mean(correct(lm, [chat_probe(lm, fact) for fact in facts]))),
            # A digit per fact: the record has tens of thousands.
            "kept": "".join(str(int(hit)) for hit in correct(lm, [raw_probe(lm, fact) for fact in bench.reported])),
            "drift": perplexity(lm, bench.text) / bench.bare - 1,
        }


def _about(args: Order | Lives, bench: Dreamt) -> records.Record:
    """What a record says beside its runs."""
    found = records.circumstances(args.seeds)
    del found["command"]
    settings = {name: value for name, value in asdict(args).items() if name not in ("out", "pools")}
    commands = [records.command(places={"OUT": args.out})]
    return found | settings | {"reported": len(bench.reported), "commands": commands}


# ------------------------------------------------------------------------ page


@dataclass(frozen=True)
class Page:
    """Write the tables of docs/dreams.md from the records."""

    folder: Path = records.ROOT / "docs" / "dreams"
    """folder of the records"""
    page: Path = records.ROOT / "docs" / "dreams.md"
    """page"""


Args = (
    Annotated[Order, tyro.conf.subcommand("order")]
    | Annotated[Lives, tyro.conf.subcommand("lives")]
    | Annotated[Page, tyro.conf.subcommand("page")]
)


def main(args: Order | Lives | Page) -> None:
    torch.set_num_threads(1)
    if isinstance(args, Page):
        markdown.write(args.page, dreams_page.contents(args.folder), "Dreams", "benchmarks/dreams.py")
    elif isinstance(args, Order):
        order(args, Dreamt())
    else:
        lives(args, Dreamt())


if __name__ == "__main__":
    main(tyro.cli(Args))
