"""Targets: what the edited down-projections should add at the subject so that the object follows.

Meng et al. 2023, "Mass-Editing Memory in a Transformer", eq. 5, with two changes. The perturbation sits on
the *output of the down-projection* (one per edited layer, optimised jointly), which also holds where a norm
follows the MLP. And all facts of a call are optimised as one tensor, from which finished facts drop out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from sleepgym.editing.spec import EditError, EditSpec
from sleepgym.facts.fact import Fact
from sleepgym.lm.language_model import Encoded, LanguageModel, hooked


def contexts(lm: LanguageModel, fact: Fact, prefixes: Sequence[str]) -> list[Encoded]:
    """The fact's prompt and object, bare and after each prefix.

    Raises:
        FactError: The object tokenises to nothing or the subject is not in the prompt.
    """
    return [lm.encode(fact.prompt, fact.object, fact.subject, prefix) for prefix in ("", *prefixes)]


def optimize_targets(lm: LanguageModel, facts: Sequence[Fact], prefixes: Sequence[str], spec: EditSpec) -> Tensor:
    """Finds the targets of many facts at once on the bare model.

    Args:
        lm: The model; no memory may be in use.
        facts: ``n`` facts.
        prefixes: Contexts besides the bare prompt.
        spec: Steps, clamp, weights.

    Returns:
        Perturbations ``[n, layers, d_out]``, float32, on the CPU.

    Raises:
        EditError: The loss of a fact became NaN or infinite.
        FactError: A fact cannot be tokenised as needed.
    """
    essence = [lm.encode(f"{fact.subject} is a", subject=fact.subject) for fact in facts]
    groups = [[*contexts(lm, fact, prefixes), e] for fact, e in zip(facts, essence, strict=True)]
    perturbed = _Perturbed(lm, spec.layers)
    with torch.no_grad():
        _, p0 = perturbed.losses(groups, None)
    # A unit step of every component has the norm of the down-projection's own output at the subject.
    unit = torch.stack([v[:: len(groups[0])].norm(dim=-1) for v in perturbed.outputs], 1)
    width = perturbed.outputs[0].shape[-1]
    unit = (unit / width**0.5)[..., None]
    u = torch.zeros(len(facts), len(spec.layers), width, device=unit.device, requires_grad=True)
    adam = torch.optim.Adam([u], lr=spec.learning_rate)
    found = torch.zeros_like(u)
    live = torch.arange(len(facts), device=u.device)
    for step in range(spec.steps + 1):
        nll, log_p = perturbed.losses([groups[i] for i in live.tolist()], u[live] * unit[live])
        if not torch.isfinite(nll).all():
            bad = [facts[i].statement for i in live[~torch.isfinite(nll).all(1)].tolist()]
            raise EditError(
                f"expected finite losses while optimising targets, found NaN or infinity for {bad}; "
                "lower learning_rate or clamp"
            )
        found[live] = u.detach()[live]
        going = nll.detach().amax(1) >= spec.stop_nll
        live, nll, log_p = live[going], nll[going], log_p[going]
        if len(live) == 0 or step == spec.steps:
            break
        kl = (p0[live].exp() * (p0[live] - log_p)).sum(-1)
        norm = u[live].square().mean((1, 2))
        loss = nll.mean(1) + spec.kl_weight * kl + spec.norm_weight * norm
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        with torch.no_grad():
            length = u.square().mean(-1, keepdim=True).sqrt()
            u.mul_((spec.clamp / length.clamp_min(1e-12)).clamp(max=1.0))
    return (found * unit).cpu()


class _Perturbed:
    """The model with perturbations added to its edited down-projections at subjects' last tokens."""

    def __init__(self, lm: LanguageModel, layers: Sequence[int]) -> None:
        self.lm = lm
        self.modules = [lm.linear(lm.blocks[i].down_proj) for i in layers]
        self.outputs: list[Tensor] = []  # unperturbed outputs at the subjects of the last pass, [rows, d_out]

    def losses(self, groups: Sequence[Sequence[Encoded]], delta: Tensor | None) -> tuple[Tensor, Tensor]:
        """One forward pass over groups of (contexts..., essence prompt), one group per fact.

        Args:
            groups: Encoded rows of ``n`` facts.
            delta: Perturbation ``[n, layers, d_out]``; None for the bare model.

        Returns:
            Mean NLL of the object's tokens ``[n, contexts]``, and log-probabilities that follow the essence
            prompt ``[n, vocabulary]``.
        """
        lm, rows = self.lm, [row for group in groups for row in group]
        per_group = len(groups[0])
        input_ids = lm.pad([r.ids for r in rows])
        subject = torch.tensor([r.subject_last for r in rows], device=input_ids.device)
        read = [(i, c) for i, r in enumerate(rows) for c in self._read_columns(r)]
        at, columns = torch.tensor(read, device=input_ids.device).T
        self.outputs = []

        def hook(layer: int):  # type: ignore[no-untyped-def]  # torch types hooks as Callable
            def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
                index = (torch.arange(len(rows), device=output.device), subject.to(output.device))
                self.outputs.append(output[index].detach().float().to(input_ids.device))
                if delta is None:
                    return None
                each = delta[:, layer].repeat_interleave(per_group, 0).to(output.device, output.dtype)
                return output.index_put(index, each, accumulate=True)

            return add

        with ExitStack() as stack:
            for layer, module in enumerate(self.modules):
                stack.enter_context(hooked(module.register_forward_hook(hook(layer))))
            log_p = lm.logits_at(input_ids, at, columns).log_softmax(-1)
        is_essence = at % per_group == per_group - 1
        targets = input_ids[at, columns.add(1).clamp(max=input_ids.shape[1] - 1)]
        nll = -log_p.gather(1, targets[:, None]).squeeze(1)[~is_essence]
        row = at[~is_essence]
        total = nll.new_zeros(len(rows)).index_add(0, row, nll)
        count = nll.new_zeros(len(rows)).index_add(0, row, torch.ones_like(nll)).clamp_min(1)
        mean = (total / count).view(len(groups), per_group)[:, :-1]
        return mean, log_p[is_essence]

    @staticmethod
    def _read_columns(row: Encoded) -> range:
        """Positions whose next token is read: those of the object, or the end of an essence prompt."""
        return range(row.object_start - 1, max(row.object_start, len(row.ids) - 1))
