"""Arguments, files, seeds, worker processes, progress, memory: for every folder below."""
