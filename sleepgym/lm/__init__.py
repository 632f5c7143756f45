"""Loads causal LMs, finds their MLP down-projections, and probes them."""

from sleepgym.lm.architecture import ArchitectureError, Block, find_blocks
from sleepgym.lm.catalogue import ModelLoadError, facts_for
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.generation import Sampling, continuations, generate
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.loading import load, wrap
from sleepgym.lm.probes import Scores, perplexity, score

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
