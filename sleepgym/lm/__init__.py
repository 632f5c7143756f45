"""Loads causal LMs, finds their MLP down-projections, and probes them."""

from sleepgym.lm.architecture import ArchitectureError, Block, find_blocks
from sleepgym.lm.catalogue import ModelLoadError, facts_for
from sleepgym.lm.language_model import Encoded, LanguageModel
from sleepgym.lm.loading import load
from sleepgym.lm.probes import Scores, continuations, generate, perplexity, score

__all__ = [
    "ArchitectureError",
    "Block",
    "Encoded",
    "LanguageModel",
    "ModelLoadError",
    "Scores",
    "continuations",
    "facts_for",
    "find_blocks",
    "generate",
    "load",
    "perplexity",
    "score",
]
