"""Sign an EIP-1559 transaction, send it, and wait for what became of it.

`sign` is apart from `ChainGateway.send_raw` so that a caller can write the hash down first: whoever
sends and then loses the connection must be able to ask for the receipt, not to pay again.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.chain.account import Account
from engine.chain.depth import receipt_below
from engine.chain.gateway import (
    ChainGateway,
    ChainUnavailable,
    Receipt,
    TransactionPending,
    TransactionRejected,
)

MAX_FEE_PER_GAS_WEI = 10_000 * 10**9
"""An endpoint that asks for more is not believed: it could drain the sender into fees."""

MAX_GAS = 2**24
"""The most gas one transaction may have (EIP-7825)."""


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A transaction that can be sent any number of times and mined at most once."""

    raw: bytes
    hash: bytes
    nonce: int


def sign(
    gateway: ChainGateway,
    account: Account,
    *,
    to: str | None,
    data: bytes,
    value: int = 0,
    nonce: int | None = None,
    gas_max: int = MAX_GAS,
) -> SignedTransaction:
    """Build and sign a type-2 transaction (EIP-1559); nothing is sent.

    `to` None creates a contract; `value` is in wei; `nonce` None takes the next pending one, which
    is only safe when nobody else sends from the same account at the same time. It may use
    `gas_max`.

    Raises:
        CallReverted: the transaction would revert now.
        TransactionRejected: it needs more gas, or fees, than is ever reasonable.
        ChainUnavailable: the chain could not be asked.
    """
    sender = account.address.lower()
    if nonce is None:
        nonce = gateway.transaction_count(sender, pending=True)
    gas = gateway.estimate_gas(sender=sender, to=to, data=data, value=value)
    if gas > gas_max:
        raise TransactionRejected(f"needs {gas} gas, more than {gas_max}")
    fields: dict[str, Any] = {
        "chainId": gateway.chain_id,
        "nonce": nonce,
        # The state may differ a little when the transaction is mined; unused gas is not paid.
        "gas": min(gas + gas // 4, gas_max) if data else gas,
        "to": bytes.fromhex(to.removeprefix("0x")) if to is not None else b"",
        "value": value,
        "data": data,
    }
    return _sign(account, fields, *gateway.fees())


def sign_again(gateway: ChainGateway, account: Account, raw: bytes) -> SignedTransaction:
    """The transaction `raw` of `account`, that waits to be mined, with fees so much higher that
    nodes take it in its place; nothing is sent. Whichever is mined, the other no longer can be.

    Raises:
        TransactionRejected: it needs higher fees than are ever reasonable.
        ChainUnavailable: the chain could not be asked.
    """
    before = fields_of(raw)
    fields = {name: before[name] for name in _CALL}
    fee, tip = gateway.fees()
    return _sign(
        account,
        fields,
        max(fee, _above(before["maxFeePerGas"])),
        max(tip, _above(before["maxPriorityFeePerGas"])),
    )


def fields_of(raw: bytes) -> Mapping[str, Any]:
    """The fields of a signed transaction of ours, by their names in JSON-RPC."""
    from eth_account.typed_transactions.typed_transaction import TypedTransaction
    from hexbytes import HexBytes

    fields: Mapping[str, Any] = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    return fields


_CALL = ("chainId", "nonce", "gas", "to", "value", "data")


def _sign(account: Account, fields: Mapping[str, Any], fee: int, tip: int) -> SignedTransaction:
    if max(fee, tip) > MAX_FEE_PER_GAS_WEI:
        raise TransactionRejected(f"the chain asks for {max(fee, tip)} wei per gas")
    signed = account.sign_transaction(
        {"type": 2, **fields, "maxFeePerGas": fee, "maxPriorityFeePerGas": tip}
    )
    return SignedTransaction(bytes(signed.raw_transaction), bytes(signed.hash), fields["nonce"])


def _above(fee: int) -> int:
    """What nodes take in place of a fee: Geth asks for 10 % more, others for 12.5 %."""
    return fee + fee // 8 + 1


def send(
    gateway: ChainGateway,
    account: Account,
    *,
    to: str | None,
    data: bytes,
    value: int = 0,
    nonce: int | None = None,
) -> bytes:
    """Sign and send as `sign` does; return the transaction hash.

    Raises:
        CallReverted, TransactionRejected, ChainUnavailable: nothing was sent.
        TransactionPending: it was sent and no answer came; it may be mined.
    """
    signed = sign(gateway, account, to=to, data=data, value=value, nonce=nonce)
    try:
        return gateway.send_raw(signed.raw)
    except ChainUnavailable as error:
        raise TransactionPending(signed.hash) from error


def wait(
    gateway: ChainGateway,
    tx_hash: bytes,
    *,
    timeout_s: float = 60.0,
    poll_s: float = 0.25,
    confirmations: int = 0,
) -> Receipt:
    """Return the receipt of `tx_hash`, mined well or reverted (look at `succeeded`).

    An endpoint that is away meanwhile is asked again until the time is up.

    Raises:
        TransactionPending: no receipt with `confirmations` blocks on top within `timeout_s`.
            Unknown is not failed.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        failure: ChainUnavailable | None = None
        try:
            if (receipt := receipt_below(gateway, tx_hash, confirmations)) is not None:
                return receipt
        except ChainUnavailable as error:
            failure = error
        if time.monotonic() + poll_s > deadline:
            raise TransactionPending(tx_hash) from failure
        time.sleep(poll_s)
