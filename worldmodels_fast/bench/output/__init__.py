"""Tables and figures of benchmark results."""
