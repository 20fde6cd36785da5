"""Pages, model cards, plots, pictures and videos of a run."""
