"""Policy card: metadata saved beside a policy, from which it can be loaded."""

from __future__ import annotations

import hashlib
import io
import json
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
from pydantic import BaseModel, ConfigDict, JsonValue, field_validator
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from sleepgym import files
from sleepgym.errors import SleepGymError
from sleepgym.reading import MAX_TEXT_BYTES, UnreadableError, read_model
from sleepgym.training.envs import EnvSpec

Algorithm = Literal["MaskablePPO", "PPO", "RecurrentPPO", "DQN"]
CLASSES: Mapping[Algorithm, type[BaseAlgorithm]] = {
    "MaskablePPO": MaskablePPO,
    "PPO": PPO,
    "RecurrentPPO": RecurrentPPO,
    "DQN": DQN,
}
"""Class of each algorithm, which saves and loads its policies."""


INNER = "card.json"
"""Name of a policy's card within the policy's archive."""


OF_A_RESUMED_RUN = (
    *("total_steps", "out", "resume", "device", "threads"),
    *("eval_every", "eval_episodes", "eval_seed", "patience", "save_every"),
)
"""Arguments of training scripts that a resumed run is given anew; all others are those of the run that it resumes."""


class PolicyError(SleepGymError, ValueError):
    """A policy cannot be loaded."""


class PolicyCard(BaseModel):
    """Policy card: how a policy was trained.

    Attributes:
        format: Version of the format.
        algorithm: Class of Stable-Baselines3 or sb3-contrib that loads the policy.
        env_id: Id of the training environment.
        card: Path of the card that replaced the id's own; empty for the id's own.
        flat: Whether observations are flat vectors.
        seed: Seed of the training run.
        steps: Environment steps of training.
        hours: Hours of training by the clock, validation included, and those before it was resumed; None if unknown.
        validation_score: Mean score over the validation streams; None without validation.
        simulated_score: Mean simulated score over streams of the sim; None for policies that did not train there.
        arguments: Arguments of the training script, by name.
        sha256: SHA-256 of the policy's file, in hexadecimal; empty for cards of earlier versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    algorithm: Algorithm
    env_id: str
    card: str = ""
    flat: bool = False
    seed: int
    steps: int
    hours: float | None = None
    validation_score: float | None = None
    simulated_score: float | None = None
    arguments: Mapping[str, JsonValue] = {}
    sha256: str = ""

    @field_validator("arguments", mode="before")
    @classmethod
    def _as_json(cls, arguments: Any) -> Any:
        """Converts paths and tuples to JSON types, so that a card equals itself after being written and read."""
        return json.loads(json.dumps(arguments, default=str))

    def about(self) -> str:
        """Returns a description as JSON, without arguments."""
        return self.model_dump_json(indent=1, exclude={"format", "arguments"}, exclude_none=True)

    def resuming(self, path: Path, names: Sequence[str]) -> PolicyCard:
        """The card of a run that resumes a policy: its seed, hours and arguments, and those that a run is given anew.

        Args:
            path: File of the resumed policy.
            names: Arguments to compare: those that are not in the policy file and affect learning.

        Raises:
            PolicyError: Algorithm, environment or one of the arguments differ, or the policy has no card.
        """
        before = PolicyCard.read(path)
        known = [name for name in names if name in before.arguments]
        now, then = (
            {
                "algorithm": card.algorithm,
                "env_id": card.env_id,
                "card": card.card,
                **{name: card.arguments.get(name) for name in known},
            }
            for card in (self, before)
        )
        if wrong := [name for name in then if then[name] != now[name]]:
            was, found = (", ".join(f"{name} {card[name]!r}" for name in wrong) for card in (then, now))
            raise PolicyError(f"expected {was} as {path} was trained with, found {found}; give the same to go on")
        new = {name: self.arguments[name] for name in OF_A_RESUMED_RUN if name in self.arguments}
        arguments = {**self.arguments, **before.arguments, **new}
        return self.model_copy(update={"seed": before.seed, "hours": before.hours, "arguments": arguments})

    @property
    def spec(self) -> EnvSpec:
        """Environment and observation format of the policy."""
        return EnvSpec(self.env_id, self.card, self.flat)

    def save(self, model: BaseAlgorithm, path: Path) -> None:
        """Writes a policy and its card, with the policy's SHA-256 in the card.

        Args:
            model: The policy.
            path: File of the policy, ending in ``.zip``; that of the card ends in ``.json``.

        Raises:
            OSError: A file cannot be written.
        """
        policy = io.BytesIO()
        # What hundreds of environments showed last is most of a file, and is seen anew where training goes on.
        model.save(policy, exclude=["_last_obs", "_last_original_obs", "_last_episode_starts"])
        # Each file is replaced at once. A run that is stopped between the two leaves a policy with the card of the one
        # before; the sum gives it away, and the policy has its own card within.
        with zipfile.ZipFile(policy, "a") as archive:
            archive.writestr(INNER, self.model_dump_json())
        digest = hashlib.sha256(policy.getvalue()).hexdigest()
        card = self.model_copy(update={"sha256": digest}).model_dump_json(indent=1) + "\n"
        files.write_all(path.parent, {path.name: policy.getvalue(), path.with_suffix(".json").name: card.encode()})

    def after(self, model: BaseAlgorithm) -> PolicyCard:
        """The card of a policy in training, with its steps and hours so far.

        Args:
            model: The policy; its training began where this card's hours end.
        """
        hours = (self.hours or 0.0) + (time.time_ns() - model.start_time) / 3.6e12
        return self.model_copy(update={"steps": model.num_timesteps, "hours": round(hours, 4)})

    def check(self, path: Path) -> None:
        """Checks that a policy's file is the one that this card was written with.

        Args:
            path: File of the policy.

        Raises:
            PolicyError: It is another one.
        """
        if self.sha256 and self.sha256 != (found := hashlib.sha256(path.read_bytes()).hexdigest()):
            raise PolicyError(
                f"expected a policy in {path} with the SHA-256 {self.sha256[:12]}... of its card, found "
                f"{found[:12]}...; bring both from one place, or go on from the other policy of the run"
            )

    @classmethod
    def read(cls, path: Path, inside: Path | None = None) -> PolicyCard:
        """Reads the card of a saved policy.

        If the card beside the policy is that of an earlier save of the same run, which was stopped before it had
        written the new one, the card within the policy is returned.

        Args:
            path: File of the policy.
            inside: Folder that the card must be in, also if it is a link; None for any.

        Raises:
            PolicyError: The card is missing or invalid, or is a link that leads out of the folder.
        """
        beside = path.with_suffix(".json")
        try:
            card = read_model(beside, cls, strict=False, inside=inside)
        except OSError as error:
            raise PolicyError(
                f"expected the policy card {beside} beside {path}, found {error.strerror}; "
                "the scripts in agents/ write one with each policy"
            ) from error
        except UnreadableError as error:
            raise PolicyError(
                f"expected a policy card in {beside}, found {error.found}; correct it, or train the policy again"
            ) from error
        return card._of_the_policy(path)

    def _of_the_policy(self, path: Path) -> PolicyCard:
        """This card, or the one within the policy if that is of another save of the same run."""
        if not self.sha256 or not path.is_file():
            return self
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found == self.sha256:
            return self
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo(INNER).file_size > MAX_TEXT_BYTES:
                    return self
                inner = PolicyCard.model_validate_json(archive.read(INNER), strict=False)
        except Exception:  # a damaged archive, or one of a version that put no card within
            return self
        same = (inner.algorithm, inner.seed, inner.spec) == (self.algorithm, self.seed, self.spec)
        return inner.model_copy(update={"sha256": found}) if same else self


def load_policy(
    path: Path | str, env: gym.Env[Any, Any] | Any = None, device: str = "cpu"
) -> tuple[BaseAlgorithm, PolicyCard]:
    """Loads a policy with its card.

    A policy file is code: Stable-Baselines3 unpickles parts of it, which can execute anything. Load only files from
    people that you trust.

    Args:
        path: File of the policy, ending in ``.zip``, with its card beside it.
        env: Environment to continue training in; None to evaluate only.
        device: Device of the policy's network.

    Raises:
        PolicyError: Policy or card are missing, the file is not the one of the card, or it is no policy of the card's
            algorithm.
    """
    path = Path(path)
    card = PolicyCard.read(path)
    if path.is_file():
        card.check(path)
    return read_policy(path, card.algorithm, env, device), card


def read_policy(path: Path, algorithm: Algorithm, env: Any = None, device: str = "cpu") -> BaseAlgorithm:
    """Loads a policy without reading a card; otherwise as :func:`load_policy`.

    Args:
        path: File of the policy.
        algorithm: Algorithm that it was trained with.
        env: Environment to continue training in; None to evaluate only.
        device: Device of the policy's network.

    Raises:
        PolicyError: The file is missing, or no policy of the algorithm.
    """
    if not path.is_file():
        raise PolicyError(f"expected a policy, found no file {path}; check the path")
    try:
        with warnings.catch_warnings():
            # Does not apply to a loaded DQN, whose buffer class was saved with its settings for n-step returns.
            ignored = "`n_steps=.*is ignored because a custom `replay_buffer_class`"
            warnings.filterwarnings("ignore", ignored, UserWarning)
            return CLASSES[algorithm].load(path, env=env, device=device)
    except Exception as error:  # unpickling may raise anything
        raise PolicyError(
            f"expected a policy of {algorithm} in {path}, found {type(error).__name__}: {error}; "
            "name the algorithm that it was trained with"
        ) from error
