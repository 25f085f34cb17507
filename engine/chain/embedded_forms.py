"""What py-evm knows as the gateway has it, and what comes in as py-evm takes it."""

from eth._utils.address import generate_contract_address
from eth.abc import BlockHeaderAPI, SignedTransactionAPI, TransactionBuilderAPI
from eth_typing import Address

from engine.chain.gateway import BLOOM_BYTES, BlockHeader, ChainError, TransactionRejected


def to_header(header: BlockHeaderAPI) -> BlockHeader:
    """A py-evm header as the gateway's."""
    return BlockHeader(
        number=header.block_number,
        hash=header.hash,
        parent_hash=header.parent_hash,
        timestamp_s=header.timestamp,
        logs_bloom=header.bloom.to_bytes(BLOOM_BYTES),
    )


def contract_address(transaction: SignedTransactionAPI) -> str | None:
    """Return where a creating transaction puts its contract; None for any other."""
    if transaction.to != b"":
        return None
    return f"0x{generate_contract_address(transaction.sender, transaction.nonce).hex()}"


def raw_address(address: str) -> Address:
    """The 20 bytes of an address.

    Raises:
        ChainError: it is none.
    """
    raw = bytes.fromhex(address.removeprefix("0x"))
    if len(raw) != 20:
        raise ChainError(f"not an address: {address!r}")
    return Address(raw)


def signed_transaction(builder: type[TransactionBuilderAPI], raw: bytes) -> SignedTransactionAPI:
    """The transaction that was sent as `raw`.

    Raises:
        TransactionRejected: it is none, or not signed for one chain alone.
    """
    try:
        transaction = builder.decode(raw)
        transaction.validate()
        transaction.check_signature_validity()
        chain_id = transaction.chain_id
    except Exception as error:  # rlp, eth-keys and py-evm each raise their own
        raise TransactionRejected(f"not a signed transaction: {error}") from error
    if chain_id is None:
        raise TransactionRejected("signed for any chain (before EIP-155)")
    return transaction
