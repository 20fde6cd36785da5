"""Training of V and M by torch, with checkpoints."""
