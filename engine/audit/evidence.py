"""The evidence file: one session's half of the tally, in one canonical JSON document.

The file is exactly `canonical.encode(document)` and a newline, so no byte of it is idle. The log's
Ed25519 key signs everything but the signature itself. Where the registration and the anchors are on
the chain is told for convenience: the auditor asks the chain. `docs/evidence.md` has the format
byte by byte, `docs/evidence.schema.json` as a JSON Schema.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from engine.audit import canonical
from engine.audit.chain import Anchoring
from engine.audit.consent import SIGNATURE_BYTES_MAX
from engine.audit.delegation import Ancestor
from engine.audit.disclosure import WITHHOLDABLE
from engine.audit.entries import Entries, Entry, Nodes, fields
from engine.audit.merkle import HASH_BYTES
from engine.audit.pieces import AROUND_BYTES_MAX, Pieces, Source, cuts, find
from engine.audit.record import read_hex
from engine.audit.report import wrong
from engine.grant import Grant
from engine.policy.identifiers import normalise_asset, normalise_chain, normalise_merchant
from engine.policy.money import AMOUNT_MAX_MICRO_USD

FORMAT = "tallystick.evidence/2"
SIZE_BYTES_MAX = 4 << 30

NOT_PROVEN = (
    "Completeness covers spends by the session's own key only.",
    "An operator that holds the key can overspend, but cannot hide it.",
    "When a decision was made, between registration and its first anchor, is the operator's word.",
    "The last records of a session that is not over yet can be left out.",
    "A denial moves no money: the log need not have every one.",
    "Of two histories that an operator wrote of one session into one log, either can be left out.",
    "Anchors older than the registration or newer than the file's are not compared with the file.",
    "Any contract can claim that the key moved its tokens: whether they are real is not shown.",
    "An RPC endpoint can leave out events, or invent them: ask a second one.",
    "A wallet that is a contract (ERC-1271) consented in the block of the registration, not since.",
    "Where consent is none, nobody but the operator vouches for the parameters.",
    "That a token is worth one dollar, and who approved a payment, is the operator's word.",
    "What several sessions spent together, delegated or under a budget, is the operator's word.",
    "Where merchants are withheld, what the rules on merchants denied is the operator's word.",
    "The discrepancies are those that the operator's server found and kept.",
)
"""What a verified file does not show. It stands in every file and is a part of the format."""

_FAMILY = b"tallystick.evidence/"
_SEAL_DOMAIN = b"tallystick/evidence/2\n"
_DECIMAL = re.compile("0|[1-9][0-9]{0,77}")
_LANDMARKS = (
    canonical.encode(NOT_PROVEN[-1]) + b'],"records":[',
    b'],"registration":',
    b',"tail":[',
    b'],"withheld":',
)
"""Where the two long lists of a file begin and end: its keys are in order."""
_SEVERITIES = ("critical", "warning", "info")


class EvidenceError(ValueError):
    """The bytes are not an evidence file."""


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Where the registration's event was on the chain when the file was made."""

    block_number: int
    log_index: int
    tx_hash: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """The parsed file, of which the records stay as they are until they are asked for."""

    pieces: Pieces = field(repr=False)
    signature: bytes
    made_ms: int
    chain_id: int
    registry: str
    anchors: str
    log_id: bytes
    log_origin: str
    log_verifier_key: str
    session_id: str
    session_type: str
    label: str | None
    workspace: str
    grant: Grant
    grant_hash: bytes
    consent: str
    ancestors: Sequence[Ancestor]
    """The sessions that it is delegated from, its parent first."""
    owner_signature: bytes | None
    public_key: bytes
    token_id: bytes
    registration: Coordinates
    checkpoint: str | None
    anchored: Sequence[Anchoring]
    """The anchors that the file rests on, as they were when it was made; the last is the
    checkpoint's."""
    consistency: Sequence[tuple[bytes, ...]]
    """Proofs between consecutive anchors."""
    records: Entries
    tail: Entries
    withheld: frozenset[str]
    """The groups that no record of the file shows."""
    discrepancies: Sequence[Mapping[str, Any]]
    _digests: list[bytes] = field(default_factory=list, init=False, repr=False, compare=False)
    """The SHA-256 of what `entries` read, once it has."""

    def entries(self) -> Iterator[Entry]:
        """The records and those of the tail, read one by one.

        Raises:
            EvidenceError: the next is not one that a file can have, or these are others than they
                were before.
        """
        # Where the signature stands, and nowhere else: the keys of the file are in order.
        middle = self.pieces.middle.replace(
            b'"signature":"%b",' % self.signature.hex().encode(), b""
        )
        digest = hashlib.sha256(self.pieces.head)
        try:
            yield from self.records.read(digest)
            digest.update(middle)
            yield from self.tail.read(digest)
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed(error) from error
        digest.update(self.pieces.end)
        if self._digests and self._digests != [digest.digest()]:
            raise EvidenceError("the file was changed while it was read")
        self._digests[:] = [digest.digest()]

    def sealed(self) -> bytes:
        """What the log's key signed, by the bytes of the file: all but the signature.

        They are those that `entries` read, so what was changed since then is not believed.
        """
        if not self._digests:
            for _ in self.entries():
                pass
        return _SEAL_DOMAIN + self._digests[0]


def log_salt(verifier_key: str) -> bytes:
    """The salt under which the log with this verifier key is opened on the chain (SHA-256)."""
    return hashlib.sha256(verifier_key.encode()).digest()


def seal_message(content: Mapping[str, Any]) -> bytes:
    """The bytes that the log's key signs.

    Ed25519 would hash all of a message itself, by the slower SHA-512 and only in one piece.
    """
    return _SEAL_DOMAIN + hashlib.sha256(canonical.encode_own(content)).digest()


def render_evidence(content: Mapping[str, Any], signature: bytes) -> bytes:
    """The file of a document and its signature."""
    return canonical.encode_own({**content, "signature": signature.hex()}) + b"\n"


def parse_evidence(file: Source) -> Evidence:
    """Read a file; only its form is checked, that of every record included.

    Raises:
        EvidenceError: saying what is wrong.
    """
    evidence = open_evidence(file)
    for _ in evidence.entries():
        pass
    return evidence


def open_evidence(file: Source) -> Evidence:
    """Read a file but for its records, which `Evidence.entries` reads and may refuse.

    Raises:
        EvidenceError: saying what is wrong.
    """
    if len(file) > SIZE_BYTES_MAX:
        raise EvidenceError(f"larger than {SIZE_BYTES_MAX} bytes")
    if find(file, _FAMILY) < 0:
        raise EvidenceError("this is not an evidence file")
    if file[len(file) - 1 : len(file)] != b"\n":
        raise EvidenceError("does not end with a newline: cut off, or changed by an editor")
    places = cuts(file, _LANDMARKS)
    try:
        if places is None:
            raise _without_lists(file)
        pieces = Pieces(file, places)
        _check_format(pieces.document)
        return _read(pieces)
    except canonical.CanonicalError as error:
        raise EvidenceError(f"not canonical JSON: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise error if isinstance(error, EvidenceError) else _malformed(error) from error


def _check_format(document: Mapping[str, Any]) -> None:
    if document.get("format") != FORMAT:
        raise EvidenceError(f"not of format {FORMAT}")


def _without_lists(file: Source) -> EvidenceError:
    """What is wrong with a file that has not even its lists where they belong."""
    if len(file) > AROUND_BYTES_MAX:
        return EvidenceError("there are no records in it")
    document = canonical.decode_object(file[: len(file) - 1])
    _check_format(document)
    return EvidenceError("a field is missing or malformed, or it does not say what it must")


def _malformed(error: Exception) -> EvidenceError:
    return EvidenceError(f"a field is missing or malformed: {wrong(error)}")


def _read(pieces: Pieces) -> Evidence:
    document = _fields(
        pieces.document,
        "format made_ms chain log session registration checkpoint anchors consistency records tail "
        "withheld discrepancies not_proven signature",
    )
    chain = _fields(document["chain"], "chain_id registry anchors")
    log = _fields(document["log"], "id origin verifier_key")
    session = _fields(
        document["session"],
        "id workspace type label grant grant_hash consent ancestors owner_signature public_key "
        "token_id",
    )
    withheld = _list(document["withheld"])
    if withheld != [name for name in WITHHOLDABLE if name in withheld]:
        raise ValueError("what is withheld is not a sorted list of what can be")
    if document["not_proven"] != list(NOT_PROVEN):
        raise ValueError("the file does not say what it does not prove")
    if not _DECIMAL.fullmatch(chain["chain_id"]):
        raise ValueError("the chain id is not a decimal number")
    return Evidence(
        pieces=pieces,
        signature=read_hex(document["signature"], 64),
        made_ms=_count(document["made_ms"]),
        chain_id=int(chain["chain_id"]),
        registry=_text(chain["registry"]),
        anchors=_text(chain["anchors"]),
        log_id=read_hex(log["id"], 32),
        log_origin=_text(log["origin"]),
        log_verifier_key=_text(log["verifier_key"]),
        session_id=_text(session["id"]),
        session_type=_text(session["type"]),
        label=None if session["label"] is None else _text(session["label"]),
        workspace=_text(session["workspace"]),
        grant=_grant(session["grant"]),
        grant_hash=read_hex(session["grant_hash"], HASH_BYTES),
        consent=_text(session["consent"]),
        ancestors=tuple(_ancestor(item) for item in _list(session["ancestors"])),
        owner_signature=_signature(session["owner_signature"], session["consent"]),
        public_key=_public_key(session["public_key"]),
        token_id=read_hex(session["token_id"], 32),
        registration=_coordinates(document["registration"]),
        checkpoint=None if document["checkpoint"] is None else _text(document["checkpoint"]),
        anchored=tuple(_anchoring(item) for item in _list(document["anchors"])),
        consistency=tuple(map(Nodes().proof, _list(document["consistency"]))),
        records=Entries(pieces.records, proven=True),
        tail=Entries(pieces.tail, proven=False),
        withheld=frozenset(withheld),
        discrepancies=tuple(
            _discrepancy(item, told=not withheld) for item in _list(document["discrepancies"])
        ),
    )


def _coordinates(item: Any) -> Coordinates:
    _fields(item, "block_number log_index tx_hash")
    return Coordinates(
        _count(item["block_number"]), _count(item["log_index"]), read_hex(item["tx_hash"], 32)
    )


def _anchoring(item: Any) -> Anchoring:
    _fields(item, "size root block_number tx_hash")
    return Anchoring(
        _count(item["size"]),
        read_hex(item["root"], HASH_BYTES),
        _count(item["block_number"]),
        read_hex(item["tx_hash"], 32),
    )


def _discrepancy(item: Any, *, told: bool) -> Mapping[str, Any]:
    """With anything withheld its evidence is, too: it could tell what is."""
    _fields(item, "kind severity evidence first_seen_ms last_seen_ms resolved_ms")
    _text(item["kind"])
    if item["severity"] not in _SEVERITIES:
        raise ValueError("a discrepancy has no severity")
    if not (isinstance(item["evidence"], dict) if told else item["evidence"] is None):
        raise ValueError("a discrepancy has no evidence, or some though it is withheld")
    for name in ("first_seen_ms", "last_seen_ms"):
        _count(item[name])
    if item["resolved_ms"] is not None:
        _count(item["resolved_ms"])
    return dict(item)


def _ancestor(item: Any) -> Ancestor:
    _fields(item, "grant public_key consent owner_signature")
    public_key, consent = _public_key(item["public_key"]), _text(item["consent"])
    signature = _signature(item["owner_signature"], consent)
    return Ancestor(_grant(item["grant"]), public_key, consent, signature)


def _public_key(value: Any) -> bytes:
    """Of secp256k1, uncompressed: 0x04 and the two coordinates."""
    key = read_hex(value, 65)
    if key[0] != 4:
        raise ValueError("a public key does not begin with 04")
    return key


def _signature(value: Any, consent: Any) -> bytes | None:
    """The owner's: 65 bytes by EIP-712; the other kinds have no one length."""
    if value is None:
        return None
    length = 65 if consent == "eip712" else len(_text(value)) // 2
    if not 0 < length <= SIGNATURE_BYTES_MAX:
        raise ValueError("the owner's signature is empty or too long")
    return read_hex(value, length)


def _grant(data: Any) -> Grant:
    """Read a grant, without a check that rests on an `assert`: Python's `-O` takes those away."""
    grant = Grant.from_json(data)
    for limit in astuple(grant.limits):
        if limit is not None and (type(limit) is not int or not 0 <= limit <= AMOUNT_MAX_MICRO_USD):
            raise ValueError("a limit is not an amount")
    if grant.valid_from_s >= grant.valid_until_s:
        raise ValueError("the grant ends before it begins")
    for names, normalise in (
        (grant.merchants, normalise_merchant),
        (grant.tokens, normalise_asset),
        (grant.chains, normalise_chain),
    ):
        if any(normalise(name) != name for name in names):
            raise ValueError("a merchant, token or chain of the grant is not in canonical form")
    return grant


def _fields(value: Any, names: str) -> dict[str, Any]:
    return fields(value, names.split())


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("expected a list")
    return value


def _count(value: Any) -> int:
    """A number of blocks, records or milliseconds."""
    if type(value) is not int or value < 0:
        raise ValueError("expected a whole number that is not negative")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value
