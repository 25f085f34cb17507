"""A record: one entry of the audit log, as the bytes that are hashed.

Every record belongs to a stream (a session, or a workspace for what is about no session), counts
up in it and names the hash of the one before: each session has a chain of its own inside the log.
The salt keeps a proof's neighbouring hashes from being guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.audit import canonical
from engine.audit.merkle import HASH_BYTES, leaf_hash

FORMAT = "tallystick.record/1"
SALT_BYTES = 16
_FIELDS = frozenset(
    ("body", "kind", "log", "prev", "salt", "seq", "stream", "time_ms", "v", "workspace")
)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a stream: the next number to use and the hash of the last record."""

    seq: int = 0
    prev: bytes | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A record read back from its bytes."""

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


def encode_record(
    *,
    log: str,
    workspace: str,
    stream: str,
    head: Head,
    time_ms: int,
    kind: str,
    body: Mapping[str, Any],
    salt: bytes,
) -> bytes:
    """The canonical bytes of a new record.

    `body` holds JSON values with ASCII keys, integers below 2^53; it is not looked at again here.
    """
    return canonical.encode_own(
        {
            "v": FORMAT,
            "log": log,
            "workspace": workspace,
            "stream": stream,
            "seq": head.seq,
            "prev": None if head.prev is None else head.prev.hex(),
            "time_ms": time_ms,
            "kind": kind,
            "body": body,
            "salt": salt.hex(),
        }
    )


def decode_record(raw: bytes) -> Record:
    """Read a record.

    Raises:
        canonical.CanonicalError: the bytes are not a canonical record of this format.
    """
    data = canonical.decode_object(raw)
    if data.keys() != _FIELDS or data["v"] != FORMAT:
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
        read_hex(data["salt"], SALT_BYTES)
    except ValueError as error:
        raise canonical.CanonicalError(f"prev or salt: {error}") from error
    return Record(
        raw=raw,
        hash=leaf_hash(raw),
        log=data["log"],
        workspace=data["workspace"],
        stream=data["stream"],
        seq=data["seq"],
        prev=prev,
        time_ms=data["time_ms"],
        kind=data["kind"],
        body=data["body"],
    )


def read_hex(value: object, length: int) -> bytes:
    """Bytes written in lower-case hexadecimal, so that one value has one spelling.

    Raises:
        ValueError: it is anything else, or not of `length` bytes.
    """
    raw = bytes.fromhex(value) if isinstance(value, str) else b""
    if len(raw) != length or raw.hex() != value:
        raise ValueError(f"expected {length} bytes in lower-case hexadecimal")
    return raw
