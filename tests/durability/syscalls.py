"""What a real server did to its files and said to its callers, as strace saw it (strace(1)).

A call that no other interleaves stands on one line of the trace; otherwise its beginning and its
end stand on lines of their own. So the order of the lines is the order in which calls of different
threads began and ended, which is what has to be known: a write counts from its beginning on, an
fsync only once it has ended, and an answer is given when its sending begins.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PATIENCE_S = 30
CALLS = (
    *("openat", "creat", "pwrite64", "pwritev", "pwritev2", "write", "writev"),
    *("fdatasync", "fsync", "sync_file_range", "ftruncate", "truncate", "fallocate"),
    *("unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir", "rmdir", "link", "linkat"),
    *("sendto", "sendmsg"),
)

_LINE = re.compile(rb"(\d+) +(.*)")
_CALL = re.compile(rb"(\w+)\((.*)")
_RESUMED = re.compile(rb"<\.\.\. (\w+) resumed>(.*)")
_NUMBER = re.compile(rb"-?\d+")
_FD = re.compile(rb"^(\d+)<((?:\\x[0-9a-f]{2})*)>")
_TEXT = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: to the file `path`, or a piece of an answer that was sent.

    A sync makes sure of what was written before it began. `data` was written at `offset` (-1: at
    the end), or was sent; a truncation has the new size as its `offset`, a rename the new name in
    `data`.
    """

    what: Literal["make", "write", "cut", "syncing", "sync", "unlink", "rename", "send"]
    path: str
    offset: int = 0
    data: bytes = b""


def command(trace: Path) -> Sequence[str | Path]:
    """What runs a command so that it is traced. The process is the command's own, not strace's."""
    flags = ("-D", "-f", "-y", "-xx", "--seccomp-bpf", "-s", "9999999", "-e", "signal=none")
    return ("strace", *flags, "-e", "trace=" + ",".join(CALLS), "-o", trace)


def ended(trace: Path) -> None:
    """Wait until strace has written all there is."""
    deadline = time.monotonic() + PATIENCE_S
    while b"+++" not in trace.read_bytes()[-200:]:
        assert time.monotonic() < deadline, "strace has not ended"
        time.sleep(0.02)


def read_trace(trace: Path, directory: Path) -> Iterator[Event]:
    """What happened to the files of `directory`, and what was sent, in order.

    Raises:
        ValueError: something was done to them that is not understood here.
    """
    begun: dict[bytes, bytes] = {}
    root = f"{directory}/"
    with trace.open("rb") as lines:
        for line in lines:
            match = _LINE.match(line)
            assert match is not None, line[:100]
            pid, rest = match.groups()
            if resumed := _RESUMED.match(rest):
                yield from _events(resumed[1], begun.pop(pid) + resumed[2], "ended", root)
            elif (called := _CALL.match(rest)) is None:
                continue  # the end of a thread
            elif rest.endswith(b"<unfinished ...>"):
                begun[pid] = called[2].removesuffix(b"<unfinished ...>")
                yield from _events(called[1], begun[pid], "begun", root)
            else:
                yield from _events(called[1], called[2], "whole", root)


def _events(call: bytes, arguments: bytes, part: str, root: str) -> Iterator[Event]:
    """The events of a call that has `begun`, has `ended` later, or was seen `whole`."""
    name, path = call.decode(), _path(arguments)
    if name.startswith("send"):
        if part != "ended":
            yield Event("send", path, data=b"".join(map(_bytes, _TEXT.findall(arguments))))
    elif name in ("openat", "unlink", "rename", "mkdir"):
        if part != "begun":
            yield from _of_a_name(name, arguments, root)
    elif f"{path}/".startswith(root):
        path = path[len(root) :] or "."
        if name in ("fdatasync", "fsync"):
            if part != "ended":
                yield Event("syncing", path)
            if part != "begun" and _returned(arguments) == 0:
                yield Event("sync", path)
        elif part != "ended":
            yield _of_content(name, path, arguments)


def _of_content(name: str, path: str, arguments: bytes) -> Event:
    last = arguments.rsplit(b", ", 1)[1].split(b")")[0]
    if name in ("pwrite64", "write"):
        [text] = _TEXT.findall(arguments)
        return Event("write", path, -1 if name == "write" else int(last), _bytes(text))
    if name == "ftruncate":
        return Event("cut", path, int(last))
    raise ValueError(f"{name} of {path}")


def _of_a_name(name: str, arguments: bytes, root: str) -> Iterator[Event]:
    texts = [_bytes(text).decode() for text in _TEXT.findall(arguments)]
    if not texts[0].startswith(root) or _returned(arguments) < 0:
        return
    path = texts[0].removeprefix(root)
    if name == "openat":
        if b"O_CREAT" in arguments:
            yield Event("make", path)
    elif name == "rename":
        yield Event("rename", path, data=texts[1].removeprefix(root).encode())
    elif name == "unlink":
        yield Event("unlink", path)
    else:
        raise ValueError(f"{name} of {texts}")


def _path(arguments: bytes) -> str:
    found = _FD.match(arguments)
    return "" if found is None else _bytes(found[2]).decode(errors="replace")


def _bytes(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(rb"\x", b"").decode())


def _returned(arguments: bytes) -> int:
    found = _NUMBER.match(arguments.rpartition(b"= ")[2])
    return int(found[0]) if found else -1
