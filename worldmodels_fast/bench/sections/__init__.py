"""Sections of the benchmark: whole dreams, single ops, growth, limits, CUDA."""
