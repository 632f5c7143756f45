"""Settings of the editor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from sleepgym.errors import SleepGymError
from sleepgym.settings import above_zero, at_least, require


class EditError(SleepGymError, RuntimeError):
    """An edit could not be made; the memory is as it was before the call."""


def require_layers(layers: Sequence[int], depth: int, model: str) -> None:
    """Checks that a model has the given blocks.

    Args:
        layers: Indices of blocks.
        depth: Number of blocks of the model.
        model: Name of the model, for the message.

    Raises:
        EditError: The model has no such block.
    """
    if any(layer >= depth for layer in layers):
        raise EditError(
            f"expected layers below {depth} for {model!r}, found {tuple(layers)}; choose blocks that the model has"
        )


@dataclass(frozen=True)
class EditSpec:
    """Settings of finding and writing targets. All are dimensionless, so that they do not depend on a model's scale.

    The defaults are this project's recipe for the bundled model; ``sleepgym.editing.presets`` has the published ones.

    Attributes:
        layers: Indices of the edited blocks, ascending.
        prefixes: Number of contexts before the prompt, besides the bare prompt; sampled from the model itself.
        steps: Maximum number of Adam steps per target.
        learning_rate: Step size of Adam, in units of the norm of the perturbed activation.
        clamp: Maximum norm of a target, in units of the norm of the perturbed activation.
        stop: When a target is finished: once the object's mean NLL per token is below ``stop_nll`` in every
            context (``"nll"``), or once each of its tokens is the likeliest in every context (``"argmax"``).
        stop_nll: Threshold of ``stop = "nll"``, in nats per token.
        kl_weight: Weight of KL(p0 || p) on "{subject} is a" (the code of Meng et al. 2023 has 0.0625).
        norm_weight: Weight of the target's squared norm, in units of that of the perturbed activation.
        site: Activation that a target perturbs: the output of every edited down-projection, jointly (``"down_proj"``),
            or the residual stream after the last edited block, whose change is then divided among the edited layers
            (``"residual"``, Meng et al. 2023, sec. 4.3).
        key_token: Token at which the key is read and the perturbation added: the last of the subject or of the prompt.
        object_tokens: Whether all tokens of the object are targets or its first one only.
        frozen: Whether targets and keys are those of the frozen base, so that each is computed once and any number
            of them can be solved for together. If false, they are those of the model with its present edits.
        covariance_weight: Weight of the text's second moment C against one fact (lambda of Meng et al. 2023,
            eq. 15: the number of text tokens that a fact has to outvote).
        ridge: Multiple of the identity in the normal matrix, in units of tr(C) / d_in.
        null_space: Multiple of tr(C) / d_in above which eigenvectors of C are excluded from edits (AlphaEdit, Fang et
            al. 2025, eq. 8); None excludes none.
        max_weight: Maximum weight of a fact in the least squares. A fact that is not recalled after the solve is solved
            for again with four times the weight while this allows it, so that lambda need not be chosen for the
            hardest fact. 1 gives every fact the same weight.
        neighbours: Maximum number of others of each written relation whose keys, on the frozen base, the solve keeps
            without output (weight 1 each), see :class:`~sleepgym.editing.neighbourhood.Neighbourhood`; 0 for none.
        gate: Share of its activation ``A x`` at its own key that a term has to reach to act; 0 for terms that always
            act. A gated term leaves other subjects alone, so that its output at its own key is its target in full,
            however near others are. A fact that is given more weight is given a lower gate as well, by the fourth root
            of it. A gated term cannot be exported without loss.
        protect: Whether an injection protects the keys of the facts already written and, with ``frozen``, compensates
            for what their terms add at the new keys. If false, edits are naive: faster, and more harmful to earlier
            facts.
        protect_weight: Weight of each protected key in the least squares, besides that of its fact: the larger it is,
            the less new terms put out there. A huge one is EvoEdit's projection (arXiv:2510.13851).
        anchor: Length to which solved values are brought before they are written, in units of that of the frozen base's
            own output at the same key (arXiv:2602.02543, see :mod:`~sleepgym.editing.anchoring`); None leaves lengths
            as they are. For site ``"residual"`` and targets of the edited model only.
        alignment: Weight of the loss that gives facts with similar keys similar residuals (2 in arXiv:2505.11876, see
            :mod:`~sleepgym.editing.alignment`); None for none. For targets of the edited model only: those of the
            frozen base do not depend on what else is written.

    Raises:
        SettingError: A value is impossible.
    """

    layers: tuple[int, ...] = (0,)
    prefixes: int = 6
    steps: int = 25
    learning_rate: float = 0.2
    clamp: float = 1.5
    stop: Literal["nll", "argmax"] = "nll"
    stop_nll: float = 0.1
    kl_weight: float = 0.0625
    norm_weight: float = 0.02
    site: Literal["down_proj", "residual"] = "down_proj"
    key_token: Literal["subject", "prompt"] = "subject"
    object_tokens: Literal["all", "first"] = "all"
    frozen: bool = True
    covariance_weight: float = 1000.0
    ridge: float = 0.01
    null_space: float | None = None
    max_weight: float = 64.0
    neighbours: int = 0
    gate: float = 0.0
    protect: bool = True
    protect_weight: float = 1.0
    anchor: float | None = None
    alignment: float | None = None

    def __post_init__(self) -> None:
        layers = list(self.layers)
        ascending = bool(layers) and layers == sorted(set(layers)) and layers[0] >= 0
        require(ascending, "layers", "at least one index, ascending from 0", layers)
        at_least(self, 1, "steps", "max_weight")
        at_least(self, 0, "prefixes", "kl_weight", "norm_weight", "covariance_weight", "neighbours", "gate")
        require(self.gate < 1, "gate", "below 1", self.gate)
        above_zero(self, "learning_rate", "clamp", "stop_nll", "ridge", "protect_weight")
        for name in ("null_space", "anchor", "alignment"):
            if getattr(self, name) is not None:
                above_zero(self, name)
        of_edited = self.anchor is not None or self.alignment is not None
        require(not (self.frozen and of_edited), "frozen", "false with anchor or alignment", self.frozen)
        require(self.anchor is None or self.site == "residual", "site", "'residual' with anchor", self.site)
        # Its targets are states of the stream: one of the frozen base could not be added to another.
        require(not (self.frozen and self.site == "residual"), "frozen", "false with the site 'residual'", self.frozen)
        for name, hint in get_type_hints(EditSpec).items():
            options = get_args(hint)
            if options and isinstance(options[0], str):
                require(getattr(self, name) in options, name, f"one of {options}", getattr(self, name))
