"""Facts, the world that the bundled model knows, and loaders of knowledge-editing data sets."""

from sleepgym.facts.datasets import FactSet, Malformed, load_facts
from sleepgym.facts.fact import Fact, FactError
from sleepgym.facts.world import World, chat_turn

__all__ = ["Fact", "FactError", "FactSet", "Malformed", "World", "chat_turn", "load_facts"]
