"""Many probes put to a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sleepgym.lm import score
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel

_ROWS = 64
"""Probes of one pass; bounds memory."""


def correct(lm: LanguageModel, probes: Sequence[Encoded]) -> list[bool]:
    """Whether each object is written, with whatever is in use on the model; rows of like length share passes."""
    right = torch.zeros(len(probes), dtype=torch.bool)
    order = sorted(range(len(probes)), key=lambda i: len(probes[i].ids))
    for start in range(0, len(order), _ROWS):
        part = order[start : start + _ROWS]
        right[part] = score(lm, [probes[i] for i in part]).correct
    return [bool(each) for each in right]
