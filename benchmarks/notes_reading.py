r"""What a model makes of notes before its question: whether it reads them, and which wins where they contradict it.

    python benchmarks/notes_reading.py --out docs/notes/reading.tiny.json
    python benchmarks/notes_reading.py --model gemma-3-270m --draws 2 --facts 66 --parts reading \
        --out docs/notes/reading.gemma-3-270m.json

Facts are about held-out people (`tiny`) or changed facts of the real world (others). They stand in a folder of notes,
and the notes of a prompt are what the look-up of its question gives, as sentences. ``reading`` asks the bare model.
``contradictions`` asks a model that was taught one object, with a note that tells another. ``doubt`` compares ways to
tell that an answer is wrong, and what look-ups below a threshold cost and bring.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markdown import Markdown

from benchmarks import notes_page
from benchmarks.common import records
from benchmarks.common.records import Record
from sleepgym.cli.notebook import FOUND, Notebook
from sleepgym.cli.reading import read
from sleepgym.editing.base import Base, make_base
from sleepgym.editing.calibration import spec_for
from sleepgym.facts import Fact, World
from sleepgym.lm import continuations, load
from sleepgym.lm.catalogue import facts_for
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.doubt import SURE_NATS
from sleepgym.notes import FactNotes, NoteStore, Retriever
from sleepgym.notes.retrieval import sentence, with_notes
from sleepgym.sleeper import SleepingLM

Part = Literal["reading", "contradictions", "doubt"]

OTHERS = (0, 2, 4)
"""Numbers of notes beside the right one."""
TOKENS = 12
"""Length of an answer at most."""


@dataclass
class Args:
    model: str = "tiny"
    """any name that sleepgym.lm.load understands; contradictions and doubt are of `tiny`"""
    parts: tuple[Part, ...] = ("reading", "contradictions", "doubt")
    """what to measure"""
    draws: int = 3
    """draws of facts"""
    first: int = 0
    """seed of the first draw"""
    facts: int = 150
    """facts of a draw of the reading"""
    edits: int = 24
    """facts of each of three rounds of edits, per draw of the contradictions"""
    nights: int = 5
    """nights, after the first of these rounds alone"""
    asked: int = 60
    """facts of each kind, per draw of the doubt"""
    out: Path | None = None
    """JSON with every figure"""


@dataclass(frozen=True)
class Noted:
    """A folder that holds some facts: look-ups in it, its facts, and all of it as a conversation has it."""

    retriever: Retriever
    facts: FactNotes
    notebook: Notebook


@contextmanager
def noted(facts: Sequence[Fact]) -> Iterator[Noted]:
    """A folder that holds just these facts."""
    with tempfile.TemporaryDirectory() as folder:
        store = NoteStore(Path(folder) / "notes")
        notes = FactNotes(store)
        notes.record(facts)
        with closing(Retriever(store, index=Path(folder) / "index.sqlite")) as retriever:
            notebook = Notebook(store.folder, World().relations, Path(folder) / "notebook.sqlite")
            yield Noted(retriever, notes, notebook)
            notebook.close()


# ------------------------------------------------------------------------ reading


def reading(lm: LanguageModel, args: Args) -> list[Record]:
    """Answers in chat without a note, and with the right one among others.

    An answer is right if it begins with the object (that is what exact match means for a greedy answer), and named if
    the object is in its first line.
    """
    asked: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for seed in range(args.first, args.first + args.draws):
        rng = np.random.default_rng(seed)
        facts = drawn(args.model, rng, args.facts)
        with noted(facts) as folder:
            for fact in facts:
                question = str(rng.choice(fact.questions))
                for kind, sentences in told(folder.retriever, facts, fact, question, rng).items():
                    asked.setdefault(kind, []).append((lm.chat(with_notes(question, sentences)), fact.object))
    rows = []
    for (notes, others), pairs in asked.items():
        pairs.sort(key=lambda pair: len(pair[0]))  # prompts of like length share passes
        answers = continuations(lm, [prompt for prompt, _ in pairs], TOKENS, batch_rows=32)
        lines = [answer.strip().partition("\n")[0] for answer in answers]
        right = sum(line.startswith(object_) for line, (_, object_) in zip(lines, pairs, strict=True))
        named = sum(object_ in line for line, (_, object_) in zip(lines, pairs, strict=True))
        rows.append({"notes": notes, "others": others, "n": len(pairs), "recalled": right, "named": named})
    return rows


def drawn(model: str, rng: np.random.Generator, n: int) -> list[Fact]:
    """New facts for a model, of `tiny` several about some of the subjects."""
    facts = facts_for(model)
    return facts.new_facts(rng, n, distinct_subjects=False) if isinstance(facts, World) else facts.new_facts(rng, n)


def told(
    retriever: Retriever, facts: Sequence[Fact], fact: Fact, question: str, rng: np.random.Generator
) -> dict[tuple[str, int], list[str]]:
    """Notes before a question by kind and number of others: those that a look-up ranks next, or any."""
    found = list(retriever.retrieve(question, max(OTHERS) + 1).sentences)
    at = found.index(fact.statement) if fact.statement in found else 0
    near = [sentence for sentence in found if sentence != fact.statement]
    any_ = [facts[i].statement for i in rng.permutation(len(facts)) if facts[i].key != fact.key]
    sentences: dict[tuple[str, int], list[str]] = {("none", 0): []}
    for others in OTHERS:
        place = min(at, others)
        sentences["looked up", others] = [*near[:place], fact.statement, *near[place:others]]
        if others:
            place = int(rng.integers(others + 1))
            sentences["any", others] = [*any_[:place], fact.statement, *any_[place:others]]
    return sentences


# ----------------------------------------------------------------- contradictions


def contradictions(base: Base, args: Args) -> list[Record]:
    """What is answered where a note tells another object than was taught, by age of the edit and stage of the fact."""
    rows: dict[str, Record] = {}
    for seed in range(args.first, args.first + args.draws):
        rng, world = np.random.default_rng([seed, 1]), World()
        learner = SleepingLM(base, seed=seed)
        known = [world.known_facts()[i] for i in rng.choice(len(world.known_facts()), args.edits, replace=False)]
        asked(rows, "known from training", learner, contradicted(world, rng, known))
        pairs = contradicted(world, rng, world.new_facts(rng, 3 * args.edits))
        for round_ in range(3):
            for pair in pairs[round_ * args.edits : (round_ + 1) * args.edits]:
                learner.inject([pair[0]])
                if not round_:
                    asked(rows, "just taught", learner, [pair])
            if round_:
                asked(rows, f"{round_ * args.edits} facts later", learner, pairs[: args.edits])
        slept(rows, SleepingLM(base, seed=seed), pairs[: args.edits], args.nights)
    return list(rows.values())


def slept(rows: dict[str, Record], learner: SleepingLM, pairs: Sequence[tuple[Fact, Fact]], nights: int) -> None:
    """Teaches facts at once, and asks about each after the first night that brings it to a stage."""
    learner.inject([fact for fact, _ in pairs])
    seen: set[tuple[str, int]] = set()
    for _ in range(nights):
        learner.sleep()
        for stage in range(1, learner.sleep_spec.last_stage + 1):
            now = [pair for pair in pairs if learner.state.ledger[pair[0].key].stage == stage]
            new = [pair for pair in now if (pair[0].subject, stage) not in seen]
            seen |= {(pair[0].subject, stage) for pair in new}
            asked(rows, f"stage {stage}", learner, new)


def contradicted(world: World, rng: np.random.Generator, facts: Sequence[Fact]) -> list[tuple[Fact, Fact]]:
    """Facts, each with one that tells another object."""
    return [(fact, world.update(rng, fact)) for fact in facts]


def asked(rows: dict[str, Record], when: str, learner: SleepingLM, pairs: Sequence[tuple[Fact, Fact]]) -> None:
    """Asks about facts with notes that contradict them, and adds to the counts of a row."""
    row = rows.setdefault(when, {"when": when, "n": 0, "note": 0, "weights": 0, "off": 0, "without": 0})
    if not pairs:
        return
    lm = learner.lm
    alone = [lm.encode(lm.chat(fact.questions[0]), fact.object) for fact, _ in pairs]
    read = [lm.chat(with_notes(fact.questions[0], [other.statement])) for fact, other in pairs]
    by_note = [lm.encode(prompt, other.object) for prompt, (_, other) in zip(read, pairs, strict=True)]
    by_weights = [lm.encode(prompt, fact.object) for prompt, (fact, _) in zip(read, pairs, strict=True)]
    row["n"] += len(pairs)
    for name, probes in (("note", by_note), ("weights", by_weights), ("without", alone)):
        row[name] += int(learner.score(probes).correct.sum())
    row["off"] += int(SleepingLM(learner.base).score(by_note).correct.sum())


# -------------------------------------------------------------------------- doubt


def doubt(base: Base, args: Args) -> Record:
    """Answers of its own and with notes, and what tells them apart."""
    answers: list[Record] = []
    for seed in range(args.first, args.first + args.draws):
        rng, world = np.random.default_rng([seed, 2]), World()
        facts = world.new_facts(rng, 2 * args.asked, distinct_subjects=False)
        taught, untaught = facts[: args.asked], facts[args.asked :]
        known = [world.known_facts()[i] for i in rng.choice(len(world.known_facts()), args.asked, replace=False)]
        learner = SleepingLM(base, seed=seed)
        for fact in taught:
            learner.inject([fact])
        with noted(facts) as notes:
            answers += answered(learner, notes, {"taught": taught, "only noted": untaught, "neither": known}, rng)
    return {
        "kinds": {kind: sum(one["kind"] == kind for one in answers) for kind in ("taught", "only noted", "neither")},
        "measures": {name: area(answers, name) for name in MEASURES},
        "thresholds": [
            *(policy(answers, threshold) for threshold in THRESHOLDS),
            *(policy(answers, threshold, "all notes") for threshold in (SURE_NATS, float("inf"))),
        ],
        "chat": {kind: counted(answers, kind) for kind in ("taught", "only noted", "neither")},
    }


MEASURES = ("least margin", "mean margin", "least log-probability", "mean log-probability")
"""What may tell whether an answer is right, over its tokens."""
THRESHOLDS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, float("inf"))
"""Least margins (nats) below which notes are looked up."""


def answered(
    learner: SleepingLM,
    noted: Noted,
    kinds: dict[str, Sequence[Fact]],
    rng: np.random.Generator,
) -> Iterator[Record]:
    """Per fact: whether its own answer is right, whether those with notes are, and how sure it is of its own."""
    for kind, facts in kinds.items():
        questions = [str(rng.choice(fact.questions)) for fact in facts]
        found = [noted.retriever.retrieve(question, FOUND).notes for question in questions]
        about = [noted.facts.about(question, each) for question, each in zip(questions, found, strict=True)]
        answers = [learner.ask(questions)]
        for notes in (about, found):
            said = [[sentence(note.said) for note in each] for each in notes]
            answers.append(learner.ask([with_notes(*each) for each in zip(questions, said, strict=True)]))
        for fact, question, own, by_notes, by_all in zip(facts, questions, *answers, strict=True):
            chat = read(noted.notebook, learner, question, own, TOKENS)
            yield {
                "kind": kind,
                "own": own == fact.object,
                "notes": by_notes == fact.object,
                "all notes": by_all == fact.object,
                "chat": (own if chat is None else chat.answer) == fact.object,
                "read": chat is not None,
            } | sure(learner, question, own)


def sure(learner: SleepingLM, question: str, answer: str) -> Record:
    """Every measure of an answer."""
    if not answer:
        return dict.fromkeys(MEASURES, float("-inf"))
    whole = learner.lm.encode(learner.lm.chat(question), answer)
    scores = learner.score([Encoded(whole.ids[: i + 1], i) for i in range(whole.object_start, len(whole.ids))])
    margins, likely = scores.margin, -scores.nll
    values = (margins.min(), margins.mean(), likely.min(), likely.mean())
    return {name: float(value) for name, value in zip(MEASURES, values, strict=True)}


def area(answers: Sequence[Record], name: str) -> float:
    """The area under the curve of a measure: how often a right answer has more of it than a wrong one."""
    right = np.array([one[name] for one in answers if one["own"]])
    wrong = np.array([one[name] for one in answers if not one["own"]])
    more = (right[:, None] > wrong[None]) + 0.5 * (right[:, None] == wrong[None])
    return float(more.mean())


def policy(answers: Sequence[Record], threshold: float, notes: str = "notes") -> Record:
    """Right answers and look-ups by kind, if notes are looked up below a threshold: those of the subject, or all."""
    row: Record = {"threshold": str(threshold), "of": notes}
    for kind in ("taught", "only noted", "neither"):
        of_kind = [one for one in answers if one["kind"] == kind]
        looked = [one["least margin"] < threshold for one in of_kind]
        right = [one[notes] if look else one["own"] for one, look in zip(of_kind, looked, strict=True)]
        row[kind] = {"right": sum(right), "looked up": sum(looked)}
    return row


def counted(answers: Sequence[Record], kind: str) -> Record:
    """Right answers and look-ups of a kind, as a conversation with notes gives them."""
    of_kind = [one for one in answers if one["kind"] == kind]
    return {"right": sum(one["chat"] for one in of_kind), "looked up": sum(one["read"] for one in of_kind)}


def main(args: Args) -> None:
    lm = load(args.model)
    record = records.circumstances(args.draws) | {"model": args.model}
    if "reading" in args.parts:
        record["reading"] = reading(lm, args)
    if {"contradictions", "doubt"} & set(args.parts):
        base = make_base(lm, spec_for(lm))
        record |= {"contradictions": contradictions(base, args)} if "contradictions" in args.parts else {}
        record |= {"doubt": doubt(base, args)} if "doubt" in args.parts else {}
    Console(width=160).print(*map(Markdown, notes_page.blocks_of(record).values()))
    if args.out:
        records.write(args.out, record)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
