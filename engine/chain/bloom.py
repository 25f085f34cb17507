"""The log bloom of a block: what it may have logged (Ethereum Yellow Paper, section 4.3.1).

It may admit what was not logged, and never leaves out what was. So it shows that an answer without
events keeps one back, and, of the events of a whole block, that they are all.
"""

from collections.abc import Iterable

from eth_bloom.bloom import BloomFilter

from engine.chain.gateway import BLOOM_BYTES, Log


def bloom_of(logs: Iterable[Log]) -> bytes:
    """The bloom of a block with these events."""
    bloom = BloomFilter()
    for log in logs:
        bloom.extend((bytes.fromhex(log.address[2:]), *log.topics))
    return int(bloom).to_bytes(BLOOM_BYTES)


def mask_of(*values: bytes) -> int:
    """The bits that all these values set: a bloom admits them together if it has all the bits."""
    return int(BloomFilter.from_iterable(values))


def admits(bloom: bytes, mask: int) -> bool:
    """Whether a bloom has every bit of a mask."""
    return int.from_bytes(bloom) & mask == mask


def is_dense(bloom: bytes) -> bool:
    """Whether more than half of its bits are set: of what is not there, it admits an eighth."""
    return int.from_bytes(bloom).bit_count() > 4 * BLOOM_BYTES
