"""``sleepgym play``: a person decides when the model writes, looks, mends and sleeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sleepgym.cli.views import one_line, shown
from sleepgym.facts.world import Split

if TYPE_CHECKING:
    from sleepgym.env.render.window import Window
    from sleepgym.env.sleep_env import SleepEnv

PLAYED, UNUSABLE = 0, 2


@dataclass(frozen=True)
class Args:
    """Choose the actions of an episode yourself; at its end, a rule plays the same stream beside you.

    Type the first letter of an action, or its name. The picture of the episode is shown in a window if there is a
    display, and written to a file if you name one. An example: `sleepgym play --seed 7 --picture episode.png`.
    """

    env_id: str = "SleepLLM-Mini-v0"
    """the environment to play"""
    seed: int = 0
    """seed of the stream"""
    split: Split = "validation"
    """split that facts are drawn from"""
    against: str = "pressure-rule"
    """scheduler that plays the same stream at the end; empty for none"""
    window: bool = True
    """whether the picture is shown in a window, where there is a display"""
    picture: Path | None = None
    """PNG file of the picture, written anew after each action"""
    record: Path | None = None
    """JSON file of the recording, as `sleepgym replay` reads it; also of an episode that you leave before its end"""

    def run(self) -> int:
        """Plays until the episode ends or its player leaves."""
        console = Console(highlight=False)
        from gymnasium.error import Error

        from sleepgym.errors import SleepGymError

        try:
            return self._play(console)
        except (SleepGymError, Error, ValueError, TypeError, OSError) as error:
            console.print(one_line(error), soft_wrap=True)
            return UNUSABLE

    def _play(self, console: Console) -> int:
        with console.status("loading"):
            import gymnasium as gym
            from transformers.utils import logging

            from sleepgym.env.sleep_env import SleepEnv
            from sleepgym.record import Recorder
            from sleepgym.schedulers import scheduler_named

            logging.disable_progress_bar()
            rule = scheduler_named(self.against) if self.against else None
            env: gym.Env[Any, Any] = gym.make(self.env_id, split=self.split)
            inner = env.unwrapped
            if not isinstance(inner, SleepEnv):
                raise ValueError(f"expected an environment with a model, found {self.env_id}; see `sleepgym envs`")
            recorder = Recorder(env)
            _, info = recorder.reset(seed=self.seed)
        beside = _Beside(inner, self.window, self.picture)
        over = False
        try:
            while not over:
                beside.show(console)
                action = _chosen(console, inner)
                if action is None:
                    break
                with console.status("the model is at it"):
                    _, reward, terminated, truncated, info = recorder.step(action)
                console.print(_came_of_it(float(reward), inner.error))
                over = terminated or truncated
            if over:
                beside.show(console)
        finally:
            beside.close()
        if self.record is not None:
            recorder.recording.save(self.record)
            console.print(shown(f"recorded in {self.record}"))
        results = {"you": info}
        if over and rule is not None:
            with console.status(f"{self.against} plays the same stream"):
                from sleepgym.evaluation import run_episode

                infos: list[Any] = []
                run_episode(env, rule, self.seed, infos.append)
                results[self.against] = infos[-1]
        console.print(_summary(results))
        return PLAYED


class _Beside:
    """What is shown of an episode: the text in the terminal, and the picture beside it."""

    def __init__(self, env: SleepEnv, window: bool, file: Path | None) -> None:
        self._env, self._file, self._open = env, file, window
        self._window: Window | None = None

    def show(self, console: Console) -> None:
        """Shows the present state."""
        from sleepgym.env.render.text import text

        console.print(Text.from_ansi(text(self._env.episode)))
        if not self._open and self._file is None:
            return
        from gymnasium.error import DependencyNotInstalled
        from matplotlib.image import imsave

        from sleepgym.env.render.picture import figure, to_array

        picture = to_array(figure(self._env.episode.history, self._env.card.horizon))
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            imsave(self._file, picture, format="png")
        if self._open:
            from sleepgym.env.render.window import Window

            try:
                self._window = self._window or Window(self._env.card_id, seconds=0.05)
                self._window.show(picture)
            except DependencyNotInstalled:
                self._open = False
                if self._file is None:
                    console.print("There is no display for the picture; --picture FILE writes it to a file.")

    def close(self) -> None:
        """Closes the window."""
        if self._window is not None:
            self._window.close()


def _chosen(console: Console, env: SleepEnv) -> Any | None:
    """The action that was typed; None if the player leaves."""
    mask = env.episode.mask()
    allowed = [action.name.lower() for action in env.card.operators if mask[action]]
    prompt = Text.assemble("action (", *_joined(allowed), "; quit): ")
    while True:
        try:
            line = console.input(prompt).strip()
        except EOFError:
            return None
        if line and "quit".startswith(line.lower()):
            return None
        try:
            return action_of(line, env)
        except ValueError as error:
            console.print(one_line(error), soft_wrap=True)


def _joined(names: list[str]) -> list[str | tuple[str, str]]:
    """Names with their first letters, which are enough, in bold."""
    parts: list[str | tuple[str, str]] = []
    for name in names:
        parts += [", "] * bool(parts) + [(name[0], "bold"), name[1:]]
    return parts


def action_of(line: str, env: SleepEnv) -> Any:
    """The action of a typed line.

    Args:
        line: The beginning of an action's name; on a card with parameters a number may follow, of facts to inject or
            refresh, or of ticks to sleep.
        env: The environment.

    Raises:
        ValueError: It is no action, one that is not allowed now, or no number that the card knows.
    """
    from sleepgym.episode.actions import Action, Operator

    word, _, number = line.partition(" ")
    mask = env.episode.mask()
    found = [action for action in env.card.operators if word and action.name.startswith(word.upper())]
    if len(found) != 1 or not mask[found[0]]:
        allowed = ", ".join(action.name.lower() for action in env.card.operators if mask[action])
        raise ValueError(f"expected one of {allowed}, found {line!r}")
    (action,) = found
    chosen = env.choices.usual(action)
    if not number:
        return chosen
    parameters = env.card.parameters
    places: dict[Operator, int] = {Action.INJECT: 1, Action.REFRESH: 1, Action.SLEEP: 2}
    if parameters is None or action not in places:
        raise ValueError(f"expected {word!r} without a number, found {line!r}")
    values = parameters.facts if places[action] == 1 else parameters.sleep
    if number.strip() not in map(str, values):
        raise ValueError(f"expected a number out of {', '.join(map(str, values))}, found {number!r}")
    chosen[places[action]] = list(map(str, values)).index(number.strip())
    return chosen


def _came_of_it(reward: float, error: str) -> Text:
    return shown(f"reward {reward:+.2f}" + (f"; {error}" if error else ""), "red" if error else "dim")


def _summary(results: dict[str, Any]) -> Table:
    """A column for each player."""
    out = Table("the same stream", *results)
    out.add_row("questions answered correctly", *(f"{info['score']:.1%}" for info in results.values()))
    out.add_row("facts recalled at the end", *(f"{info['recall']:.1%}" for info in results.values()))
    out.add_row("edits spent", *(str(info["edits_used"]) for info in results.values()))
    out.add_row("nights, naps", *(f"{info['sleeps']}, {info['naps']}" for info in results.values()))
    out.add_row("ticks", *(str(info["tick"]) for info in results.values()))
    return out
