"""Identifiers and secrets: where all randomness that the engine shows comes from.

Identifiers sort by creation time (48 bits of milliseconds, then 80 random bits, as in the ULID
specification), because a unique index on random keys rewrites pages all over the file.
"""

import hashlib
import secrets
from collections.abc import Callable

from engine.clock import Clock

RandomBytes = Callable[[int], bytes]

_CROCKFORD_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


class Identifiers:
    """Makes identifiers such as `sess_01jd…`; give it a seeded source for a reproducible run."""

    def __init__(self, clock: Clock, random_bytes: RandomBytes = secrets.token_bytes) -> None:
        self._clock = clock
        self.random_bytes = random_bytes

    def new(self, prefix: str) -> str:
        """Return `prefix_` and 26 base-32 characters."""
        value = (self._clock() & (1 << 48) - 1) << 80 | int.from_bytes(self.random_bytes(10))
        return f"{prefix}_" + "".join(
            _CROCKFORD_BASE32[value >> shift & 31] for shift in range(125, -5, -5)
        )

    def secret(self, prefix: str) -> str:
        """Return a bearer secret of 256 random bits behind a recognisable prefix."""
        return prefix + self.random_bytes(32).hex()


def secret_hash(secret: str) -> bytes:
    """What is stored of a bearer secret. 256 random bits need no slow hash."""
    return hashlib.sha256(b"tallystick/secret/1\n" + secret.encode("utf-8", "replace")).digest()
