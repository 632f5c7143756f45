"""The leaderboard: players by name, the streams that all of them play, and what is handed in."""
