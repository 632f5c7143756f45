"""Published recipes as settings of one editor, so that they differ from each other only where their papers do.

All find targets by gradient (Meng et al. 2023, eq. 16) and write ``D = R K^T (M + K K^T)^-1`` (eq. 14). With keys
``K``, residuals ``R``, keys of earlier edits ``K_p`` and the second moment ``C`` of text, they are:

==============  ==========================================  ==========================================================
preset          M                                           targets
==============  ==========================================  ==========================================================
memit           ``lambda C``                                of the edited model, on the residual stream
memit-prev      ``lambda C + K_p K_p^T``                    the same
alphaedit       ``K_p K_p^T + rho I``, all within the null  the same
                space of ``C``
evoedit         ``w K_p K_p^T + rho I`` with a huge w,      the same
                within the same null space
nas             as alphaedit                                as memit, with values of a fixed length
eamet           ``lambda C + K_p K_p^T``                    as memit, residuals as similar as their keys
encore          ``lambda C + K_p K_p^T + rho I``            as memit, stopped as soon as the object is the likeliest
sleeping-llm    ``lambda C`` with a tiny lambda             as memit, for the object's first token at the last token
                                                            of the prompt
sleepgym        ``lambda C + K_p K_p^T + rho I``            of the frozen base, on every edited down-projection
                                                            jointly; ``R`` makes up for what earlier edits add at ``K``;
                                                            hard facts get more weight
==============  ==========================================  ==========================================================

Sources: memit: Meng et al. 2023, arXiv:2210.07229. memit-prev: the variant with earlier keys in the normal matrix that
AlphaEdit's authors compare with. alphaedit: Fang et al. 2025, arXiv:2410.02355, eq. 14. evoedit: arXiv:2510.13851,
where the span of all earlier keys is taken out of AlphaEdit's projector; a weight that grows without bound has the
same limit. nas: Norm-Anchor Scaling, arXiv:2602.02543, on AlphaEdit's solve as in the authors' main file: the target
is ``h - v0 + a v* / |v*|``, see :mod:`~sleepgym.editing.anchoring`. eamet: arXiv:2505.11876, see
:mod:`~sleepgym.editing.alignment`; the paper writes its facts in one batch, and where they are written one by one, the
keys of earlier ones stand for the rest of it. encore: Gupta et al. 2025, arXiv:2502.01636 (most-probable early
stopping, norm constraint). sleeping-llm: the wake phase of the sleeping language model, whose sleep this project
started from.

From the authors' own code all of them differ in that a target's length is penalised by its square (``norm_weight``;
there by the length itself, divided by that of the state squared), in that it is found once the worst context is (there
the mean of loss and penalties), and in what :class:`EditSpec` says of sizes.

Papers give step sizes, thresholds and ridges in the units of the model at hand; here they are dimensionless (see
:class:`EditSpec`), and ``lambda`` is best chosen for a model by :func:`sleepgym.editing.calibrate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from sleepgym.editing.spec import EditSpec
from sleepgym.settings import SettingError

_MEMIT = EditSpec(
    prefixes=5,
    clamp=0.75,
    stop_nll=0.05,
    norm_weight=0.5,
    site="residual",
    frozen=False,
    covariance_weight=15000.0,
    ridge=1e-6,
    max_weight=1.0,
    protect=False,
)

PRESETS: Mapping[str, EditSpec] = MappingProxyType(
    {
        "memit": _MEMIT,
        "memit-prev": replace(_MEMIT, protect=True),
        "alphaedit": replace(_MEMIT, protect=True, covariance_weight=0.0, null_space=0.02, ridge=10.0),
        "evoedit": replace(
            _MEMIT, protect=True, covariance_weight=0.0, null_space=0.02, ridge=10.0, protect_weight=1e6
        ),
        "nas": replace(_MEMIT, protect=True, covariance_weight=0.0, null_space=0.02, ridge=10.0, anchor=1.25),
        "eamet": replace(_MEMIT, protect=True, stop_nll=0.01, norm_weight=0.0, alignment=2.0),
        "encore": replace(_MEMIT, protect=True, stop="argmax", ridge=10.0),
        "sleeping-llm": replace(
            _MEMIT, prefixes=0, covariance_weight=0.1, ridge=0.01, key_token="prompt", object_tokens="first"
        ),
        "sleepgym": EditSpec(),
    }
)
"""Recipes by name, with the layers of the bundled model."""


def preset(name: str, layers: tuple[int, ...] | None = None, **changes: object) -> EditSpec:
    """Returns a named recipe for the given blocks, with some fields replaced.

    Args:
        name: Key of :data:`PRESETS`.
        layers: Blocks to edit; by default the bundled model's.
        **changes: Fields of :class:`EditSpec` to replace.

    Raises:
        SettingError: The name is unknown, or a value is out of range.
    """
    if name not in PRESETS:
        raise SettingError("preset", f"one of {', '.join(PRESETS)}", name)
    chosen = PRESETS[name] if layers is None else replace(PRESETS[name], layers=layers)
    return replace(chosen, **changes)  # type: ignore[arg-type]  # checked by EditSpec itself
