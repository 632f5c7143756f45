"""Leaderboard: players by name, evaluation on the fixed test streams, and submissions."""

from sleepgym.leaderboard.players import Player, PlayerNameError, player_named
from sleepgym.leaderboard.playing import Played, frozen_seeds, play
from sleepgym.leaderboard.submission import Submission

__all__ = ["Played", "Player", "PlayerNameError", "Submission", "frozen_seeds", "play", "player_named"]
