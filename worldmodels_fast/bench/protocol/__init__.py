"""The protocol of all benchmarks: cases, checks against float64, processes, turns, the machine."""
