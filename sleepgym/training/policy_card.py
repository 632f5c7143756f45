"""PolicyCard: what lies beside a saved policy, so that it can be loaded without remembering how it was made."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, field_validator
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from sleepgym import files
from sleepgym.errors import SleepGymError
from sleepgym.training.envs import EnvSpec

Algorithm = Literal["MaskablePPO", "PPO", "RecurrentPPO", "DQN"]
CLASSES: Mapping[Algorithm, type[BaseAlgorithm]] = {
    "MaskablePPO": MaskablePPO,
    "PPO": PPO,
    "RecurrentPPO": RecurrentPPO,
    "DQN": DQN,
}
"""What saves and loads the policies of each algorithm."""


class PolicyError(SleepGymError, ValueError):
    """A policy cannot be loaded."""


class PolicyCard(BaseModel):
    """How a policy came about.

    Attributes:
        format: Of this file.
        algorithm: Class of Stable-Baselines3 or sb3-contrib that loads it.
        env_id: What it was trained on.
        card: Path of the card that it was trained on; empty for the id's own.
        flat: Whether it reads observations as one vector.
        seed: Of its training.
        steps: Steps it was trained for.
        validation_score: Mean score over the validation streams, if it was validated.
        arguments: Of the script that trained it, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    algorithm: Algorithm
    env_id: str
    card: str = ""
    flat: bool = False
    seed: int
    steps: int
    validation_score: float | None = None
    arguments: Mapping[str, JsonValue] = {}

    @field_validator("arguments", mode="before")
    @classmethod
    def _as_json(cls, arguments: Mapping[str, Any]) -> Any:
        """Paths and tuples as JSON has them, so that a card that was read equals the one that was written."""
        return json.loads(json.dumps(dict(arguments), default=str))

    def about(self) -> str:
        """What a reader wants to know, as JSON; arguments are shown elsewhere."""
        return self.model_dump_json(indent=1, exclude={"format", "arguments"}, exclude_none=True)

    def check_resumed(self, path: Path, names: Sequence[str]) -> None:
        """Checks that a run goes on with what the policy that it resumes was trained for.

        Args:
            path: Of the policy that is resumed.
            names: Arguments that a policy file does not hold, and that make what is learned another thing.

        Raises:
            PolicyError: Algorithm, environment or one of the arguments differ; or there is no card.
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

    @property
    def spec(self) -> EnvSpec:
        """The environment as the policy sees it."""
        return EnvSpec(self.env_id, self.card, self.flat)

    def save(self, model: BaseAlgorithm, path: Path) -> None:
        """Writes a policy and its card: ``path`` ends in ``.zip``, and the card in ``.json``.

        Args:
            model: The policy.
            path: Where to.
        """
        policy = io.BytesIO()
        model.save(policy)
        card = self.model_dump_json(indent=1) + "\n"
        # The file of the best policy so far is never half written: a run may be stopped at any moment.
        files.write_all(path.parent, {path.name: policy.getvalue(), path.with_suffix(".json").name: card.encode()})

    @classmethod
    def read(cls, path: Path) -> PolicyCard:
        """The card of a saved policy.

        Args:
            path: Of the policy.

        Raises:
            PolicyError: There is no card beside it, or it has a mistake.
        """
        beside = path.with_suffix(".json")
        try:
            return cls.model_validate_json(beside.read_bytes())
        except OSError as error:
            raise PolicyError(
                f"expected the policy card {beside} beside {path}, found {error.strerror}; "
                "the scripts in agents/ write one with each policy"
            ) from error
        except ValidationError as error:
            raise PolicyError(f"expected a policy card in {beside}, found {files.first_mistake(error)}") from error


def load_policy(
    path: Path, env: gym.Env[Any, Any] | Any = None, device: str = "cpu"
) -> tuple[BaseAlgorithm, PolicyCard]:
    """Loads a policy that a script in agents/ saved.

    A policy file is code: Stable-Baselines3 unpickles parts of it, and what is unpickled can do anything. Load only
    files that you or people you trust have made.

    Args:
        path: Of the policy, ending in ``.zip``; its card lies beside it.
        env: What it shall go on learning in, if it shall.
        device: Where its network is to be.

    Raises:
        PolicyError: Policy or card are missing, or the file is no policy of the card's algorithm.
    """
    card = PolicyCard.read(path)
    return read_policy(path, card.algorithm, env, device), card


def read_policy(path: Path, algorithm: Algorithm, env: Any = None, device: str = "cpu") -> BaseAlgorithm:
    """Loads a policy without a card; otherwise as :func:`load_policy`.

    Raises:
        PolicyError: The file is missing, or no policy of the algorithm.
    """
    if not path.is_file():
        raise PolicyError(f"expected a policy, found no file {path}; check the path")
    try:
        with warnings.catch_warnings():
            # Untrue of a loaded DQN: its buffer was saved with the settings for returns over several steps.
            ignored = "`n_steps=.*is ignored because a custom `replay_buffer_class`"
            warnings.filterwarnings("ignore", ignored, UserWarning)
            return CLASSES[algorithm].load(path, env=env, device=device)
    except Exception as error:  # What is unpickled may raise anything.
        raise PolicyError(
            f"expected a policy of {algorithm} in {path}, found {type(error).__name__}: {error}; "
            "name the algorithm that it was trained with"
        ) from error
