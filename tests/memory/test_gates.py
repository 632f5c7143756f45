"""Gated terms: they act on keys like their own, and leave every other input alone bit for bit."""

import warnings
from dataclasses import replace

import pytest
import torch

from sleepgym.editing import Editor
from sleepgym.lm import score
from sleepgym.memory import checkpoint
from sleepgym.memory.asking import raw_probe
from sleepgym.memory.export.adapter import export_adapter
from sleepgym.memory.export.gates import GatesLostWarning
from sleepgym.memory.export.merged import export_merged
from sleepgym.memory.overlay import Memory, OverlayError
from sleepgym.memory.owners import owner_of
from sleepgym.memory.state import State
from sleepgym.memory.terms import acting
from sleepgym.settings import SettingError


def test_activation_below_its_gate_is_zero():
    found = acting(torch.tensor([[0.4, 0.5, -9.0], [0.6, 0.1, 2.0]]), torch.tensor([0.5, 0.5, -torch.inf]))
    assert found.tolist() == torch.tensor([[0.0, 0.5, -9.0], [0.6, 0.0, 2.0]]).tolist()
    assert acting(found, None) is found


@pytest.fixture(scope="module")
def written(base, facts):
    """Memories with the same five facts, without and with gates."""

    def write(gate):
        editor = Editor(base.overlay, base.statistics, replace(base.editor.spec, gate=gate, max_weight=1.0))
        memory = Memory()
        editor.write(memory, facts[:5])
        return memory

    return write(0.0), write(0.5)


@pytest.fixture(scope="module")
def probes(base, facts, known):
    return [raw_probe(base.lm, fact) for fact in (*facts[:5], *known[:20])]


@pytest.fixture(scope="module")
def known(base, world):
    return world.known_facts()[:40]


def logits(base, memory, probes):
    """Logits at the last token of each prompt, in a plain pass."""
    rows = [probe.ids[: probe.object_start] for probe in probes]
    at = torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])
    with torch.no_grad(), base.overlay.use(memory):
        return base.lm.logits_at(base.lm.pad(rows), *at)


def gated(memory, value):
    out = Memory()
    for owner, term in memory.terms.items():
        out.put(
            owner,
            term.factors,
            term.scale,
            term.weight,
            {m: torch.full((len(a),), value) for m, (a, _) in term.factors.items()},
        )
    return out


def test_gate_below_everything_changes_nothing_and_one_above_everything_leaves_the_bare_model(base, written, probes):
    plain, _ = written
    assert torch.equal(logits(base, gated(plain, -1e9), probes), logits(base, plain, probes))
    assert torch.equal(logits(base, gated(plain, 1e9), probes), logits(base, Memory(), probes))


def test_gated_edit_is_in_full_at_its_own_key(base, written, facts):
    plain, with_gates = written
    for fact in facts[:5]:
        term, same = with_gates.terms[owner_of(fact)], plain.terms[owner_of(fact)]
        assert same.gates == {} and set(term.gates) == set(term.factors)
        (link,) = base.editor.target_store.of([fact])
        for key, (module, (a, _)) in zip(link.target.keys, term.factors.items(), strict=True):
            assert float(a @ key) == pytest.approx(1.0, rel=1e-4) and term.gates[module].tolist() == [0.5]


def test_gate_is_eased_for_facts_that_are_hard_to_recall(base, facts):
    # Targets so short that no weight makes up for it.
    spec = replace(base.editor.spec, gate=0.5, clamp=0.02, max_weight=64.0)
    editor, eased, given = Editor(base.overlay, base.statistics, spec), Memory(), Memory()
    editor.write(eased, facts[:3])
    editor.write(given, facts[:3], gate=0.5)
    weights = [eased.terms[owner_of(fact)].weight for fact in facts[:3]]
    assert max(weights) == 64.0
    for fact, weight in zip(facts[:3], weights, strict=True):
        gates = [float(gate) for gate in eased.terms[owner_of(fact)].gates.values()]
        assert gates == pytest.approx([0.5 * weight**-0.25] * len(gates))
        assert {float(gate) for gate in given.terms[owner_of(fact)].gates.values()} == {0.5}


def test_gated_facts_are_recalled_and_other_subjects_are_left_alone(base, written, probes):
    plain, with_gates = written
    margins = score(base.lm, probes, base.overlay.asked(with_gates)).margin
    assert (margins[:5] > 0).all()
    bare = logits(base, Memory(), probes[5:])
    moved = [(logits(base, memory, probes[5:]) - bare).abs().amax(1) for memory in (plain, with_gates)]
    assert (moved[0] > 0).all() and (moved[1] == 0).float().mean() > 0.5


def test_passes_that_are_shared_or_resumed_gate_alike(base, written, probes):
    plain, with_gates = written
    alone = logits(base, with_gates, probes)
    rows = [probe.ids[: probe.object_start] for probe in probes]
    at = torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])
    torch.testing.assert_close(base.overlay.logits([with_gates], rows, at), alone, rtol=1e-4, atol=1e-4)
    both = base.overlay.logits([plain, with_gates], rows * 2, (torch.arange(2 * len(rows)), at[1].repeat(2)))
    torch.testing.assert_close(both[len(rows) :], alone, rtol=1e-4, atol=1e-4)
    with torch.no_grad(), base.overlay.use([Memory(), with_gates, plain]):
        three = base.lm.logits_at(base.lm.pad(rows * 3), torch.arange(3 * len(rows)), at[1].repeat(3))
    torch.testing.assert_close(three[len(rows) : 2 * len(rows)], alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(three[: len(rows)], logits(base, Memory(), probes), rtol=1e-4, atol=1e-4)


def test_gates_survive_scaling_copies_and_checkpoints(base, written, facts, tmp_path):
    _, with_gates = written
    state = State.fresh(8, 0)
    state.memory = with_gates.copy()
    state.memory.scale(owner_of(facts[0]), 0.5)
    checkpoint.save(tmp_path, state, base.lm)
    found = checkpoint.load(tmp_path, base.lm).memory
    for module in found.terms[owner_of(facts[0])].factors:
        assert torch.equal(found.gates(module), with_gates.gates(module))


@pytest.mark.parametrize("gate", [-0.1, 1.0])
def test_impossible_gate_is_refused(base, gate):
    with pytest.raises(SettingError, match="gate: expected"):
        replace(base.editor.spec, gate=gate)


@pytest.mark.parametrize("gate", [torch.ones(2), torch.tensor([torch.nan])])
def test_gates_that_fit_no_row_are_refused(written, facts, gate):
    _, with_gates = written
    memory, term = Memory(), with_gates.terms[owner_of(facts[0])]
    with pytest.raises(OverlayError, match=r"expected gates \[1\] without NaN"):
        memory.put("one", term.factors, gates=dict.fromkeys(term.factors, gate))
    assert not memory.terms


def test_an_export_warns_of_gates_and_of_nothing_else(base, written, tmp_path):
    plain, with_gates = written
    for export in (export_adapter, export_merged):
        with pytest.warns(GatesLostWarning, match=r"5 of 5 terms .* gate=0\.0"):
            export(base.lm, with_gates, tmp_path / "gated")
        with warnings.catch_warnings():
            warnings.simplefilter("error", GatesLostWarning)
            export(base.lm, plain, tmp_path / "plain")
