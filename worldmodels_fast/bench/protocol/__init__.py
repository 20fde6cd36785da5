"""How a benchmark measures: cases, checks against float64, processes, turns, the machine."""
