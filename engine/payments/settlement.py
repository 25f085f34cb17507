"""What a mined transaction really paid, read from the events of the token.

That a transaction succeeded says nothing: tokens return false, take a fee, or let a used nonce pass
in silence. An authorization is settled if, and only if, the token contract emitted for it

1. one `AuthorizationUsed(payer, nonce)` (EIP-3009), and
2. one `Transfer(payer, payee, amount)` (ERC-20) and no other that touches payer or payee.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.chain.contracts import AUTHORIZATION_USED, ERC20_TRANSFER
from engine.chain.gateway import Log, Receipt
from engine.payments.authorization import Authorization

AUTHORIZATION_NOT_USED = "authorization_event_mismatch"
"""The token did not say, or not once, that it used this payer's nonce."""
TRANSFER_DIFFERS = "transfer_event_mismatch"
"""The token moved nothing, another amount, to somebody else, or more than once."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """A payment as the chain shows it; `amount` is in the token's smallest unit."""

    payer: str
    pay_to: str
    amount: int
    tx_hash: bytes
    block_number: int
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class NotSettled:
    """The transaction was mined and did something else, or nothing. `reason` is in words."""

    code: str
    reason: str


def read_settlement(
    receipt: Receipt, token: str, authorization: Authorization
) -> Settlement | NotSettled:
    """Hold a successful receipt against what was authorised of the contract `token`."""
    assert receipt.succeeded, "a reverted transaction moved nothing: ask nobody what"
    events = [log for log in receipt.logs if log.address == token and log.topics]
    payer, pay_to = _topic(authorization.payer), _topic(authorization.pay_to)
    used = [log for log in events if log.topics[0] == AUTHORIZATION_USED]
    if [log.topics[1:] for log in used] != [(payer, authorization.nonce)]:
        return NotSettled(
            AUTHORIZATION_NOT_USED,
            f"the token emitted {len(used)} AuthorizationUsed, not one of this payer and nonce",
        )
    touching = [log for log in events if _touches(log, (payer, pay_to))]
    transfer = _the_one_transfer(touching)
    if transfer is None:
        return NotSettled(
            TRANSFER_DIFFERS,
            f"the token emitted {len(touching)} Transfer events of payer or payee, not one",
        )
    if (*transfer.topics[1:], int.from_bytes(transfer.data)) != (
        payer,
        pay_to,
        authorization.amount,
    ):
        return NotSettled(
            TRANSFER_DIFFERS,
            f"the token moved {int.from_bytes(transfer.data)} from {_address(transfer.topics[1])} "
            f"to {_address(transfer.topics[2])}",
        )
    return Settlement(
        payer=_address(transfer.topics[1]),
        pay_to=_address(transfer.topics[2]),
        amount=int.from_bytes(transfer.data),
        tx_hash=receipt.tx_hash,
        block_number=receipt.block_number,
        block_hash=receipt.block_hash,
    )


def _touches(log: Log, parties: Sequence[bytes]) -> bool:
    return log.topics[0] == ERC20_TRANSFER and any(party in log.topics[1:] for party in parties)


def _the_one_transfer(logs: Sequence[Log]) -> Log | None:
    """The only one of them, if it has ERC-20's form: three topics and 32 bytes."""
    if len(logs) != 1 or len(logs[0].topics) != 3 or len(logs[0].data) != 32:
        return None
    return logs[0]


def _topic(address: str) -> bytes:
    return bytes.fromhex(address[2:]).rjust(32, b"\0")


def _address(topic: bytes) -> str:
    return f"0x{topic[-20:].hex()}"
