"""The dashboard says the same of an episode whoever played it, and tensorboard reads it back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from sleepgym.env.wrappers import RecordSleepStatistics
from sleepgym.episode.actions import Action
from sleepgym.episode.card import load_card
from sleepgym.evaluation import EpisodeResult, run_episode
from sleepgym.schedulers import NightOwl
from sleepgym.training.dashboard import LAYOUT, Dashboard, figures_of_info, figures_of_result, means_of


def test_an_info_and_a_result_of_one_episode_say_the_same() -> None:
    infos: list[dict] = []
    quick = {"edit": {"steps": 2}, "sleep": {"steps": 2}, "episode": {"days": 1, "perplexity_rows": 2}}
    env = RecordSleepStatistics(gym.make("sleepgym:SleepLLM-Mini-v0", **quick))  # type: ignore[var-annotated, arg-type]
    played = run_episode(env, NightOwl(), 3, lambda info: infos.append(dict(info)))
    ended, said = figures_of_info(infos[-1]), figures_of_result(played)
    assert ended.keys() == said.keys()
    assert ended == pytest.approx(said)
    assert ended["sleeps"] >= 1 and ended["action_frac/SLEEP"] > 0 and ended["gpu_or_cpu_seconds"] > 0


def test_shares_of_actions_are_those_that_were_taken(episode: Callable[..., EpisodeResult]) -> None:
    figures = figures_of_result(episode(actions=(0, 1, 1, 4)))
    shares = [figures[f"action_frac/{action.name}"] for action in Action]
    assert shares == [0.25, 0.5, 0, 0, 0.25, 0]


def test_actions_with_parameters_count_by_their_operator(episode: Callable[..., EpisodeResult]) -> None:
    figures = figures_of_result(episode(actions=((1, 2, 0), (4, 0, 1))))
    assert figures["action_frac/INJECT"] == figures["action_frac/SLEEP"] == 0.5


def test_means_are_means(episode: Callable[..., EpisodeResult]) -> None:
    means = means_of(
        [episode(score=0.2, edits_used=4, episode_return=1.0), episode(score=0.6, edits_used=8, episode_return=2.0)]
    )
    assert (means["score"], means["edits_used"], means["reward"], means["ep_length"]) == pytest.approx((0.4, 6, 1.5, 4))


def test_tensorboard_reads_everything_back(episode: Callable[..., EpisodeResult], tmp_path: Path) -> None:
    dashboard, card = Dashboard(tmp_path), load_card("SleepLLM-Mini-v0")
    dashboard.episode(figures_of_result(episode(score=0.25)), 7)
    dashboard.evaluation([episode(score=0.5), episode(score=1.0)], 3.5, step=8)
    dashboard.picture(np.zeros((4, 6, 3), np.uint8), 9)
    dashboard.card(card)
    dashboard.arguments({"gamma": 0.9, "out": tmp_path, "masked": True}, ("eval/mean_score",))
    dashboard.close()

    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("sleepgym/score")] == [(7, 0.25)]
    assert [(e.step, e.value) for e in events.Scalars("eval/mean_score")] == [(8, 0.75)]
    assert [(e.step, e.value) for e in events.Scalars("eval/seconds")] == [(8, 3.5)]
    image = events.Images("hypnogram")[0]
    assert (image.step, image.width, image.height) == (9, 6, 4)
    text = events.Tensors("card/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text) == card.model_dump(mode="json", exclude_none=True)
    assert [path.name.split(".")[0] for path in tmp_path.iterdir()] == ["events"], "hparams make no run of their own"

    raw = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = plugin_data_pb2.HParamsPluginData.FromString(raw).session_start_info.hparams
    # Torch writes truth values as numbers.
    assert (values["gamma"].number_value, values["masked"].number_value) == (0.9, 1)
    assert values["out"].string_value == str(tmp_path)

    content = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = layout_pb2.Layout.FromString(content)
    assert [category.title for category in layout.category] == list(LAYOUT)
