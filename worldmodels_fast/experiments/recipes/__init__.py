"""Recipes: functions that return the whole configuration of a run, one module per game."""
