"""Shared parts of training scripts: environments, features extractor, callbacks, saved policies and warm starts.

Built on Stable-Baselines3 and sb3-contrib, which ``import sleepgym`` does not load.
"""

from sleepgym.training.callbacks import CheckpointCallback, DashboardCallback, ValidationCallback, training_callbacks
from sleepgym.training.envs import EndAtHorizon, EnvSpec, RelativeReward, ScaleReward
from sleepgym.training.extractor import LedgerExtractor
from sleepgym.training.policy_card import PolicyCard, PolicyError, load_policy
from sleepgym.training.warm_start import Demonstrations, agreement, clone, demonstrate, joined

__all__ = [
    "CheckpointCallback",
    "DashboardCallback",
    "Demonstrations",
    "EndAtHorizon",
    "EnvSpec",
    "LedgerExtractor",
    "PolicyCard",
    "PolicyError",
    "RelativeReward",
    "ScaleReward",
    "ValidationCallback",
    "agreement",
    "clone",
    "demonstrate",
    "joined",
    "load_policy",
    "training_callbacks",
]
