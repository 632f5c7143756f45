"""Pictures of evaluations: what is in them, and that they touch no global state of matplotlib."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sleepgym.evaluation import Band, Estimate
from sleepgym.evaluation.plots import LearningCurve, interval_figure, learning_figure, profile_figure


def picture(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_intervals_are_where_the_numbers_are() -> None:
    names = [f"rule {i}" for i in range(9)]
    estimates = {name: Estimate(i / 10, i / 10 - 0.05, i / 10 + 0.1) for i, name in enumerate(names)}
    figure = interval_figure({"mean": estimates, "IQM": dict(reversed(estimates.items()))})
    assert picture(figure).shape == (480, 640, 4)
    for axes in figure.axes:
        bars, points = axes.lines[::2], axes.lines[1::2]
        assert [line.get_xdata().tolist() for line in bars] == [[e.low, e.high] for e in estimates.values()]
        assert [line.get_xdata()[0] for line in points] == [e.point for e in estimates.values()]
        # More schedulers than colours: no two look alike.
        assert len({(line.get_color(), line.get_marker()) for line in points}) == 9
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names
    assert [axes.get_xlabel() for axes in figure.axes] == ["mean", "IQM"]


def test_panels_of_different_schedulers_and_no_panels_are_errors() -> None:
    one = Estimate(0, 0, 0)
    with pytest.raises(ValueError, match=r"same schedulers, found \[\['a'\], \['b'\]\]"):
        interval_figure({"mean": {"a": one}, "IQM": {"b": one}})
    with pytest.raises(ValueError, match="same schedulers"):
        interval_figure({})


def test_profiles_are_drawn_as_steps_with_their_names() -> None:
    thresholds = np.linspace(0, 1, 5)
    band = Band(1 - thresholds, np.maximum(0.8 - thresholds, 0), np.minimum(1.2 - thresholds, 1))
    figure = profile_figure(thresholds, {"owl": band, "never": band})
    assert picture(figure).shape == (480, 640, 4)
    (axes,) = figure.axes
    assert axes.get_xlim() == (0, 1)
    assert [line.get_drawstyle() for line in axes.lines] == ["steps-mid"] * 2
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), band.point)
    assert len(axes.collections) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["owl", "never"]


def test_learning_curves_are_medians_between_the_quartiles() -> None:
    scores = np.array([[0.1, 0.5], [0.2, 0.6], [0.3, 0.9], [0.5, 1.0], [0.4, 0.0]])
    figure = learning_figure({"PPO": LearningCurve(np.array([0, 100]), scores)}, {"owl": 0.8})
    assert picture(figure).shape == (480, 640, 4)
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.3, 0.6])
    filled = axes.collections[0].get_paths()[0].vertices
    assert (filled[:, 1].min(), filled[:, 1].max()) == (0.2, 0.9)
    assert axes.lines[1].get_ydata() == [0.8, 0.8]
    assert [text.get_text() for text in axes.texts] == ["owl"]
    assert figure.legends[0].get_texts()[0].get_text() == "PPO (5 runs)"
    assert not axes.child_axes


def test_minutes_of_a_run_are_shown_above_its_steps() -> None:
    curve = LearningCurve(np.array([0, 100, 200]), np.zeros((1, 3)), np.array([0.5, 1.5, 2.5]))
    figure = learning_figure({"PPO": curve}, {})
    picture(figure)
    (above,) = figure.axes[0].child_axes
    low, high = figure.axes[0].get_xlim()
    np.testing.assert_allclose(above.get_xlim(), [0.5 + low / 100, 0.5 + high / 100])
    with pytest.raises(ValueError, match="minutes"):
        LearningCurve(np.array([0, 100]), np.zeros((1, 2)), np.zeros(3))


@pytest.mark.parametrize("scores", [np.zeros((2, 3)), np.zeros(2), np.zeros((0, 2))])
def test_a_curve_whose_shapes_do_not_fit_is_an_error(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[runs, points\]"):
        LearningCurve(np.array([0, 100]), scores)


def test_pyplot_is_not_involved() -> None:
    before = plt.get_fignums()
    picture(interval_figure({"mean": {"a": Estimate(0.5, 0.4, 0.6)}}))
    assert plt.get_fignums() == before
