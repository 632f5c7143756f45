"""Loads causal LMs, finds their MLP down-projections, and probes them.

Names are imported on first use: what a card says of a model must not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sleepgym.lazily import on_first_use

if TYPE_CHECKING:
    from sleepgym.lm.architecture import ArchitectureError, Block, find_blocks
    from sleepgym.lm.catalogue import ModelLoadError, facts_for
    from sleepgym.lm.encoding import Encoded
    from sleepgym.lm.generation import Sampling, continuations, generate
    from sleepgym.lm.language_model import LanguageModel
    from sleepgym.lm.loading import load, wrap
    from sleepgym.lm.probes import Scores, perplexity, score

_EXPORTS = {
    "ArchitectureError": "sleepgym.lm.architecture",
    "Block": "sleepgym.lm.architecture",
    "Encoded": "sleepgym.lm.encoding",
    "LanguageModel": "sleepgym.lm.language_model",
    "ModelLoadError": "sleepgym.lm.catalogue",
    "Sampling": "sleepgym.lm.generation",
    "Scores": "sleepgym.lm.probes",
    "continuations": "sleepgym.lm.generation",
    "facts_for": "sleepgym.lm.catalogue",
    "find_blocks": "sleepgym.lm.architecture",
    "generate": "sleepgym.lm.generation",
    "load": "sleepgym.lm.loading",
    "perplexity": "sleepgym.lm.probes",
    "score": "sleepgym.lm.probes",
    "wrap": "sleepgym.lm.loading",
}

__all__ = [
    "ArchitectureError",
    "Block",
    "Encoded",
    "LanguageModel",
    "ModelLoadError",
    "Sampling",
    "Scores",
    "continuations",
    "facts_for",
    "find_blocks",
    "generate",
    "load",
    "perplexity",
    "score",
    "wrap",
]


__getattr__ = on_first_use(__name__, _EXPORTS)
