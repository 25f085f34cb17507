"""How deep a transaction is: what a newer block said, a reorganisation may take back."""

from dataclasses import dataclass

from engine.chain.gateway import ChainGateway, ChainUnavailable, Receipt


@dataclass(frozen=True, slots=True)
class ChainPosition:
    """The newest block of the chain, None if this process does not ask; the newest in the index."""

    head_number: int | None
    indexed_number: int | None

    @property
    def lag(self) -> int | None:
        """How many blocks are between the two."""
        if self.head_number is None or self.indexed_number is None:
            return None
        return max(0, self.head_number - self.indexed_number)


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction in a block of the chain as it is now, with `depth` blocks on top."""

    receipt: Receipt
    depth: int


def mined(gateway: ChainGateway, tx_hash: bytes) -> Mined | None:
    """A transaction that is in a block, however new that is; None if it is in none.

    Raises:
        ChainUnavailable: the chain does not answer, or changed while it was asked.
    """
    receipt = gateway.receipt(tx_hash)
    if receipt is None:
        return None
    head, block = gateway.head(), gateway.block(receipt.block_number)
    if block is None or block.hash != receipt.block_hash or head.number < block.number:
        raise ChainUnavailable("a block was replaced while it was asked about")
    return Mined(receipt, head.number - block.number)


def receipt_below(gateway: ChainGateway, tx_hash: bytes, confirmations: int) -> Receipt | None:
    """The receipt of a transaction with so many blocks on top, if it has them.

    Raises:
        ChainUnavailable: as `mined`.
    """
    if not confirmations:
        return gateway.receipt(tx_hash)
    found = mined(gateway, tx_hash)
    return None if found is None or found.depth < confirmations else found.receipt
