"""Rendering of episodes: ``picture`` (RGB images), ``text`` (for terminals) and ``window`` (on screen).

Not imported with the environment, since matplotlib takes long to load and training never renders.
"""

from sleepgym.env.render.colours import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, YELLOW

__all__ = ["BLACK", "BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "SKY", "VERMILION", "YELLOW"]
