"""The seal of a batch of the log: that its hashes are those of these records, without hashing them.

What the tree hashes of a record is its committed form, which has to be made of its bytes again to
be compared. A message authentication code over bytes and hashes goes over the same bytes at the
speed of memory. Whoever has the key could as well sign another log, so it shows no more than the
hashes do, and nobody else is asked to believe it.
"""

import hmac
import struct
from collections.abc import Sequence

SEAL_KEY = "log batch seal"
"""What the key is derived for: `engine.sessions.vault.Vault.derive`."""
_DOMAIN = b"tallystick/log-batch-seal/1\n"


def batch_seal(key: bytes, batch: int, leaf_hashes: bytes, bodies: Sequence[bytes]) -> bytes:
    """The seal of the batch with this id, of 32 bytes.

    HMAC-SHA-256 (RFC 2104) over a domain, the id, the number of bodies, the length of the hashes
    and of each body (64 bits each, big-endian), the hashes and the bodies: one reading only.

    Raises:
        TypeError: something that was stored as bytes is none.
    """
    lengths = map(len, bodies)
    counts = struct.pack(f">{3 + len(bodies)}Q", batch, len(bodies), len(leaf_hashes), *lengths)
    return hmac.digest(key, b"".join((_DOMAIN, counts, leaf_hashes, *bodies)), "sha256")
