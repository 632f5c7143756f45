"""What training scripts share: environments, a features extractor, callbacks, policies on disk, warm starts.

Built on Stable-Baselines3 and sb3-contrib, which ``import sleepgym`` does not load.
"""

from sleepgym.learning.callbacks import CheckpointCallback, DashboardCallback, ValidationCallback, oversee
from sleepgym.learning.envs import EndAtHorizon, EnvSpec, RelativeReward, ScaleReward
from sleepgym.learning.extractor import LedgerExtractor
from sleepgym.learning.policy_card import PolicyCard, PolicyError, load_policy
from sleepgym.learning.warm_start import Demonstrations, agreement, clone, demonstrate, joined

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
    "oversee",
]
