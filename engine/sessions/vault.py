"""Private keys at rest: sealed by one key-encryption key (KEK), AES-256-GCM.

The KEK comes from the environment (`TALLYSTICK_KEK`) or, without one, from a file that only the
owner of the data directory can read; then whoever can read the whole directory can read the keys.
"""

import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from engine.errors import CannotStart
from engine.identifiers import RandomBytes

KEK_BYTES = 32
_NONCE_BYTES = 12


class Vault:
    """Seals and opens secrets; `context` ties a sealed secret to the one thing it belongs to."""

    def __init__(self, kek: bytes, random_bytes: RandomBytes = secrets.token_bytes) -> None:
        self._kek = kek
        self._cipher = AESGCM(kek)
        self._random_bytes = random_bytes

    @classmethod
    def from_passphrase(cls, passphrase: str, salt: bytes) -> "Vault":
        """Derive the KEK from a passphrase (scrypt, RFC 7914, N = 2^15, r = 8, p = 1)."""
        scrypt = Scrypt(salt=salt, length=KEK_BYTES, n=2**15, r=8, p=1)
        return cls(scrypt.derive(passphrase.encode()))

    @classmethod
    def from_file(cls, path: Path) -> "Vault":
        """Read the KEK from a file, which is made on first use.

        Raises:
            CannotStart: the file is not 64 hexadecimal digits, or others may read it.
        """
        if not path.exists():
            _write_once(path, secrets.token_hex(KEK_BYTES))
        if not path.is_file():
            raise CannotStart(f"{path} is not a file; it should hold the key-encryption key")
        if path.stat().st_mode & 0o077:
            raise CannotStart(f"{path} holds a secret but others may read it; chmod 600 it")
        return cls(_read_hex(path))

    def seal(self, secret: bytes, context: str) -> bytes:
        """Encrypt and authenticate; the result is 28 bytes longer."""
        nonce = self._random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """The inverse of `seal`.

        Raises:
            CannotStart: another KEK or another context sealed it, or it was changed.
        """
        try:
            return self._cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode()
            )
        except InvalidTag as error:
            raise CannotStart(
                f"{context} cannot be decrypted: TALLYSTICK_KEK (or the kek file) is not the one "
                "this installation was made with, or the data was changed"
            ) from error

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose, always the same (HKDF-SHA-256, RFC 5869)."""
        info = f"tallystick/{purpose}".encode()
        return HKDF(SHA256(), length=KEK_BYTES, salt=None, info=info).derive(self._kek)


def kept_salt(path: Path) -> bytes:
    """The salt of an installation, which is no secret; made on first use, so no two share one.

    Raises:
        CannotStart: the file is not 64 hexadecimal digits.
    """
    if not path.exists():
        _write_once(path, secrets.token_hex(KEK_BYTES))
    return _read_hex(path)


def _read_hex(path: Path) -> bytes:
    try:
        found = bytes.fromhex(path.read_text().strip())
    except ValueError:
        found = b""
    if len(found) != KEK_BYTES:
        raise CannotStart(f"{path} does not hold 256 bits in hexadecimal")
    return found


def _write_once(path: Path, text: str) -> None:
    """Create a file that only its owner can read: whole and durable, or not at all."""
    unfinished = path.with_suffix(".new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
