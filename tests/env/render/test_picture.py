"""Pictures of episodes: what is where on them, for whom, and how they come out of an environment."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sleepgym.env.render.colours import STANDINGS
from sleepgym.env.render.layout import NIGHT
from sleepgym.env.render.picture import FADE, LEVELS, figure, to_array
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import OPERATORS, Action
from sleepgym.episode.history import History, Standing
from sleepgym.episode.stream import Rhythm

RHYTHM = Rhythm(12, night_start=8, night_ticks=4, arrival_rate=0.5, update_share=0.1, edit_budget=10)
HORIZON = 24
MINI = "SleepLLM-Mini-v0"


def history(*standings: str, offline: bool = False, ratio: float = 1.02) -> History:
    """Ticks at which facts stood so."""
    out = History(RHYTHM)
    for tick, letters in enumerate(standings):
        out.append(
            doing="SLEEP" if offline else "INJECT",
            offline=offline,
            arrivals=tick % 3,
            standings=letters,
            served=0.0 if offline else 0.8,
            budget_left=1 - tick / 40,
            pressure=tick / 30,
            perplexity_ratio=ratio,
        )
    return out


def named(fig: Figure, name: str) -> NDArray[np.int64]:
    """Box ``(left, top, right, bottom)`` of the panel with a name, in pixels of the picture."""
    (axes,) = (axes for axes in fig.axes if name in {text.get_text() for text in axes.texts})
    box = axes.bbox
    return np.array([box.x0, fig.bbox.height - box.y1, box.x1, fig.bbox.height - box.y0]).round().astype(int)


def cell(past: History, fact: int, tick: int) -> list[float]:
    """What colour the middle of a fact's cell has, red, green and blue in 0 to 1."""
    fig = figure(past, HORIZON)
    (axes,) = (axes for axes in fig.axes if axes.images)
    picture = to_array(fig)
    x, y = axes.transData.transform((tick + 0.5, fact))
    return (picture[int(len(picture) - y), int(x)] / 255).tolist()


def test_every_action_has_a_level_and_every_standing_a_colour() -> None:
    assert set(LEVELS) == {action.name for action in OPERATORS}
    assert set(STANDINGS) == set(Standing)


@pytest.mark.parametrize("past", [history(), history(""), history("", "p", "rpl"), history(*["r" * 40] * HORIZON)])
def test_pictures_are_rgb_of_640_by_480(past: History) -> None:
    picture = to_array(figure(past, HORIZON))
    assert picture.shape == (480, 640, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 1


def test_equal_histories_make_equal_pictures() -> None:
    past = history("r", "rw", "rwp")
    assert np.array_equal(to_array(figure(past, HORIZON)), to_array(figure(past.copy(), HORIZON)))


@pytest.mark.parametrize("standing", Standing)
def test_the_heat_map_shows_how_each_fact_stood_at_each_tick(standing: Standing) -> None:
    past = history("r", f"r{standing}", "rr")
    colour, _ = STANDINGS[standing]
    assert cell(past, fact=2, tick=1) == pytest.approx(to_rgb(colour), abs=0.01)
    for elsewhere in ((1, 1), (2, 2)):
        assert cell(past, *elsewhere) == pytest.approx(to_rgb(STANDINGS[Standing.RIGHT][0]), abs=0.01)


def test_nothing_is_shown_of_a_fact_before_it_arrives() -> None:
    assert cell(history("r", "rr"), fact=2, tick=0) == [1.0, 1.0, 1.0]


def test_cells_are_pale_while_nobody_is_answered() -> None:
    full, pale = (cell(history("w", offline=offline), fact=1, tick=0) for offline in (False, True))
    assert pale == pytest.approx([value + FADE * (1 - value) for value in full], abs=0.01)


def test_a_wrong_answer_changes_the_heat_map_recall_and_the_counts_and_nothing_above() -> None:
    right, wrong = (figure(history("rrr", letters), HORIZON) for letters in ("rrr", "rwr"))
    left, top, edge, bottom = named(right, "fact, by arrival")
    one, other = to_array(right), to_array(wrong)
    assert not np.array_equal(one[top:bottom, left:edge], other[top:bottom, left:edge])
    assert not np.array_equal(one[top:bottom, edge:], other[top:bottom, edge:])
    assert not np.array_equal(one[bottom:], other[bottom:])
    assert np.array_equal(one[: top - 1], other[: top - 1])


@pytest.mark.parametrize("night_start", [0, 8, 10])
def test_nights_are_shaded(night_start: int) -> None:
    rhythm = dataclasses.replace(RHYTHM, night_start=night_start)
    fig = figure(History(rhythm), HORIZON)
    left, top, right, bottom = named(fig, "rise, %")
    row = to_array(fig)[(top + bottom) // 2, left:right]
    shaded = [
        tuple(row[int((tick + 0.5) / HORIZON * len(row))]) == tuple(np.array(to_rgb(NIGHT)) * 255)
        for tick in range(HORIZON)
    ]
    assert shaded == [rhythm.is_night(tick) for tick in range(HORIZON)]


def test_panels_and_gauges_are_named_with_units() -> None:
    fig = figure(history("r", "rw"), HORIZON)
    words = {text.get_text() for axes in fig.axes for text in axes.texts}
    words |= {label.get_text() for axes in fig.axes for label in axes.get_yticklabels()}
    words |= {axes.get_xlabel() for axes in fig.axes}
    assert {"sleep", "nap", "writing", "awake", "facts arrive", "fact, by arrival", "share", "rise, %"} <= words
    assert {"recall", "0.50", "edits left", "10/10", "pressure", "0.03", "perplexity", "+2.0 %"} <= words
    assert {name for _, name in STANDINGS.values()} <= words
    assert "tick (12 a day, nights shaded)" in words
    assert {"day 1 of 2", "INJECT"} <= words


def test_no_words_leave_the_picture_or_meet_each_other() -> None:
    crowded = history(*["rwopl" * 30] * HORIZON, ratio=math.inf)
    fig = figure(crowded, HORIZON)
    to_array(fig)
    ticks = [[*axes.get_yticklabels(), *axes.get_xticklabels()] for axes in fig.axes if axes.axison]
    texts = [*itertools.chain(*ticks, *(axes.texts for axes in fig.axes))]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 640 and box.y1 <= 480
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1))


@pytest.mark.parametrize("ratio", [math.inf, math.nan, 0.5, 1e9])
def test_a_ruined_model_can_be_shown(ratio: float) -> None:
    assert to_array(figure(history("r", "w", ratio=ratio), HORIZON)).shape == (480, 640, 3)


def linear(colour: str) -> NDArray[np.float64]:
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE Lab of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ rgb / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira and Fernandes 2009, at full severity.
@pytest.mark.parametrize(
    "vision",
    [
        pytest.param(np.eye(3), id="usual"),
        pytest.param([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]], id="protanopia"),
        pytest.param([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]], id="deuteranopia"),
        pytest.param([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]], id="tritanopia"),
    ],
)
def test_standings_are_told_apart_whatever_colours_one_sees(vision: NDArray[np.float64]) -> None:
    seen = [lab(np.clip(np.array(vision) @ linear(colour), 0, 1)) for colour, _ in STANDINGS.values()]
    # 2.3 can just be noticed, with large areas side by side.
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 25


def test_an_environment_is_drawn_at_any_time() -> None:
    env = SleepEnv(MINI, render_mode="rgb_array")
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    env.reset(seed=0)
    first = env.render()
    env.step(Action.WAIT)
    assert not np.array_equal(first, env.render())


def test_drawing_changes_nothing_and_a_restored_episode_looks_the_same() -> None:
    env = SleepEnv(MINI, render_mode="rgb_array")
    env.reset(seed=1)
    while not env.action_masks()[Action.INJECT]:
        env.step(Action.WAIT)
    env.step(Action.INJECT)
    passes, picture, moment = env.episode.examiner.answers.forward_passes, env.render(), env.snapshot()
    assert env.episode.examiner.answers.forward_passes == passes
    env.step(Action.WAIT)
    assert not np.array_equal(picture, env.render())
    env.restore(moment)
    assert np.array_equal(picture, env.render())


def test_frames_are_collected_for_a_list() -> None:
    env = gym.make(MINI, render_mode="rgb_array_list")
    env.reset(seed=0)
    for _ in range(2):
        env.step(Action.WAIT)
    frames = env.render()
    assert [frame.shape for frame in frames] == [(480, 640, 3)] * 3  # type: ignore[union-attr]


def test_episodes_are_recorded_as_videos(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    env = RecordVideo(gym.make(MINI, render_mode="rgb_array", episode={"days": 1}), str(tmp_path / "videos"))
    env.reset(seed=0)
    over = False
    while not over:
        *_, terminated, truncated, _ = env.step(Action.WAIT)
        over = terminated or truncated
    env.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video.stat().st_size > 1000
