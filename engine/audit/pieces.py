"""A document with two long lists, read piece by piece: it can be larger than memory.

An evidence file is one JSON object of which `records` and `tail` are nearly everything. Their items
are objects that begin with the key `index`, so `},{"index":` parts them: within a string its
quotation marks would be escaped, and what is parted anywhere else is no JSON. Everything around the
two lists is decoded at once, and it is checked that they stand where a canonical document has them.

What is read is hashed as it is read, so what was signed is what was looked at, even if somebody
writes to the file meanwhile.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from engine.audit import canonical

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["AROUND_BYTES_MAX", "Items", "Pieces", "Source", "apart", "cuts", "find"]

AROUND_BYTES_MAX = 1 << 30
"""The most bytes of a document that are outside its two lists."""
ITEM_BYTES_MAX = 1 << 24

_CHUNK_BYTES = 1 << 17
"""What is read at once. More would not stay in the processor's cache while it is looked at."""
_PARTED = b'},{"index":'


class Source(Protocol):
    """The bytes of a file, in memory or not; what is gone when it is asked for is left out."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, part: slice, /) -> bytes:
        """A part of them."""


class Items:
    """The items of a list by the bytes between its brackets, which are read again each time."""

    def __init__(self, source: Source, begin: int, end: int) -> None:
        self._source = source
        self._begin = begin
        self._end = end
        self._count: int | None = None

    def __len__(self) -> int:
        """How many were read; before they were, how many it seems that there are."""
        if self._count is not None:
            return self._count
        places = _places(self._begin, self._end)
        parted = sum(_part(self._source, at, self._end).count(_PARTED) for at in places)
        return parted + (self._begin < self._end)

    def read(self, digest: "_Hash") -> Iterator[bytes]:
        """The items one by one, still JSON; whatever is read goes into the digest.

        Raises:
            ValueError: one is too long, or there are more or fewer than there were.
        """
        found = 0
        for run in self.runs(digest):
            for item in apart(run):
                found += 1
                yield item
        self.check_count(found)

    def runs(self, digest: "_Hash") -> Iterator[bytes]:
        """The items in runs of many, each a list in JSON if they are JSON; `apart` parts it.

        Whatever is read goes into the digest.

        Raises:
            ValueError: one is too long.
        """
        rest = b""
        for at in range(self._begin, self._end, _CHUNK_BYTES):
            chunk = self._source[at : min(at + _CHUNK_BYTES, self._end)]
            digest.update(chunk)
            searched = max(0, len(rest) - len(_PARTED))
            rest += chunk
            last = rest.rfind(_PARTED, searched)
            if last >= 0:
                yield b"[%b}]" % rest[:last]
                rest = rest[last + len("},") :]
            if len(rest) > ITEM_BYTES_MAX:
                raise ValueError("an item is too long")
        if rest:
            yield b"[%b]" % rest

    def check_count(self, found: int) -> None:
        """So many items were read.

        Raises:
            ValueError: there are more or fewer than there were.
        """
        if self._count is None:
            self._count = found
        if found != self._count:
            raise ValueError("the file was changed while it was read")


class Pieces:
    """A document and a newline in pieces: `head`, the items of `records`, `middle`, those of
    `tail`, `end`. `document` is what it says with both lists empty.
    """

    def __init__(self, source: Source, places: tuple[int, int, int, int]) -> None:
        """Take it apart at these places: after `"records":[`, before `]`, and the same of `tail`.

        Raises:
            CanonicalError: what is outside the lists is too long or not canonical, or the lists do
                not stand there.
        """
        begin, end, tail_begin, tail_end = places
        if len(source) - (end - begin) - (tail_end - tail_begin) > AROUND_BYTES_MAX:
            raise canonical.CanonicalError("too long")
        self.head = source[:begin]
        self.middle = source[end:tail_begin]
        self.end = source[tail_end : len(source) - 1]
        self.document = canonical.decode_object(self.head + self.middle + self.end)
        found = [self._place("records"), self._place("tail")]
        if found != [len(self.head), len(self.head) + len(self.middle)]:
            raise canonical.CanonicalError("its lists are not where they should be")
        self.records = Items(source, begin, end)
        self.tail = Items(source, tail_begin, tail_end)

    def _place(self, name: str) -> int:
        """Where the canonical form of the document has the empty list of this name; -1: nowhere."""
        if self.document.get(name) != []:
            return -1
        before = {key: self.document[key] for key in self.document if key <= name}
        return len(canonical.encode(before)) - len("]}")


def apart(run: bytes) -> Iterator[bytes]:
    """The items of a run one by one, still JSON."""
    item, *others = run[1:-1].split(_PARTED)
    for other in others:
        yield item + b"}"
        item = b'{"index":%b' % other
    yield item


def cuts(source: Source, landmarks: Sequence[bytes]) -> tuple[int, int, int, int] | None:
    """The places where these stand, each after the one before: the ends of the first and the third,
    the beginnings of the others. None: there is one that does not.

    The first is looked for from the beginning and the others from the end, since what is between
    the first two is nearly everything.
    """
    opening, *others = landmarks
    begin = find(source, opening)
    if begin < 0:
        return None
    begin += len(opening)
    found, before = [begin], len(source)
    for landmark in reversed(others):
        before = _find_last(source, landmark, begin, before)
        if before < 0:
            return None
        found.insert(1, before)
    first, second, third, fourth = found
    return first, second, third + len(landmarks[2]), fourth


def find(source: Source, sought: bytes) -> int:
    """The first place where something stands; -1: nowhere."""
    return _looked_for(bytes.find, source, sought, _places(0, len(source)), len(source))


def _find_last(source: Source, sought: bytes, begin: int, end: int) -> int:
    """The last place between these two where something stands whole; -1: nowhere."""
    return _looked_for(bytes.rfind, source, sought, reversed(_places(begin, end)), end)


def _looked_for(
    look: Callable[[bytes, bytes], int],
    source: Source,
    sought: bytes,
    places: Iterable[int],
    end: int,
) -> int:
    for at in places:
        place = look(_part(source, at, end, len(sought) - 1), sought)
        if place >= 0:
            return at + place
    return -1


def _places(begin: int, end: int) -> range:
    """Where the parts begin in which somebody looks for something."""
    return range(begin, end, _CHUNK_BYTES)


def _part(source: Source, at: int, end: int, more: int = len(_PARTED) - 1) -> bytes:
    """One of them, with so many of the next that what is sought is whole in exactly one."""
    return source[at : min(at + _CHUNK_BYTES + more, end)]
