"""Pictures of episodes, finished and not begun."""

from __future__ import annotations

import numpy as np
import pytest

from sleepgym.env.actions import Action
from sleepgym.env.history import History
from sleepgym.env.render import LEVELS, figure, text, to_array
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.stream import Rhythm

RHYTHM = Rhythm(12, night_start=8, night_ticks=4, arrival_rate=0.5, update_share=0.1, edit_budget=10)


def history(*doing: str) -> History:
    out = History(RHYTHM)
    for tick, name in enumerate(doing):
        out.append(
            doing=name,
            arrivals=tick % 3,
            recall=0.9 - 0.02 * tick,
            served=0.0 if name == "SLEEP" else 0.8,
            budget_left=1 - tick / 40,
            perplexity_ratio=1 + tick / 200,
        )
    return out


def test_every_action_has_a_level() -> None:
    assert set(LEVELS) == {action.name for action in Action}


@pytest.mark.parametrize("doing", [(), ("WAIT",), ("INJECT", "NAP", "SLEEP", "SLEEP", "REFRESH", "PRUNE", "WAIT")])
def test_a_picture_has_the_size_asked_for(doing: tuple[str, ...]) -> None:
    picture = to_array(figure(history(*doing), horizon=24, width=320, height=240))
    assert picture.shape == (240, 320, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 1


def test_labels_name_what_is_drawn() -> None:
    words = [axes.get_ylabel() for axes in figure(history("WAIT", "SLEEP"), 24).axes]
    assert {"share", "budget left", "perplexity (%)"} <= set(words)


def test_text_shows_the_last_ticks() -> None:
    assert text(history("WAIT", "INJECT", "SLEEP")).startswith(".Iz\n")
    assert text(History(RHYTHM)) == "tick 0\n"


def test_the_environment_renders_in_its_modes() -> None:
    for mode, kind in (("rgb_array", np.ndarray), ("ansi", str), (None, type(None))):
        env = SleepEnv("SleepLLM-Mini-v0", render_mode=mode)
        env.reset(seed=0)
        env.step(Action.WAIT)
        assert isinstance(env.render(), kind)
    with pytest.raises(ValueError, match="render_mode"):
        SleepEnv("SleepLLM-Mini-v0", render_mode="human")
