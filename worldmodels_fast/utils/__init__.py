"""Files, seeds, worker processes, progress, memory: what every folder below may use."""
