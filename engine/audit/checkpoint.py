"""Signed tree heads: C2SP tlog-checkpoint inside a C2SP signed-note, with Ed25519 (RFC 8032).

    audit.example/7f3a
    42
    <base64 of the root>

    — audit.example/7f3a <base64 of key id ‖ signature>

Narrower than the C2SP documents on purpose, so that a note has no byte to spare: no extension
lines, exactly one signature line (cosignatures of witnesses travel beside a note, not in it), and
names of ASCII graphic characters without `+`. Every note written here is a valid C2SP note.
"""

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engine.audit.merkle import HASH_BYTES, SIZE_MAX, is_hash

__all__ = ["NAME_MAX", "Checkpoint", "NoteError", "open_note", "sign", "verifier_key"]

NAME_MAX = 255
"""The most characters of an origin or a key name."""

_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
# ASCII graphic characters without "+", which separates the parts of a verifier key.
_NAME = rf"([!-*,-~]{{1,{NAME_MAX}}})"
_BASE64 = "[A-Za-z0-9+/]"
_NOTE = re.compile(
    rf"{_NAME}\n(0|[1-9][0-9]{{0,18}})\n({_BASE64}{{43}}=)\n\n— {_NAME} ({_BASE64}{{91}}=)\n"
)
_VERIFIER_KEY = re.compile(rf"{_NAME}\+([0-9a-f]{{8}})\+({_BASE64}{{44}})")


class NoteError(ValueError):
    """A checkpoint, a note or a verifier key is malformed, or the note is not the key's."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: its identity, its number of leaves and its RFC 6962 root (32 bytes).

    Raises:
        NoteError: an origin that is no name, a size outside 0..2^63 - 1, a root not of 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        _check_name("origin", self.origin)
        if type(self.size) is not int or not 0 <= self.size <= SIZE_MAX:
            raise NoteError("the size is not an integer within 0..2^63 - 1")
        if not is_hash(self.root):
            raise NoteError(f"the root is not {HASH_BYTES} bytes")

    def body(self) -> bytes:
        """The text that is signed: origin, size and root, a line each (C2SP tlog-checkpoint)."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n".encode()


def sign(checkpoint: Checkpoint, name: str, private_key: Ed25519PrivateKey) -> str:
    """Return the note: the body, a blank line and one signature line (C2SP signed-note).

    The caller must never sign two checkpoints of which neither extends the other.

    Raises:
        NoteError: `name` is not a key name.
    """
    _check_name("key name", name)
    body = checkpoint.body()
    key = private_key.public_key().public_bytes_raw()
    signature = b64encode(_key_id(name, key) + private_key.sign(body)).decode()
    return f"{body.decode()}\n— {name} {signature}\n"


def verifier_key(name: str, public_key: Ed25519PublicKey) -> str:
    """Return what an auditor is given to check notes: `name+key id in hex+base64(0x01 ‖ key)`.

    Raises:
        NoteError: `name` is not a key name.
    """
    _check_name("key name", name)
    key = public_key.public_bytes_raw()
    return f"{name}+{_key_id(name, key).hex()}+{b64encode(_ED25519 + key).decode()}"


def open_note(text: str, verifier_key: str) -> Checkpoint:
    """Return the checkpoint that the key signed.

    The caller must still compare the origin with the log it expects, and check that this
    checkpoint is consistent with those it has seen before.

    Raises:
        NoteError: anything but exactly the note that `sign` writes with that key.
    """
    # 1. The key is well formed and its id is its own.
    name, key_id, public_key = _read_verifier_key(verifier_key)

    # 2. The note has the one accepted form.
    match = _match(_NOTE, text)
    if match is None:
        raise NoteError("not a checkpoint with one signature line")
    origin, size, root, signer, signature = match.groups()
    checkpoint = Checkpoint(origin, int(size), _base64_bytes(root))

    # 3. It names this key.
    signed = _base64_bytes(signature)
    if signer != name or signed[:_KEY_ID_BYTES] != key_id:
        raise NoteError(f"not signed by {name}+{key_id.hex()}")

    # 4. The signature is over the body as this code writes it.
    try:
        public_key.verify(signed[_KEY_ID_BYTES:], checkpoint.body())
    except InvalidSignature:
        raise NoteError(f"the signature of {name} is wrong") from None
    return checkpoint


def public_key_of(verifier_key: str) -> Ed25519PublicKey:
    """The public key inside a verifier key.

    Raises:
        NoteError: it is not a well-formed Ed25519 verifier key.
    """
    return _read_verifier_key(verifier_key)[2]


def _read_verifier_key(text: str) -> tuple[str, bytes, Ed25519PublicKey]:
    match = _match(_VERIFIER_KEY, text)
    if match is None:
        raise NoteError("not a verifier key (name+key id+base64)")
    name, key_id, encoded = match.groups()
    data = _base64_bytes(encoded)
    kind, key = data[:1], data[1:]
    if kind != _ED25519:
        raise NoteError("the verifier key is not an Ed25519 key")
    if _key_id(name, key).hex() != key_id:
        raise NoteError("the verifier key's id is not that of its key")
    return name, bytes.fromhex(key_id), Ed25519PublicKey.from_public_bytes(key)


def _match(pattern: re.Pattern[str], text: object) -> re.Match[str] | None:
    return pattern.fullmatch(text) if isinstance(text, str) else None


def _key_id(name: str, key: bytes) -> bytes:
    """The first 4 bytes of SHA-256(name ‖ "\\n" ‖ 0x01 ‖ key) (C2SP signed-note)."""
    return sha256(name.encode() + b"\n" + _ED25519 + key).digest()[:_KEY_ID_BYTES]


def _base64_bytes(text: str) -> bytes:
    """Decode base64 (RFC 4648 §4) whose unused trailing bits are zero (§3.5)."""
    data = b64decode(text, validate=True)
    if b64encode(data).decode() != text:
        raise NoteError("base64 with stray trailing bits")
    return data


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or re.fullmatch(_NAME, name) is None:
        raise NoteError(f"the {what} is not 1 to {NAME_MAX} ASCII characters without space or '+'")
