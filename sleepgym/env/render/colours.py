"""Colour-blind safe palette, and the colours of a fact's status."""

from sleepgym.episode.history import Standing

# Okabe and Ito's.
BLACK, ORANGE, SKY, GREEN, YELLOW = "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"

WINE = "#882255"
"""Paul Tol's wine: in cells of few pixels, Okabe and Ito's purple is hard to distinguish from their sky blue."""

STANDINGS = {
    Standing.RIGHT: (SKY, "recalled"),
    Standing.WRONG: (VERMILION, "forgotten"),
    Standing.OUTDATED: (WINE, "outdated"),
    Standing.WAITING: (YELLOW, "waiting"),
    Standing.LOST: (BLACK, "lost"),
}
"""Colour and name of each standing."""
