# %% [markdown]
# # Your own scheduler in ten lines
#
# A scheduler decides from the observation and the mask. `keep_up` is what most of them do while awake: write what
# waits, mend what is known to be worn.

# %%
import numpy as np

from sleepgym.env import Action, stat
from sleepgym.evaluation import ScoreMatrix, compare, episodes_sheet, evaluate
from sleepgym.schedulers import PressureRule, Scheduler, keep_up
from sleepgym.training import EnvSpec


class Siesta(Scheduler):
    """Sleeps as soon as the night begins, if there is anything to settle."""

    def act(self, observation, mask):  # type: ignore[no-untyped-def]
        """See :meth:`Scheduler.act`."""
        if mask[Action.SLEEP] and stat(observation, "night") and stat(observation, "load") > 0.05:
            return Action.SLEEP
        return keep_up(observation, mask)


# %% [markdown]
# It plays beside a rule, on the same validation streams; episodes run side by side and share the model's passes.

# %%
STREAMS = 8
spec, seeds = EnvSpec("SleepLLM-Mini-v0"), range(1000, 1000 + STREAMS)
played = {
    "siesta": evaluate(lambda: spec.make("validation"), Siesta(), seeds),
    "pressure-rule": evaluate(lambda: spec.make("validation"), PressureRule(), seeds),
}
print(episodes_sheet(played, np.random.default_rng(0), f"{STREAMS} validation streams").markdown())

# %% [markdown]
# Since both lived through the same streams, their difference is paired, and its interval narrower than those of the
# table.

# %%
mine, rule = (ScoreMatrix.from_results(name, [results]) for name, results in played.items())
print(compare(mine, rule, np.random.default_rng(0)))

# %% [markdown]
# To play the frozen test streams, put the class into a file: `sleepgym leaderboard siesta.py:Siesta`
# ([rules](../leaderboard.md)).
