"""The benchmarks: our kernels and their rivals, each checked first, then timed in turn."""
