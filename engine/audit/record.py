"""A record: one entry of the audit log, and the bytes of it that are hashed.

Every record belongs to a stream (a session, or a workspace for what is about no session), counts
up in it and names the hash of the one before: each session has a chain of its own inside the log.

A record is kept whole, with its private salt. What the tree's leaf is made of (RFC 6962) is its
committed form: commitments stand in the place of the groups that can be withheld from who is shown
the record (`engine.audit.disclosure`), and the salt, from which theirs come, is left out. Of a
record in which nothing can be withheld the committed form is the record itself. Either way a salt
keeps the neighbouring hashes in a proof from being guessed.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from engine.audit import canonical
from engine.audit.decided import Decided
from engine.audit.disclosure import (
    FIELD_SALT_BYTES,
    GROUPS,
    Fields,
    Opening,
    check_absent,
    commitment,
    field_salt,
    join,
    members,
    split,
)
from engine.audit.merkle import HASH_BYTES, leaf_hash
from engine.audit.report import shown, wrong

FORMAT = "tallystick.record/2"
SALT_BYTES = 16
Body = Mapping[str, Any] | Decided
"""What a new record tells."""
_COMMON = ("body", "kind", "log", "prev", "seq", "stream", "time_ms", "v", "workspace")
_WHOLE = frozenset((*_COMMON, "salt"))
_COMMITTED = frozenset((*_COMMON, "commitments"))


class Head(msgspec.Struct, frozen=True):
    """The end of a stream: the next number to use and the hash of the last record."""

    seq: int = 0
    prev: bytes | None = None


class _Kind(msgspec.Struct):
    kind: str


_KIND = msgspec.json.Decoder(_Kind)
_decode = msgspec.json.decode


class _Written(msgspec.Struct):
    """A record on its way to its bytes, whole or in committed form."""

    body: Any
    kind: str
    log: str
    prev: str | None
    seq: int
    stream: str
    time_ms: int
    workspace: str
    v: str = FORMAT
    salt: str | msgspec.UnsetType = UNSET
    commitments: Mapping[str, str] | msgspec.UnsetType = UNSET


class _WholeRecord(msgspec.Struct, forbid_unknown_fields=True):
    """What nearly all records are that are read: shown whole."""

    body: canonical.Plain
    kind: str
    log: str
    prev: str | None
    salt: str
    seq: canonical.Natural
    stream: str
    time_ms: canonical.Natural
    v: Literal["tallystick.record/2"]
    workspace: str


_read_whole = canonical.reader(_WholeRecord)


class Record(msgspec.Struct, frozen=True):
    """A record read back from its bytes.

    `raw` is what was read, whole or in committed form, and `hash` its leaf hash either way. The
    body lacks the groups in `withheld`.
    """

    raw: bytes
    hash: bytes
    log: str
    workspace: str
    stream: str
    seq: int
    prev: bytes | None
    time_ms: int
    kind: str
    body: Mapping[str, Any]
    withheld: frozenset[str] = frozenset()


def encode_record(
    *,
    log: str,
    workspace: str,
    stream: str,
    head: Head,
    time_ms: int,
    kind: str,
    body: Body,
    salt: bytes,
) -> tuple[bytes, bytes]:
    """The canonical bytes of a new record, and its hash.

    `body` holds JSON values with ASCII keys, integers below 2^53, and the fields of all groups of
    its kind; it is not looked at again here.
    """
    record = _Written(
        body=body,
        kind=kind,
        log=log,
        prev=None if head.prev is None else head.prev.hex(),
        seq=head.seq,
        stream=stream,
        time_ms=time_ms,
        workspace=workspace,
        salt=salt.hex(),
    )
    raw = canonical.encode_own(record)
    if kind not in GROUPS:
        return raw, leaf_hash(raw)
    record.body, record.commitments = _withheld(body, kind, salt)
    record.salt = UNSET
    return raw, leaf_hash(canonical.encode_own(record))


def record_hash(raw: bytes) -> bytes:
    """The hash of a whole record, for who needs nothing else of it.

    Raises:
        canonical.CanonicalError: the bytes are not a whole record.
    """
    try:
        kind = _KIND.decode(raw).kind
        if kind not in GROUPS:
            return leaf_hash(raw)
        record = members(raw)
        salt = read_hex(_decode(record["salt"]), SALT_BYTES)
        committed, _ = _committed(record, kind, salt)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _no_group(error) from error
    # What is not looked at goes into the hash as it stands, so no byte of it can be another.
    return leaf_hash(canonical.encode_own(committed))


def committed_form(
    raw: bytes, withheld: Collection[str]
) -> tuple[bytes, Mapping[str, Opening] | None]:
    """What to show of a record in which these groups are withheld, and the openings of the others.

    None for the openings: there is nothing to withhold in such a record, so it is shown whole.

    Raises:
        canonical.CanonicalError: the bytes are not a whole record.
    """
    kind = decode_record(raw).kind
    if GROUPS.get(kind, {}).keys().isdisjoint(withheld):
        return raw, None
    record = members(raw)
    committed, openings = _committed(record, kind, bytes.fromhex(_decode(record["salt"])))
    shown = {
        name: Opening(opening.salt, canonical.decode_object(canonical.encode_own(opening.value)))
        for name, opening in openings.items()
        if name not in withheld
    }
    return canonical.encode_own(committed), shown


def decode_record(raw: bytes, openings: Mapping[str, Opening] | None = None) -> Record:
    """Read a whole record, or its committed form with the openings of what is not withheld of it.

    Raises:
        canonical.CanonicalError: the bytes are not a canonical record of this format, or an opening
            is not what the record commits to.
    """
    read = _read_whole(raw) if openings is None else None
    if read is None:
        return _decode_by_field(raw, openings)
    try:
        prev = None if read.prev is None else read_hex(read.prev, HASH_BYTES)
        salt = read_hex(read.salt, SALT_BYTES)
    except ValueError as error:
        raise canonical.CanonicalError(f"prev or salt: {error}") from error
    hashed = raw
    if read.kind in GROUPS:
        try:
            kept, commitments = _withheld(read.body, read.kind, salt)
        except (KeyError, TypeError, ValueError) as error:
            raise _no_group(error) from error
        hashed = canonical.encode_own(
            _Written(
                kept,
                read.kind,
                read.log,
                read.prev,
                read.seq,
                read.stream,
                read.time_ms,
                read.workspace,
                commitments=commitments,
            )
        )
    return Record(
        raw,
        leaf_hash(hashed),
        read.log,
        read.workspace,
        read.stream,
        read.seq,
        prev,
        read.time_ms,
        read.kind,
        read.body,
    )


def _decode_by_field(raw: bytes, openings: Mapping[str, Opening] | None) -> Record:
    """`decode_record` of whatever it may be; says what is wrong."""
    data = canonical.decode_object(raw)
    if data.keys() != (_WHOLE if openings is None else _COMMITTED) or data["v"] != FORMAT:
        raise canonical.CanonicalError(f"not a record of format {FORMAT}")
    strings = (data["log"], data["workspace"], data["stream"], data["kind"])
    if (
        not all(isinstance(value, str) for value in strings)
        or not all(type(data[name]) is int and data[name] >= 0 for name in ("seq", "time_ms"))
        or not isinstance(data["body"], dict)
    ):
        raise canonical.CanonicalError("a field of the record has the wrong type")
    try:
        prev = None if data["prev"] is None else read_hex(data["prev"], HASH_BYTES)
        salt = read_hex(data["salt"], SALT_BYTES) if openings is None else b""
    except ValueError as error:
        raise canonical.CanonicalError(f"prev or salt: {error}") from error
    kind, body, hashed, withheld = data["kind"], data["body"], raw, frozenset[str]()
    try:
        if openings is not None:
            body = _opened(data, GROUPS.get(kind, {}), openings)
            withheld = frozenset(GROUPS[kind].keys() - openings.keys())
        elif kind in GROUPS:
            # Keys that are not ASCII have another order, which only the slower encoder knows.
            encode = canonical.encode_own if raw.isascii() else canonical.encode
            hashed = encode(_committed(data, kind, salt, encode)[0])
    except (KeyError, TypeError, ValueError) as error:
        raise _no_group(error) from error
    return Record(
        raw=raw,
        hash=leaf_hash(hashed),
        log=data["log"],
        workspace=data["workspace"],
        stream=data["stream"],
        seq=data["seq"],
        prev=prev,
        time_ms=data["time_ms"],
        kind=data["kind"],
        body=body,
        withheld=withheld,
    )


def _committed(
    record: Mapping[str, Any],
    kind: str,
    salt: bytes,
    encode: Callable[[object], bytes] = canonical.encode_own,
) -> tuple[dict[str, Any], dict[str, Opening]]:
    """The committed form of a whole record, and the openings of all its groups.

    Values that are still JSON stay so.
    """
    body, commitments, openings = record["body"], {}, {}
    for name, fields in GROUPS[kind].items():
        body, value = split(body, fields)
        openings[name] = opening = Opening(field_salt(salt, name), value)
        commitments[name] = opening.commitment(encode).hex()
    committed = {**record, "body": body, "commitments": commitments}
    del committed["salt"]
    return committed, openings


def _withheld(body: Body, kind: str, salt: bytes) -> tuple[object, dict[str, str]]:
    """A body without its groups, and their commitments."""
    kept: Any = body
    commitments = {}
    for name, fields in GROUPS[kind].items():
        kept, value = kept.split() if type(kept) is Decided else split(kept, fields)
        made = commitment(field_salt(salt, name), value, canonical.encode_own)
        commitments[name] = made.hex()
    return kept, commitments


def _opened(
    data: Mapping[str, Any], groups: Mapping[str, Fields], openings: Mapping[str, Opening]
) -> dict[str, Any]:
    """The body of a committed form with the groups that are opened."""
    body, commitments = data["body"], data["commitments"]
    if not groups or not isinstance(commitments, dict) or commitments.keys() != groups.keys():
        raise ValueError("it commits to other groups than its kind has")
    if not openings.keys() <= groups.keys():
        raise ValueError("an opening is of a group that its kind does not have")
    for name, fields in groups.items():
        commitment = read_hex(commitments[name], HASH_BYTES)
        opening = openings.get(name)
        if opening is None:
            check_absent(body, fields)
        elif (
            len(opening.salt) != FIELD_SALT_BYTES
            or opening.commitment(canonical.encode) != commitment
        ):
            raise ValueError(f"the opening of {name} is not what the record commits to")
        else:
            body = join(body, opening.value, fields)
    return dict(body)


def _no_group(error: Exception) -> canonical.CanonicalError:
    return canonical.CanonicalError(f"a group that can be withheld: {wrong(error)}")


def integer(value: Any) -> int:
    """An integer that is one, and not what Python takes for one.

    Raises:
        ValueError: it is something else.
    """
    if type(value) is not int:
        raise ValueError(f"{shown(value)} is not an integer")
    return value


def read_hex(value: object, length: int) -> bytes:
    """Bytes written in lower-case hexadecimal, so that one value has one spelling.

    Raises:
        ValueError: it is anything else, or not of `length` bytes.
    """
    try:
        raw = bytes.fromhex(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raw = b""
    if len(raw) != length or raw.hex() != value:
        raise ValueError(f"expected {length} bytes in lower-case hexadecimal")
    return raw
