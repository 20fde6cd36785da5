"""Folders of the repository, for tests that start other processes or read its pages."""

from pathlib import Path

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
ROOT = TESTS.parent
