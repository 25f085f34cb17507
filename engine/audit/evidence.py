"""The evidence file: one session's half of the tally, in one canonical JSON document.

The file is exactly `canonical.encode(document)` and a newline, so no byte of it is idle. The log's
Ed25519 key signs everything but the signature itself.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.audit import canonical
from engine.grant import Grant

FORMAT = "tallystick.evidence/1"
SIZE_BYTES_MAX = 1 << 30

NOT_PROVEN = (
    "Completeness covers spends by the session's own key only.",
    "An operator that holds the key can overspend, but cannot hide it.",
    "Decision times are as tight as the interval between anchors.",
    "An RPC endpoint that leaves out events can hide them: ask a second one.",
    "Where consent is none, nobody but the operator vouches for the parameters.",
)
"""What a verified file does not show; it stands in every file."""

_SEAL_DOMAIN = b"tallystick/evidence/1\n"


class EvidenceError(ValueError):
    """The bytes are not an evidence file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record in the file: its index in the log, its raw bytes, its inclusion proof."""

    index: int
    raw: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The parsed file. `content` is the document without its signature."""

    content: Mapping[str, Any]
    signature: bytes
    chain_id: int
    registry: str
    anchors: str
    log_id: bytes
    log_origin: str
    log_verifier_key: str
    session_id: str
    workspace: str
    grant: Grant
    consent: str
    owner_signature: bytes | None
    public_key: bytes
    token_id: bytes
    checkpoint: str | None
    records: Sequence[Entry]
    tail: Sequence[Entry]


def log_salt(verifier_key: str) -> bytes:
    """The salt under which the log with this verifier key is opened on the chain (SHA-256)."""
    return hashlib.sha256(verifier_key.encode()).digest()


def seal_message(content: Mapping[str, Any]) -> bytes:
    """The bytes that the log's key signs."""
    return _SEAL_DOMAIN + canonical.encode(content)


def render_evidence(content: Mapping[str, Any], signature: bytes) -> bytes:
    """The file of a document and its signature."""
    return canonical.encode({**content, "signature": signature.hex()}) + b"\n"


def parse_evidence(file: bytes) -> Evidence:
    """Read a file; only its form is checked.

    Raises:
        EvidenceError: saying what is wrong.
    """
    if len(file) > SIZE_BYTES_MAX or not file.endswith(b"\n"):
        raise EvidenceError("too large, or does not end with a newline")
    try:
        document = canonical.decode_object(file[:-1])
    except canonical.CanonicalError as error:
        raise EvidenceError(f"not canonical JSON: {error}") from error
    if document.get("format") != FORMAT:
        raise EvidenceError(f"not of format {FORMAT}")
    try:
        evidence = _read(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceError(f"a field is missing or malformed: {error!r}") from error
    return evidence


def _read(document: dict[str, Any]) -> Evidence:
    chain, log, session = document["chain"], document["log"], document["session"]
    signature = session["owner_signature"]
    return Evidence(
        content={name: value for name, value in document.items() if name != "signature"},
        signature=_hex(document["signature"], 64),
        chain_id=int(_text(chain["chain_id"])),
        registry=_text(chain["registry"]),
        anchors=_text(chain["anchors"]),
        log_id=_hex(log["id"], 32),
        log_origin=_text(log["origin"]),
        log_verifier_key=_text(log["verifier_key"]),
        session_id=_text(session["id"]),
        workspace=_text(session["workspace"]),
        grant=Grant.from_json(session["grant"]),
        consent=_text(session["consent"]),
        owner_signature=None if signature is None else _hex(signature, 65),
        public_key=_hex(session["public_key"], 65),
        token_id=_hex(session["token_id"], 32),
        checkpoint=None if document["checkpoint"] is None else _text(document["checkpoint"]),
        records=tuple(_entry(item, proven=True) for item in document["records"]),
        tail=tuple(_entry(item, proven=False) for item in document["tail"]),
    )


def _entry(item: Mapping[str, Any], *, proven: bool) -> Entry:
    if type(item["index"]) is not int or item.keys() != (
        {"index", "record", "proof"} if proven else {"index", "record"}
    ):
        raise ValueError("an entry has an index, a record and, if anchored, a proof")
    proof = tuple(_hex(node, 32) for node in item["proof"]) if proven else ()
    return Entry(item["index"], _text(item["record"]).encode(), proof)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _hex(value: Any, length: int) -> bytes:
    """Lower-case hexadecimal, so that one value has one spelling."""
    raw = bytes.fromhex(_text(value))
    if len(raw) != length or raw.hex() != value:
        raise ValueError(f"expected {length} bytes in lower-case hexadecimal")
    return raw
