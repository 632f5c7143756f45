"""Evaluation: episodes, scores, confidence intervals, tables and plots.

``evaluate`` runs a scheduler on seeds, ``simulate`` does so in the sim, and ``in_processes`` distributes work over
processes. ``ScoreMatrix`` holds the scores of training runs on streams; ``summarise`` and ``compare`` compute
statistics with intervals; sheets present them. Single statistics are in :mod:`sleepgym.evaluation.statistics`, and
plots, which need matplotlib, in :mod:`sleepgym.evaluation.plots`.

Names are imported on first use: statistics and simulated episodes need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sleepgym.lazily import on_first_use

if TYPE_CHECKING:
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

_EXPORTS = {
    "Band": "sleepgym.evaluation.bootstrap",
    "Column": "sleepgym.evaluation.tables",
    "Comparison": "sleepgym.evaluation.summary",
    "EpisodeResult": "sleepgym.evaluation.episodes",
    "Estimate": "sleepgym.evaluation.bootstrap",
    "Maker": "sleepgym.evaluation.episodes",
    "Over": "sleepgym.evaluation.bootstrap",
    "Predictor": "sleepgym.schedulers.own",
    "ScoreError": "sleepgym.evaluation.scores",
    "ScoreMatrix": "sleepgym.evaluation.scores",
    "Sheet": "sleepgym.evaluation.tables",
    "SimResult": "sleepgym.evaluation.simulated",
    "Summary": "sleepgym.evaluation.summary",
    "bootstrap_band": "sleepgym.evaluation.bootstrap",
    "chunks": "sleepgym.evaluation.processes",
    "compare": "sleepgym.evaluation.summary",
    "comparison_sheet": "sleepgym.evaluation.summary",
    "episodes_sheet": "sleepgym.evaluation.summary",
    "evaluate": "sleepgym.evaluation.episodes",
    "in_processes": "sleepgym.evaluation.processes",
    "run_episode": "sleepgym.evaluation.episodes",
    "sim_scores": "sleepgym.evaluation.simulated",
    "simulate": "sleepgym.evaluation.simulated",
    "simulated_sheet": "sleepgym.evaluation.simulated",
    "stratified_bootstrap": "sleepgym.evaluation.bootstrap",
    "summarise": "sleepgym.evaluation.summary",
    "summary_sheet": "sleepgym.evaluation.summary",
}

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


__getattr__ = on_first_use(__name__, _EXPORTS)
