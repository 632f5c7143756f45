"""What a copy, a pickle, a thread and another mode of torch mean for a learner: never another answer."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing import Editor, EditSpec
from sleepgym.editing.base import Base
from sleepgym.lm import wrap
from sleepgym.memory.settled import Settled
from sleepgym.sleeper import SleepingLM


def answers(learner: SleepingLM, facts) -> list[str]:
    return learner.ask([fact.questions[0] for fact in facts])


def tensors(learner: SleepingLM) -> list[torch.Tensor]:
    terms = learner.state.memory.terms.values()
    return [tensor for term in terms for pair in term.factors.values() for tensor in pair]


def equal(one: SleepingLM, other: SleepingLM) -> bool:
    mine, theirs = tensors(one), tensors(other)
    return len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))


COPIES: dict[str, Callable[[SleepingLM], SleepingLM]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda learner: pickle.loads(pickle.dumps(learner)),
    "deepcopy in a list": lambda learner: copy.deepcopy([learner, learner])[1],
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_answers_as_its_original_and_is_independent(learner, facts, how: str) -> None:
    learner.inject(facts[:3])
    learner.state.settled = {facts[7].key: Settled.of(facts[7], held_at=3)}
    before = answers(learner, facts[:3])
    twin = COPIES[how](learner)
    assert twin.state.settled == learner.state.settled and twin.state.settled is not learner.state.settled
    assert answers(twin, facts[:3]) == before == [fact.object for fact in facts[:3]]
    assert equal(learner, twin) and twin.state.ledger.keys() == learner.state.ledger.keys()
    twin.inject(facts[3:5])
    twin.prune([facts[0].key])
    assert answers(learner, facts[:3]) == before
    assert [f.key for f in learner.state.ledger.facts] == [f.key for f in facts[:3]]
    # What each does next follows from the same random state.
    assert twin.state.rng.bit_generator.state == learner.state.rng.bit_generator.state


def test_copies_stand_on_the_same_base_and_a_pickle_holds_no_weights(learner, facts) -> None:
    learner.inject(facts[:2])
    assert copy.deepcopy(learner).base is copy.copy(learner).base is learner.base
    assert copy.deepcopy(learner.base) is learner.base and copy.copy(learner.lm) is learner.lm
    assert len(pickle.dumps(learner)) < 8 * learner.state.memory.parameters + 100_000
    assert len(pickle.dumps(learner.base)) < 100_000


def test_a_learner_whose_model_is_in_memory_is_copied_but_not_pickled(base, facts) -> None:
    lm = wrap(base.lm.model, base.lm.tokenizer, "mine")
    learner = SleepingLM(replace(base, lm=lm))
    assert copy.deepcopy(learner).base is learner.base
    with pytest.raises(
        pickle.PicklingError, match="expected a model that can be loaded again by its name, found 'mine'"
    ):
        pickle.dumps(learner)


def test_threads_on_one_base_do_not_answer_for_each_other(base, facts, world) -> None:
    learners = [SleepingLM(base, SleepSpec(steps=2), seed=i) for i in range(2)]
    told = [facts[:4], world.new_facts(np.random.default_rng(50), 4)]
    for learner, of_learner in zip(learners, told, strict=True):
        learner.inject(of_learner)
    expected = [answers(learner, of_learner) for learner, of_learner in zip(learners, told, strict=True)]
    found: list[list[list[str]]] = [[], []]
    errors: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for _ in range(8):
                found[i].append(answers(learners[i], told[i]))
                learners[i].audit()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(one == expected[i] for i in range(2) for one in found[i])
    # And the model is bare again.
    assert not any(base.lm.linear(name)._forward_hooks for block in base.lm.blocks for name in block.linears)


@contextmanager
def float64_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": float64_by_default,
}


def life(base: Base, facts, folder: Path) -> SleepingLM:
    """Edits, a refresh and a night, with targets that nobody has cached."""
    cold = replace(base, editor=Editor(base.overlay, base.statistics, EditSpec(steps=6), folder))
    learner = SleepingLM(cold, SleepSpec(steps=3, rehearsal_rows=1), seed=1)
    learner.inject(facts[:3])
    learner.refresh([facts[0].key])
    learner.sleep()
    return learner


@pytest.mark.parametrize("mode", MODES)
def test_a_life_is_the_same_to_the_last_bit_in_any_mode(base, facts, tmp_path: Path, mode: str) -> None:
    usual = life(base, facts, tmp_path / "usual")
    with MODES[mode]():
        other = life(base, facts, tmp_path / mode)
        assert answers(other, facts[:3]) == answers(usual, facts[:3])
        assert other.perplexity() == usual.perplexity()
    assert equal(usual, other)
    assert not any(tensor.is_inference() or tensor.requires_grad for tensor in tensors(other))
    # The caller's mode is as it was.
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_what_was_made_in_inference_mode_can_be_trained_on_later(base, facts, tmp_path: Path) -> None:
    with torch.inference_mode():
        learner = life(base, facts, tmp_path)
    learner.inject(facts[5:6])
    assert learner.sleep().steps > 0
