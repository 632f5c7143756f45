"""Facts, and the world that the bundled model knows."""

from sleepgym.facts.fact import Fact, FactError
from sleepgym.facts.world import World, chat_turn

__all__ = ["Fact", "FactError", "World", "chat_turn"]
