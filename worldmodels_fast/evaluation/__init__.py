"""Scores of players in the real game, and of the dream beside it."""
