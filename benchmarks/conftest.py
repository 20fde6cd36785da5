"""Fixtures of the benchmarks."""

import pytest
import torch


@pytest.fixture
def rival_threads(monkeypatch):
    """A function that gives every rival so many threads, for one test."""
    before = torch.get_num_threads()

    def set_threads(threads):
        torch.set_num_threads(threads)
        monkeypatch.setenv("NPROC", str(threads))  # see bench.processes; JAX reads it once

    yield set_threads
    torch.set_num_threads(before)
