"""The real game for many controllers at once, in worker processes."""
