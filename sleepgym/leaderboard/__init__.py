"""The leaderboard: players by name, the streams that all of them play, and what is handed in."""

from sleepgym.leaderboard.players import Player, PlayerNameError, player_named
from sleepgym.leaderboard.playing import Played, frozen_seeds, play
from sleepgym.leaderboard.submission import Submission

__all__ = ["Played", "Player", "PlayerNameError", "Submission", "frozen_seeds", "play", "player_named"]
