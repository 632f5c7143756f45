"""What an episode looks like: ``picture`` (an image), ``text`` (for terminals) and ``window`` (for people).

Not imported with the environment, since matplotlib takes long to load and training never renders.
"""

from sleepgym.env.render.colours import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, YELLOW

__all__ = ["BLACK", "BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "SKY", "VERMILION", "YELLOW"]
