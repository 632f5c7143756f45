"""Every number of the editor in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass

from sleepgym.settings import above_zero, at_least, require


class EditError(RuntimeError):
    """An edit could not be made; the memory is as it was before the call."""


@dataclass(frozen=True)
class EditSpec:
    """How targets are found and how they are written. Dimensionless: nothing depends on a model's scale.

    Attributes:
        layers: Indices of the edited blocks, ascending.
        prefixes: Contexts put before the prompt, besides the bare prompt; sampled from the model itself.
        steps: Adam steps of the target at most.
        learning_rate: Of Adam, in units of the norm of the down-projection's output per step.
        clamp: Largest norm of a layer's target, in units of the norm of its down-projection's output.
        stop_nll: A target is finished once the object's mean NLL per token (nats) is below this in every context.
        kl_weight: Weight of KL(p0 || p) on "{subject} is a" (Meng et al. 2023, eq. 5 uses 0.0625).
        norm_weight: Weight of the squared norm of the target in units of the squared output norm.
        covariance_weight: Weight of the text's second moment C against one fact (lambda of Meng et al. 2023,
            eq. 15: the number of text tokens that a fact has to outvote).
        ridge: Multiple of the identity in the normal matrix, in units of tr(C) / d_in.
        protect: Whether an injection holds the keys of the facts already written still, and makes up for
            what their terms leak onto it. Off, it is as fast and as harmful as a naive edit.

    Raises:
        SettingError: A value is impossible.
    """

    layers: tuple[int, ...] = (0,)
    prefixes: int = 6
    steps: int = 25
    learning_rate: float = 0.2
    clamp: float = 1.5
    stop_nll: float = 0.1
    kl_weight: float = 0.0625
    norm_weight: float = 0.02
    covariance_weight: float = 300.0
    ridge: float = 0.01
    protect: bool = True

    def __post_init__(self) -> None:
        layers = list(self.layers)
        ascending = bool(layers) and layers == sorted(set(layers)) and layers[0] >= 0
        require(ascending, "layers", "at least one index, ascending from 0", layers)
        at_least(self, 1, "steps")
        at_least(self, 0, "prefixes", "kl_weight", "norm_weight")
        above_zero(self, "learning_rate", "clamp", "stop_nll", "covariance_weight", "ridge")
