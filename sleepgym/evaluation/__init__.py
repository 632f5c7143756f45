"""Evaluation: episodes, scores, confidence intervals, tables and plots.

``evaluate`` runs a scheduler on seeds, ``simulate`` does so in the sim, and ``in_processes`` distributes work over
processes. ``ScoreMatrix`` holds the scores of training runs on streams; ``summarise`` and ``compare`` compute
statistics with intervals; sheets present them. Single statistics are in :mod:`sleepgym.evaluation.statistics`, and
plots, which need matplotlib, in :mod:`sleepgym.evaluation.plots`.
"""

from sleepgym.evaluation.bootstrap import Band, Estimate, Over, bootstrap_band, stratified_bootstrap
from sleepgym.evaluation.episodes import EpisodeResult, Maker, evaluate, run_episode
from sleepgym.evaluation.processes import chunks, in_processes
from sleepgym.evaluation.scores import ScoreError, ScoreMatrix
from sleepgym.evaluation.simulated import SimResult, sim_scores, simulate, simulated_sheet
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
from sleepgym.schedulers.own import Predictor

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
    "SimResult",
    "Summary",
    "bootstrap_band",
    "chunks",
    "compare",
    "comparison_sheet",
    "episodes_sheet",
    "evaluate",
    "in_processes",
    "run_episode",
    "sim_scores",
    "simulate",
    "simulated_sheet",
    "stratified_bootstrap",
    "summarise",
    "summary_sheet",
]
