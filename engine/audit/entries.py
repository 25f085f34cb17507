"""The records of an evidence file, read from its bytes one after the other.

A file can be a gigabyte, and what is made of it here some times that: so nothing of one record is
kept when the next is read.
"""

from binascii import hexlify, unhexlify
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from engine.audit import canonical
from engine.audit.disclosure import FIELD_SALT_BYTES, WITHHOLDABLE, Opening
from engine.audit.merkle import HASH_BYTES
from engine.audit.record import read_hex

_STEP = 2 * HASH_BYTES + len('"",')
"""From one hash to the next in the JSON of a proof."""


class Entry(msgspec.Struct, frozen=True):
    """A record in the file: its index in the log, its bytes, its inclusion proof.

    With `openings` the bytes are the record's committed form, of which these groups are shown.
    """

    index: int
    raw: bytes
    proof: tuple[bytes, ...]
    openings: Mapping[str, Opening] | None = None


class Entries:
    """The entries of one list of a file; each time they are asked for they are read again.

    Iterating raises `KeyError`, `TypeError` or `ValueError` at the first that is none.
    """

    def __init__(self, items: Sequence[Any], *, proven: bool) -> None:
        """`items` are still JSON (`canonical.decode_apart`); `proven` ones have a proof each."""
        self._items = items
        self._proven = proven

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Entry]:
        proofs, proven = Proofs(), self._proven
        for item in self._items:
            data = bytes(item)
            read = _read_proven(data) if proven else None
            proof = None if read is None else proofs.read_quickly(bytes(read.proof))
            if read is None or proof is None:
                yield _entry(data, proven=proven)
            else:
                yield Entry(read.index, read.record.encode(), proof)


def read_proof(items: Any) -> tuple[bytes, ...]:
    """A proof that is decoded already; raises `TypeError` or `ValueError` if it is none."""
    if type(items) is not list:
        raise TypeError("expected a list")
    return tuple(read_hex(item, HASH_BYTES) for item in items)


class Proofs:
    """Reads proofs from their JSON. Neighbours in a log share the ends of theirs: read once."""

    def __init__(self) -> None:
        self._last_text = b""
        self._last: tuple[bytes, ...] = ()

    def read_quickly(self, text: bytes) -> tuple[bytes, ...] | None:
        """A proof from its canonical JSON. None says nothing of it: it is to be decoded first."""
        count, rest = divmod(len(text) - 1, _STEP)
        if rest or not count:
            return None
        new = 1
        while new < count and not self._last_text.endswith(text[new * _STEP :]):
            new += 1
        begin = [text[at : at + 2 * HASH_BYTES] for at in range(2, new * _STEP, _STEP)]
        if not text.startswith(b'["' + b'","'.join(begin) + (b'",' if new < count else b'"]')):
            return None
        try:
            hashes = list(map(unhexlify, begin))
        except ValueError:
            return None
        if list(map(hexlify, hashes)) != begin:  # upper case
            return None
        self._last_text = text
        self._last = (*hashes, *self._last[len(self._last) - (count - new) :])
        return self._last


class _Proven(msgspec.Struct, forbid_unknown_fields=True):
    """What nearly all entries are: whole, under the checkpoint."""

    index: canonical.Integer
    proof: msgspec.Raw
    record: str


_read_proven = canonical.reader(_Proven)


def fields(value: Any, names: Collection[str]) -> dict[str, Any]:
    """An object of exactly these fields: one that nobody reads would be one that nobody checks.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ValueError(f"expected an object of: {' '.join(names)}")
    return value


def _entry(data: bytes, *, proven: bool) -> Entry:
    item = canonical.decode_object(data)
    opened = ("openings",) if "openings" in item else ()
    fields(item, ("index", "record", *opened, *(("proof",) if proven else ())))
    if type(item["index"]) is not int:
        raise ValueError("an index is not an integer")
    if not isinstance(item["record"], str):
        raise TypeError("expected text")
    proof = read_proof(item["proof"]) if proven else ()
    openings = _openings(item["openings"]) if opened else None
    return Entry(item["index"], item["record"].encode(), proof, openings)


def _openings(item: Any) -> dict[str, Opening]:
    if not isinstance(item, dict) or not item.keys() <= set(WITHHOLDABLE):
        raise ValueError("what is opened is not what can be withheld")
    for opening in item.values():
        fields(opening, ("salt", "value"))
        if not isinstance(opening["value"], dict):
            raise TypeError("an opening has no value")
    return {
        name: Opening(read_hex(opening["salt"], FIELD_SALT_BYTES), opening["value"])
        for name, opening in item.items()
    }
