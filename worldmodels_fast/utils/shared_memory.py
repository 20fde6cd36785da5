"""Memory without a name: it is gone with the last process that has it, however they end."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from typing import BinaryIO, cast

__all__ = ["SharedMemory", "unnamed_file"]


def unnamed_file() -> BinaryIO:
    """Return a new file without a name, open for reading and writing; in memory on Linux."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("worldmodels_fast"), "w+b")
    return cast(BinaryIO, tempfile.TemporaryFile())


class SharedMemory:
    """Bytes, zeros at first, that worker processes share with the one that starts them.

    Args:
        nbytes: their number.

    Attributes:
        fd: the file descriptor, to be passed to `WorkerProcess.start`.
        buffer: the bytes.
    """

    def __init__(self, nbytes: int) -> None:
        with unnamed_file() as file:
            os.ftruncate(file.fileno(), nbytes)
            self.buffer = mmap.mmap(file.fileno(), nbytes)
            self.fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.fd)

    @staticmethod
    def open(fd: int) -> mmap.mmap:
        """Return the bytes in a worker, where the file descriptor has the same number."""
        try:
            return mmap.mmap(fd, 0)
        finally:
            os.close(fd)
