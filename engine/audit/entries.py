"""The records of an evidence file, read from its bytes one after the other.

A file can be larger than memory: so nothing of one run of records is kept when the next is read.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from engine.audit import canonical
from engine.audit.disclosure import FIELD_SALT_BYTES, WITHHOLDABLE, Opening
from engine.audit.merkle import HASH_BYTES, SIZE_MAX
from engine.audit.pieces import Items, apart
from engine.audit.record import read_hex
from engine.audit.report import wrong

if TYPE_CHECKING:
    from hashlib import _Hash

_NODES_MAX = 4_096
"""How many hashes of proofs are remembered; neighbours in a log share all but a few."""
_NODE_CHARACTERS = len('["",') + 2 * HASH_BYTES - 1
"""Of a hash in a proof in JSON, with its quotation marks and the bracket or comma before it."""


_PROOF_CHARACTERS_MAX = SIZE_MAX.bit_length() * _NODE_CHARACTERS + len("]")
"""No proof has a node more than its tree has levels. What is longer is read in linear time."""


class Entry(msgspec.Struct, frozen=True):
    """A record in the file: its index in the log, its bytes, its inclusion proof; None in the tail.

    With `openings` the bytes are the record's committed form, of which these groups are shown.
    """

    index: int
    raw: bytes
    proof: tuple[bytes, ...] | None
    openings: Mapping[str, Opening] | None = None


class Entries:
    """The entries of one list of a file; each time they are asked for they are read again.

    Iterating raises `KeyError`, `TypeError` or `ValueError` at the first that is none.
    """

    def __init__(self, items: Items, *, proven: bool) -> None:
        """`proven` ones have a proof each."""
        self._items = items
        self._proven = proven

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Entry]:
        return self.read(sha256())

    def read(self, digest: "_Hash") -> Iterator[Entry]:
        """The same; the bytes that are read go into the digest."""
        nodes, count = Nodes(), 0
        for run in self._items.runs(digest):
            entries = _quickly(_read_run(run), nodes) if self._proven else None
            if entries is not None:
                count += len(entries)
                yield from entries
                continue
            for data in apart(run):
                try:
                    entry = self._one(data, nodes)
                except (KeyError, TypeError, ValueError) as error:
                    list_name = "records" if self._proven else "tail"
                    raise ValueError(f"{list_name}[{count}]: {wrong(error)}") from error
                count += 1
                yield entry
        self._items.check_count(count)

    def _one(self, data: bytes, nodes: "Nodes") -> Entry:
        read = _read_one(data) if self._proven else None
        entries = None if read is None else _quickly((read,), nodes)
        return _entry(data, nodes, proven=self._proven) if entries is None else entries[0]


class Nodes:
    """Hashes by their hexadecimal form, so that what proofs share is read once."""

    def __init__(self) -> None:
        self._known = _Known()
        self._node = self._known.__getitem__
        self._text = ""
        self._proof: tuple[bytes, ...] = ()

    def proof(self, items: Any) -> tuple[bytes, ...]:
        """A proof; raises `TypeError` or `ValueError` if it is none."""
        if type(items) is not list:
            raise TypeError("expected a list")
        if len(self._known) > _NODES_MAX:
            self._known.clear()
        return tuple(map(self._node, items))

    def read(self, text: str) -> tuple[bytes, ...] | None:
        """A proof by its canonical JSON; None: it is something else, or `proof` has to read it.

        Neighbours in a log have the same nodes above them. So this reads no further than to where
        the rest is, character for character, the rest of the proof that it read before.
        """
        if len(text) % _NODE_CHARACTERS != len("]") or len(text) > _PROOF_CHARACTERS_MAX:
            return None
        at, end, nodes = 0, len(text) - len("]"), []
        while at < end and not (at and self._text.endswith(text[at:])):
            try:
                node = bytes.fromhex(text[at + 2 : at + _NODE_CHARACTERS - 1])
            except ValueError:
                return None
            if text[at : at + _NODE_CHARACTERS] != f'{"," if at else "["}"{node.hex()}"':
                return None
            nodes.append(node)
            at += _NODE_CHARACTERS
        others = len(self._proof) - (end - at) // _NODE_CHARACTERS
        if text[end] != "]" or (at < end and not others):  # a bracket in the middle
            return None
        self._text, self._proof = text, (*nodes, *self._proof[others:])
        return self._proof


class _Known(dict[Any, bytes]):
    def __missing__(self, text: Any) -> bytes:
        node = self[text] = read_hex(text, HASH_BYTES)
        return node


class _Proven(msgspec.Struct, forbid_unknown_fields=True):
    """What nearly all entries are: whole, under the checkpoint.

    The proof stays JSON until `Nodes` has compared it with the one before.
    """

    index: canonical.Integer
    proof: msgspec.Raw
    record: str


_read_one = canonical.reader(_Proven)
_read_run = canonical.reader(list[_Proven])


def _quickly(proven: Iterable[_Proven] | None, nodes: Nodes) -> list[Entry] | None:
    """The entries that were read; None: one has no proof, or `_entry` has to read it."""
    if proven is None:
        return None
    entries = []
    for each in proven:
        proof = nodes.read(str(each.proof, "ascii"))
        if proof is None:
            return None
        entries.append(Entry(each.index, each.record.encode(), proof))
    return entries


def fields(value: Any, names: Collection[str]) -> dict[str, Any]:
    """An object of exactly these fields: one that nobody reads would be one that nobody checks.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ValueError(f"expected an object of: {' '.join(names)}")
    return value


def _entry(data: bytes, nodes: Nodes, *, proven: bool) -> Entry:
    item = canonical.decode_object(data)
    opened = ("openings",) if "openings" in item else ()
    fields(item, ("index", "record", *opened, *(("proof",) if proven else ())))
    if type(item["index"]) is not int:
        raise ValueError("an index is not an integer")
    if not isinstance(item["record"], str):
        raise TypeError("expected text")
    proof = nodes.proof(item["proof"]) if proven else None
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
