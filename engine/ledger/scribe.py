"""What the writer keeps from one batch to the next to write records with."""

from collections.abc import Sequence

from engine.audit.record import SALT_BYTES, Head
from engine.identifiers import Identifiers
from engine.ledger.seal import batch_seal

_SALTS_DRAWN = 256


class Scribe:
    """Draws salts and seals batches, and remembers where streams end that nobody else writes to."""

    def __init__(self, origin: str, identifiers: Identifiers, seal_key: bytes) -> None:
        self.origin = origin
        self.identifiers = identifiers
        self.heads: dict[str, Head] = {}
        self._seal_key = seal_key
        self._salts: list[bytes] = []

    def salt(self) -> bytes:
        """Sixteen random bytes; asking the system for many costs as little as for one."""
        if not self._salts:
            drawn = self.identifiers.random_bytes(SALT_BYTES * _SALTS_DRAWN)
            self._salts = [drawn[i : i + SALT_BYTES] for i in range(0, len(drawn), SALT_BYTES)]
        return self._salts.pop()

    def seal(self, batch: int, leaf_hashes: bytes, bodies: Sequence[bytes]) -> bytes:
        """See `batch_seal`."""
        return batch_seal(self._seal_key, batch, leaf_hashes, bodies)
