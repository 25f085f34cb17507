"""A disk that has promised nothing but what was synced: what a power cut can leave on it.

The rules are those of POSIX, fsync(2), and no kinder: what was written to a file since its last
sync may be there or not, in any part of 512 bytes and in any order; a file's name may be there or
not until its directory was synced.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.durability.syscalls import Event

SECTOR_BYTES = 512

Cut = Literal["nothing", "subset", "torn", "everything"]
"""What is kept of that which was not synced; "everything" is what a killed process leaves."""
CUTS: tuple[Cut, ...] = ("nothing", "subset", "torn", "everything")


@dataclass(eq=False)
class Inode:
    """A file, whatever it is called: what is surely on the disk, and what was asked for since."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)
    syncing: int = 0
    """So much of what is pending was asked for before the sync that goes on now."""
    size: int = 0

    def image(self, cut: Cut, draw: random.Random) -> bytes:
        """What of it is found after a power cut."""
        content = bytearray(self.synced)
        for event in self.pending:
            if cut == "everything" or (cut != "nothing" and (cut == "torn" or draw.random() < 0.5)):
                _apply(content, event, draw if cut == "torn" else None)
        return bytes(content)

    def write(self, event: Event) -> None:
        """Ask for a write or a truncation."""
        if event.offset < 0:  # behind the last one
            event = Event("write", event.path, self.size, event.data)
        end = event.offset + len(event.data)
        self.size = end if event.what == "cut" else max(self.size, end)
        self.pending.append(event)

    def sync(self) -> None:
        """What was asked for before this sync began is surely there."""
        for event in self.pending[: self.syncing]:
            _apply(self.synced, event)
        del self.pending[: self.syncing]
        self.syncing = 0


class Disk:
    """A directory; the files whose names end in one of `ignored` are left out."""

    def __init__(self, ignored: tuple[str, ...] = ("-shm", "lock")) -> None:
        self._ignored = ignored
        self.names: dict[str, Inode] = {}
        self._synced: dict[str, Inode] = {}

    def happened(self, event: Event) -> bool:
        """Take part in what happened; returns whether it concerned a file here."""
        if event.what == "send" or event.path.endswith(self._ignored):
            return False
        if event.path == ".":
            self._synced = dict(self.names) if event.what == "sync" else self._synced
            return True
        if event.what == "make":
            self.names.setdefault(event.path, Inode())
        elif event.what == "unlink":
            del self.names[event.path]
        elif event.what == "rename":
            self.names[event.data.decode()] = self.names.pop(event.path)
        elif event.what == "syncing":
            inode = self.names[event.path]
            inode.syncing = len(inode.pending)
        elif event.what == "sync":
            self.names[event.path].sync()
        else:
            self.names[event.path].write(event)
        return True

    def image(self, cut: Cut, draw: random.Random) -> Mapping[str, bytes]:
        """The files that are found after a power cut at this moment."""
        if cut == "nothing":
            names = self._synced
        elif cut == "everything":
            names = self.names
        else:
            names = {
                name: inode
                for name in sorted(self.names.keys() | self._synced.keys())
                if (inode := draw.choice((self.names, self._synced)).get(name)) is not None
            }
        return {name: inode.image(cut, draw) for name, inode in names.items()}


def _apply(content: bytearray, event: Event, torn: random.Random | None = None) -> None:
    """Do to `content` what was asked for; when `torn`, only to half of the sectors."""
    if event.what == "cut":
        if torn is None or torn.random() < 0.5:
            content[event.offset :] = bytes(max(0, event.offset - len(content)))
        return
    end = event.offset + len(event.data)
    position = event.offset
    while position < end:
        until = end
        if torn is not None:
            until = min(end, (position // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if torn is None or torn.random() < 0.5:
            if len(content) < position:
                content.extend(bytes(position - len(content)))
            content[position:until] = event.data[position - event.offset : until - event.offset]
        position = until
