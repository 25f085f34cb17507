"""A file that is read where it is asked for, so that it can be larger than memory."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.audit.pieces import Source

__all__ = ["StoredFile", "open_file"]


class StoredFile:
    """The bytes of a regular file as they are when they are asked for; see `pieces.Source`."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is of an open file, which stays the caller's to close."""
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        begin, end, step = part.indices(self._size)
        assert step == 1
        found = bytearray()
        while begin + len(found) < end:
            more = os.pread(self._descriptor, end - begin - len(found), begin + len(found))
            if not more:  # it was cut short since it was opened
                break
            found += more
        return bytes(found)


@contextmanager
def open_file(path: Path) -> Iterator[Source]:
    """The bytes of a file; those of a pipe or a device are read at once.

    Raises:
        OSError: it cannot be opened or read.
    """
    with path.open("rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield StoredFile(file.fileno())
        else:
            yield file.read()
