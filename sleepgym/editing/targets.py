"""Targets: perturbations at a fact's key that make the model predict its object.

Meng et al. 2023, "Mass-Editing Memory in a Transformer", eq. 16, with three changes. By default the perturbation
is added to the *output of the down-projection* (one per edited layer, optimised jointly), which is also correct where a
norm follows the MLP. All facts of a call are optimised as one tensor, from which finished facts are removed. And
only what depends on the perturbation is run: tokens from the key's on, blocks from the first edited one on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sleepgym.editing.alignment import Alignment
from sleepgym.editing.keys import At
from sleepgym.editing.spec import EditError, EditSpec
from sleepgym.facts.fact import Fact
from sleepgym.lm.continuation import Continuation, start_at
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel, hooked
from sleepgym.memory.asking import in_context


@dataclass(frozen=True)
class Target:
    """Target of one fact's edit.

    Attributes:
        value: Site ``"down_proj"``: change of each edited down-projection's output, ``[layers, d_out]``.
            Site ``"residual"``: value of the residual stream after the last edited block, ``[1, d_out]``.
        keys: Inputs of the edited down-projections with the perturbation applied, averaged over the contexts,
            ``[layers, d_in]``.
    """

    value: Tensor
    keys: Tensor


Beside = Sequence[tuple[Fact, Target]]
"""Earlier facts about a subject with their targets. They share its key, so that their perturbations add up."""


def contexts(lm: LanguageModel, fact: Fact, prefixes: Sequence[str]) -> list[Encoded]:
    """Encodes a fact's prompt and object, bare and after each prefix.

    Raises:
        FactError: The object tokenises to nothing or the subject is not in the prompt.
    """
    return [in_context(lm, fact, prefix) for prefix in ("", *prefixes)]


def key_position(row: Encoded, spec: EditSpec) -> int:
    """Returns the position of the key token in a context."""
    return row.subject_last if spec.key_token == "subject" else row.object_start - 1


def key_name(fact: Fact, spec: EditSpec) -> str:
    """What facts with one key have in common: their subject, or their prompt where keys are read at its end."""
    return fact.subject if spec.key_token == "subject" else fact.prompt


def key_tokens(rows: Sequence[Encoded], spec: EditSpec) -> list[At]:
    """Returns the tokens of contexts with the positions of their key tokens."""
    return [(row.ids, key_position(row, spec)) for row in rows]


def optimize_targets(
    lm: LanguageModel,
    facts: Sequence[Fact],
    prefixes: Sequence[str],
    spec: EditSpec,
    beside: Sequence[Beside] = (),
    alignment: Alignment | None = None,
) -> list[Target]:
    """Optimises the targets of many facts at once on the model with the memory in use (Meng et al. 2023, eq. 16).

    Args:
        lm: The model; with ``spec.frozen`` no memory may be in use.
        facts: ``n`` facts.
        prefixes: Contexts besides the bare prompt.
        spec: Steps, clamp and weights.
        beside: Per fact the earlier ones about its subject with their targets. The loss covers the fact alone, the fact
            with their perturbations added, and those facts themselves. Empty if no fact has any.
        alignment: Loss of perturbations that are less alike than the keys of their facts, or more, at the last site;
            None for none. With ``spec.stop = "nll"`` it counts as part of a fact's NLL.

    Returns:
        One target per fact, in float32 on the CPU.

    Raises:
        EditError: The loss of a fact became NaN or infinite.
        FactError: A fact cannot be tokenised as needed.
    """
    batch = perturbed = _Batch(lm, facts, prefixes, spec, beside or [()] * len(facts))
    with torch.no_grad():
        bare = perturbed.run(None)
    # `u` is in units of the perturbed activation's root mean square in the bare prompt, per fact and site.
    width = bare.outputs.shape[-1]
    unit = (bare.outputs.norm(dim=-1) / width**0.5)[..., None]
    u = torch.zeros(len(facts), bare.outputs.shape[1], width, device=unit.device, requires_grad=True)
    adam = torch.optim.Adam([u], lr=spec.learning_rate)
    found = torch.zeros_like(u)
    keys = torch.zeros_like(bare.keys)
    live = torch.arange(len(facts), device=u.device)
    for step in range(spec.steps + 1):
        now = perturbed.run(u[live] * unit[live])
        if not torch.isfinite(now.nll).all():
            bad = [facts[i].statement for i in live[~torch.isfinite(now.nll)].tolist()]
            raise EditError(
                f"expected finite losses while optimising targets, found NaN or infinity for {bad}; "
                "lower learning_rate or clamp"
            )
        found[live], keys[live] = u.detach()[live], now.keys
        # Units are positive numbers per fact: similarities are those of the perturbations themselves.
        apart = None if alignment is None else alignment(u[live][:, -1], found[:, -1], live)
        worst = now.worst_nll if apart is None else now.worst_nll + apart.detach()
        going = worst >= spec.stop_nll if spec.stop == "nll" else now.worst_margin <= 0
        if step == spec.steps or not going.any():
            break
        kl = (bare.essence[live].exp() * (bare.essence[live] - now.essence)).sum(-1)
        norm = u[live].square().mean((1, 2))
        # Facts that finished in this pass are still part of it, but not of the loss.
        losses = now.nll + spec.kl_weight * kl + spec.norm_weight * norm
        loss = (losses if apart is None else losses + apart)[going].sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            length = u.square().mean(-1, keepdim=True).sqrt()
            u.mul_((spec.clamp / length.clamp_min(1e-12)).clamp(max=1.0))
        if not going.all():
            live = live[going]
            perturbed = batch.of_facts(live)
    value = found * unit
    if spec.site == "residual":
        value = value + bare.outputs
    return [Target(v, k) for v, k in zip(value.cpu(), keys.cpu(), strict=True)]


_OWN, _SHARED, _ESSENCE = range(3)
"""Roles of a row: context of the fact alone, context with the targets of earlier facts added, "{subject} is a"."""


@dataclass(frozen=True)
class _Pass:
    """Measurements of one forward pass over ``n`` facts. Outputs and keys are those at the perturbed tokens."""

    nll: Tensor  # [n], mean over contexts of the mean over the object's tokens
    worst_nll: Tensor  # [n], that of the worst context
    worst_margin: Tensor  # [n], log-probability of the object's worst token in any context minus its best rival's
    essence: Tensor  # [n, vocabulary], log-probabilities that follow "{subject} is a"
    outputs: Tensor  # [n, sites, d], unperturbed outputs in the bare prompt
    keys: Tensor  # [n, layers, d_in], averaged over the fact's own contexts


class _Batch:
    """Rows of a batch of facts, run with perturbations at their key tokens."""

    def __init__(
        self,
        lm: LanguageModel,
        facts: Sequence[Fact],
        prefixes: Sequence[str],
        spec: EditSpec,
        beside: Sequence[Beside],
    ) -> None:
        rows: list[Encoded] = []
        fact_of: list[int] = []
        role: list[int] = []
        offsets: list[Tensor | None] = []
        for i, fact in enumerate(facts):
            own = contexts(lm, fact, prefixes)
            parts: list[tuple[Sequence[Encoded], int, Tensor | None]] = [(own, _OWN, None)]
            if beside[i]:
                others = torch.stack([target.value for _, target in beside[i]]).sum(0)
                parts.append((own, _SHARED, others))
                parts += [(contexts(lm, other, prefixes), _SHARED, others) for other, _ in beside[i]]
            parts.append(([lm.encode(f"{fact.subject} is a", subject=fact.subject)], _ESSENCE, None))
            for encoded, kind, offset in parts:
                rows += encoded
                fact_of += [i] * len(encoded)
                role += [kind] * len(encoded)
                offsets += [offset] * len(encoded)
        starts = [key_position(row, spec) for row in rows]
        # Tokens after the last position that is read do not matter.
        ids = [row.ids[: _read(row, spec).stop] for row in rows]
        self._run = Continuation(lm, ids, starts, start_at(lm, [lm.blocks[spec.layers[0]].down_proj]))
        device = lm.device
        self._fact_of = torch.tensor(fact_of, device=device)
        self._role = torch.tensor(role, device=device)
        self._at = torch.tensor(starts, device=device)
        self._offsets = _stacked(offsets, device)
        read = [(i, c) for i, row in enumerate(rows) for c in _read(row, spec)]
        self._read_row, self._read_column = torch.tensor(read, device=device).T
        # An essence prompt has no next token; its entry is a placeholder.
        following = [rows[i].ids[c + 1] if c + 1 < len(rows[i].ids) else 0 for i, c in read]
        self._next = torch.tensor(following, device=device)
        if spec.site == "residual":
            self._sites = [lm.linear(lm.blocks[spec.layers[-1]].name)]
        else:
            self._sites = [lm.linear(lm.blocks[i].down_proj) for i in spec.layers]
        # An edited MLP is perturbed at tokens that are not read.
        self._narrow = spec.layers[-1] < len(lm.blocks) - 1
        self._key_modules = [lm.linear(lm.blocks[i].down_proj) for i in spec.layers]

    def of_facts(self, facts: Tensor) -> _Batch:
        """Returns the batch restricted to the given (ascending) indices of facts, which are renumbered from 0."""
        chosen = copy.copy(self)
        kept = torch.isin(self._fact_of, facts).nonzero().squeeze(1)
        reads = torch.isin(self._read_row, kept)
        chosen._run = self._run.select(kept)
        chosen._fact_of = torch.searchsorted(facts, self._fact_of[kept])
        chosen._role, chosen._at = self._role[kept], self._at[kept]
        chosen._offsets = None if self._offsets is None else self._offsets[kept]
        chosen._read_row = torch.searchsorted(kept, self._read_row[reads])
        chosen._read_column, chosen._next = self._read_column[reads], self._next[reads]
        return chosen

    def run(self, delta: Tensor | None) -> _Pass:
        """Runs one forward pass with perturbations ``[n, sites, d]``; None for none."""
        n = int(self._fact_of[-1]) + 1
        where = self._at - self._run.starts
        outputs: list[Tensor] = []
        keys: list[Tensor] = []
        each = None if delta is None else delta[self._fact_of]
        if each is not None and self._offsets is not None:
            each = each + self._offsets

        def perturb(site: int):  # type: ignore[no-untyped-def]  # torch types hooks as Callable
            def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> object:
                hidden = output if isinstance(output, Tensor) else output[0]
                shape = hidden.shape
                # Reshaped, since some models flatten rows and tokens before the MLP.
                hidden = hidden.reshape(len(where), -1, shape[-1])
                index = (torch.arange(len(where), device=hidden.device), where.to(hidden.device))
                outputs.append(hidden[index].detach().float().to(where.device))
                if each is None:
                    return None
                hidden = hidden.index_put(index, each[:, site].to(hidden.device, hidden.dtype), accumulate=True)
                hidden = hidden.reshape(shape)
                return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

            return add

        def record_key(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].reshape(len(where), -1, args[0].shape[-1])
            index = (torch.arange(len(where), device=x.device), where.to(x.device))
            keys.append(x[index].detach().float().to(where.device))

        with ExitStack() as stack:
            for module in self._key_modules:
                stack.enter_context(hooked(module.register_forward_pre_hook(record_key)))
            for site, module in enumerate(self._sites):
                stack.enter_context(hooked(module.register_forward_hook(perturb(site))))
            logits = self._run.logits(self._read_row, self._read_column, self._narrow)
        essence = self._role[self._read_row] == _ESSENCE
        row = self._read_row[~essence]
        taught, objects = logits[~essence], self._next[~essence, None]
        own = taught.gather(1, objects).squeeze(1)
        nll = taught.logsumexp(1) - own
        margin = own.detach() - taught.detach().scatter(1, objects, -torch.inf).amax(1)
        per_row = _mean(nll, row, len(where))
        fact_of, contextual = self._fact_of, self._role != _ESSENCE
        mine = self._role == _OWN
        first = torch.searchsorted(fact_of, torch.arange(n, device=fact_of.device))
        worst = per_row.new_full((n,), -torch.inf)
        margins = per_row.new_full((n,), torch.inf)
        return _Pass(
            nll=_mean(per_row[contextual], fact_of[contextual], n),
            worst_nll=worst.scatter_reduce(0, fact_of[contextual], per_row.detach()[contextual], "amax"),
            worst_margin=margins.scatter_reduce(0, fact_of[row], margin, "amin"),
            essence=logits[essence].log_softmax(-1),
            outputs=torch.stack(outputs, 1)[first],
            keys=_mean(torch.stack(keys, 1)[mine], fact_of[mine], n),
        )


def _read(row: Encoded, spec: EditSpec) -> range:
    """Returns the positions whose logits are read: before each object token, or the end of an essence prompt."""
    end = len(row.ids) - 1 if spec.object_tokens == "all" else row.object_start
    return range(row.object_start - 1, max(row.object_start, end))


def _mean(values: Tensor, index: Tensor, n: int) -> Tensor:
    """Returns the mean of the values of each index, ``[n, ...]``."""
    total = values.new_zeros(n, *values.shape[1:]).index_add(0, index, values)
    count = values.new_zeros(n).index_add(0, index, values.new_ones(len(index))).clamp_min(1)
    return total / count.view(n, *[1] * (values.ndim - 1))


def _stacked(offsets: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    """Stacks the offsets of all rows, zeros for rows without, ``[rows, sites, d]``; None if no row has any."""
    first = next((offset for offset in offsets if offset is not None), None)
    if first is None:
        return None
    return torch.stack([torch.zeros_like(first) if offset is None else offset for offset in offsets]).to(device)
