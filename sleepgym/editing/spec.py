"""Every number of the editor in one frozen dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from sleepgym.errors import SleepGymError
from sleepgym.settings import above_zero, at_least, require


class EditError(SleepGymError, RuntimeError):
    """An edit could not be made; the memory is as it was before the call."""


def require_layers(layers: Sequence[int], depth: int, model: str) -> None:
    """Checks that a model has the blocks that are named.

    Args:
        layers: Indices of blocks.
        depth: Blocks that the model has.
        model: What it is called.

    Raises:
        EditError: It has no such block.
    """
    if any(layer >= depth for layer in layers):
        raise EditError(
            f"expected layers below {depth} for {model!r}, found {tuple(layers)}; choose blocks that the model has"
        )


@dataclass(frozen=True)
class EditSpec:
    """How targets are found and how they are written. Dimensionless: nothing depends on a model's scale.

    The defaults are this project's recipe for the bundled model; ``sleepgym.editing.presets`` has the published ones.

    Attributes:
        layers: Indices of the edited blocks, ascending.
        prefixes: Contexts put before the prompt, besides the bare prompt; sampled from the model itself.
        steps: Adam steps of the target at most.
        learning_rate: Of Adam, in units of the norm of what is perturbed, per step.
        clamp: Largest norm of a target, in units of the norm of what is perturbed.
        stop: When a target is finished: once the object's mean NLL per token is below ``stop_nll`` in every
            context (``"nll"``), or once every token of it is the likeliest in every context (``"argmax"``).
        stop_nll: Nats per token.
        kl_weight: Weight of KL(p0 || p) on "{subject} is a" (Meng et al. 2023, eq. 5 uses 0.0625).
        norm_weight: Weight of the squared norm of the target in units of the squared norm of what is perturbed.
        site: What a target perturbs: the output of every edited down-projection, jointly (``"down_proj"``), or the
            residual stream after the last edited block, whose change the edited layers then share out among
            themselves (``"residual"``, Meng et al. 2023, sec. 4.3).
        key_token: Where the key is read and the perturbation added: the last token of the subject or of the prompt.
        object_tokens: Whether the whole object is taught or its first token only.
        frozen: Whether targets and keys are those of the frozen base, so that each is computed once and any number
            of them can be solved for together. Off, they are those of the model as it is edited by then.
        covariance_weight: Weight of the text's second moment C against one fact (lambda of Meng et al. 2023,
            eq. 15: the number of text tokens that a fact has to outvote).
        ridge: Multiple of the identity in the normal matrix, in units of tr(C) / d_in.
        null_space: Directions of keys that text uses are closed to edits altogether (AlphaEdit, Fang et al. 2025,
            eq. 8): those whose eigenvalue of C is above this multiple of tr(C) / d_in. None closes none.
        max_weight: A fact that is not recalled after the solve is solved for again with four times the weight in the
            least squares, until it is or its weight would pass this; lambda can then suit the easy facts, not the
            hardest one. 1 gives every fact the same weight.
        protect: Whether an injection holds the keys of the facts already written still and, with ``frozen``, makes up
            for what their terms add at its own. Off, it is as fast and as harmful as a naive edit.

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
    protect: bool = True

    def __post_init__(self) -> None:
        layers = list(self.layers)
        ascending = bool(layers) and layers == sorted(set(layers)) and layers[0] >= 0
        require(ascending, "layers", "at least one index, ascending from 0", layers)
        at_least(self, 1, "steps", "max_weight")
        at_least(self, 0, "prefixes", "kl_weight", "norm_weight", "covariance_weight")
        above_zero(self, "learning_rate", "clamp", "stop_nll", "ridge")
        if self.null_space is not None:
            above_zero(self, "null_space")
        for name, hint in get_type_hints(EditSpec).items():
            options = get_args(hint)
            if options and isinstance(options[0], str):
                require(getattr(self, name) in options, name, f"one of {options}", getattr(self, name))
