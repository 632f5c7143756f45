"""Evaluation: episodes, scores, how sure they are, and how to show them.

``evaluate`` plays a scheduler on seeds, and ``in_processes`` lets several processes do so. ``ScoreMatrix`` holds what
training runs scored on streams; ``summarise`` and ``compare`` say how good a scheduler is and by how much it beats
another; sheets show it. Single statistics are in :mod:`sleepgym.evaluation.statistics`, and pictures, which need
matplotlib, in :mod:`sleepgym.evaluation.plots`.
"""

from sleepgym.evaluation.bootstrap import Band, Estimate, Over, bootstrap_band, stratified_bootstrap
from sleepgym.evaluation.episodes import EpisodeResult, Maker, Predictor, evaluate, run_episode
from sleepgym.evaluation.processes import chunks, in_processes
from sleepgym.evaluation.scores import ScoreError, ScoreMatrix
from sleepgym.evaluation.summary import (
    Comparison,
    Summary,
    compare,
    comparison_sheet,
    episodes_sheet,
    summarise,
    summary_sheet,
)
from sleepgym.evaluation.tables import Column, Sheet

__all__ = [
    "Band",
    "Column",
    "Comparison",
    "EpisodeResult",
    "Estimate",
    "Maker",
    "Over",
    "Predictor",
    "ScoreError",
    "ScoreMatrix",
    "Sheet",
    "Summary",
    "bootstrap_band",
    "chunks",
    "compare",
    "comparison_sheet",
    "episodes_sheet",
    "evaluate",
    "in_processes",
    "run_episode",
    "stratified_bootstrap",
    "summarise",
    "summary_sheet",
]
