"""Cursors as they are given away: a store's position, sealed for one payer and one prefix.

The seal is HMAC-SHA-256 (RFC 2104) under a key that belongs to the store, so a cursor of another
payer, prefix or store is as foreign as an invented one. Its payer can read the position in it,
which is one of the payer's own keys.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

from engine.errors import InvalidInput

KEY_BYTES = 32
_TAG_BYTES = 16
_DOMAIN = b"tallystick/storage/cursor/1"


def seal(key: bytes, account: str, prefix: str, position: str) -> str:
    """The cursor that leads on from `position`, in the URL-safe base-64 alphabet (RFC 4648)."""
    assert len(key) >= KEY_BYTES
    parts = [_DOMAIN, account.encode(), prefix.encode(), position.encode()]
    framed = b"".join(len(part).to_bytes(8) + part for part in parts)
    tag = hmac.digest(key, framed, hashlib.sha256)[:_TAG_BYTES]
    return urlsafe_b64encode(tag + parts[-1]).rstrip(b"=").decode()


def unseal(key: bytes, account: str, prefix: str, cursor: str) -> str:
    """The position that `seal` was given.

    Raises:
        InvalidInput: no such cursor was ever given to this payer for this prefix.
    """
    refused = InvalidInput(
        "cursor", "was not given to this payer for this prefix", code="invalid_cursor"
    )
    if not isinstance(cursor, str):
        raise refused
    try:
        decoded = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
        position = decoded[_TAG_BYTES:].decode()
    except ValueError:
        raise refused from None
    # The whole text is compared: base 64 has several texts for the same bytes.
    if not hmac.compare_digest(seal(key, account, prefix, position).encode(), cursor.encode()):
        raise refused
    return position
