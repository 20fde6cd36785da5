"""Runs: recipes, the stages of a run, and the engine that runs and resumes them."""
