"""Norm-anchor scaling: solved values brought to a length of the original model (arXiv:2602.02543).

With the output ``v0`` of the last edited down-projection at a fact's key in the edited model, the residual stream
``h`` after its block, and the solved change ``delta``, the solved value ``v* = v0 + delta`` keeps its direction and is
written with a fixed length ``a``: the target is ``h - v0 + a v* / |v*|``. So a longer output of an edited model does
not make for a longer value, which would make outputs longer still.

The paper's ``a`` is the trimmed mean of ``|v*|`` over a thousand facts that are solved for on the original model. Here
it is dimensionless: a multiple of the length that the frozen base's own output has at the same key, chosen on other
facts as lambda is. The authors' code leaves out facts whose ``v*`` is twice as long as ``a``; here none is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sleepgym.editing.keys import measured_outputs, measured_states
from sleepgym.editing.spec import EditSpec
from sleepgym.editing.targets import Target, key_tokens
from sleepgym.facts.fact import Fact
from sleepgym.memory.asking import in_context
from sleepgym.memory.overlay import Memory, Overlay


def anchored(
    overlay: Overlay, memory: Memory, facts: Sequence[Fact], targets: Sequence[Target], spec: EditSpec, anchor: float
) -> list[Target]:
    """Returns targets of the edited model whose values at the last edited down-projection have a fixed length.

    Args:
        overlay: The model with hooks.
        memory: What the model was edited with when the targets were found.
        facts: ``n`` facts.
        targets: Their targets, of the residual stream.
        spec: Blocks and key token.
        anchor: Length, in units of that of the frozen base's own output at the same key.
    """
    rows = [in_context(overlay.lm, fact) for fact in facts]
    at = key_tokens(rows, spec)
    last = spec.layers[-1]
    with overlay.use(()):
        length = anchor * measured_outputs(overlay.lm, at, last).norm(dim=1)
    with overlay.use(memory):
        beside = measured_states(overlay.lm, at, last) - measured_outputs(overlay.lm, at, last)
    found = []
    for target, rest, a in zip(targets, beside, length, strict=True):
        solved = target.value[0].to(rest) - rest
        value = rest + a * solved / solved.norm().clamp_min(1e-12)
        found.append(replace(target, value=value[None].to(target.value)))
    return found
