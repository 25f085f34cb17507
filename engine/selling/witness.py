"""What the chain shows of one authorization: where an answer of a facilitator is doubtful or lost.

A facilitator that is silent, or says that a nonce was used, says nothing of who was paid. The
token's events do, whoever sent the transaction: see `engine/payments/settlement.py`.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from eth_utils.crypto import keccak

from engine.chain import sender
from engine.chain.contracts import AUTHORIZATION_USED, ERC20_TRANSFER
from engine.chain.gateway import (
    CallReverted,
    ChainGateway,
    ChainUnavailable,
    Receipt,
    TransactionPending,
)
from engine.payments.authorization import Authorization
from engine.payments.settlement import Settlement, read_settlement

CONFIRMING_S = 10.0
"""So long a transaction that a facilitator names is waited for."""
REPLACED_MAX = 64
"""So many blocks before the newest are looked at too: it may have been replaced."""
_STATE = keccak(text="authorizationState(address,bytes32)")[:4]
_CANCELED = keccak(text="AuthorizationCanceled(address,bytes32)")


@dataclass(frozen=True, slots=True)
class Sight:
    """`paid` names the transaction. `void`: it was used up otherwise, or ended unused, and will
    never pay. `open`: it was not used, and can still be."""

    state: Literal["paid", "void", "open"]
    transaction: str | None = None


class Witness:
    """One chain. For threads of any kind. What has fewer than `confirmations` blocks on top is
    not seen yet.

    Every method raises `ChainUnavailable` if nobody can see.
    """

    def __init__(self, gateway: ChainGateway, *, confirmations: int = 0) -> None:
        self._gateway = gateway
        self._confirmations = confirmations
        self.network = f"eip155:{gateway.chain_id}"

    def since(self) -> int:
        """The block after which whatever is settled from now on is found."""
        return max(0, self._gateway.head().number - REPLACED_MAX)

    def confirms(self, token: str, authorization: Authorization, transaction: str) -> bool:
        """Whether this transaction paid what was authorised."""
        try:
            tx_hash = bytes.fromhex(transaction.removeprefix("0x"))
            receipt = sender.wait(
                self._gateway,
                tx_hash,
                timeout_s=CONFIRMING_S,
                poll_s=CONFIRMING_S / 100,
                confirmations=self._confirmations,
            )
        except ValueError:
            return False
        except TransactionPending as error:
            raise ChainUnavailable(error.message) from error
        if not receipt.succeeded:
            return False
        return _pays(receipt, token, authorization)

    def look(self, token: str, authorization: Authorization, since: int) -> Sight:
        """What became of an authorization since a block."""
        head = deep = self._gateway.head()
        if self._confirmations:
            found = self._gateway.block(max(0, head.number - self._confirmations))
            if found is None:
                raise ChainUnavailable("the chain has become shorter while it was asked")
            deep = found
        if not self._is_used(token, authorization, deep.number):
            if deep != head and self._is_used(token, authorization, head.number):
                raise ChainUnavailable("an authorization was used, and it is not deep enough yet")
            over = deep.timestamp_s >= authorization.valid_before_s
            return Sight("void" if over else "open")
        payer = bytes.fromhex(authorization.payer[2:]).rjust(32, b"\0")
        uses = self._gateway.logs(
            from_block=min(since, deep.number),
            to_block=deep.number,
            addresses=[token],
            topics=[(AUTHORIZATION_USED, _CANCELED), payer, authorization.nonce],
        )
        for use in uses:
            if use.topics[0] == _CANCELED:
                return Sight("void")
            receipt = self._gateway.receipt(use.tx_hash)
            if receipt is None or not receipt.succeeded:
                break
            if _pays(receipt, token, authorization):
                return Sight("paid", f"0x{use.tx_hash.hex()}")
            return Sight("void")  # it was used, and paid something else
        raise ChainUnavailable("an authorization was used, and nothing shows for what")

    def _is_used(self, token: str, authorization: Authorization, block: int) -> bool:
        payer = bytes.fromhex(authorization.payer[2:]).rjust(32, b"\0")
        try:
            answer = self._gateway.call(token, _STATE + payer + authorization.nonce, block=block)
        except CallReverted as error:
            raise ChainUnavailable(f"the token does not tell what was used: {error}") from error
        if len(answer) != 32:
            raise ChainUnavailable("the token does not tell what was used")
        return answer[-1] != 0


def _pays(receipt: Receipt, token: str, authorization: Authorization) -> bool:
    """Whether what was authorised was paid in this transaction.

    Anybody may send an authorization, and do other things in the same transaction: pay for others,
    or give the payee something more. Then it was paid if

    1. the token says that it used this payer's nonce, and
    2. next that it moved the amount from payer to payee (so EIP-3009 has it; what is said next is
       said of this authorization, and so of no other), and
    3. nothing was moved from the payee.
    """
    if isinstance(read_settlement(receipt, token, authorization), Settlement):
        return True
    payer, pay_to = (
        bytes.fromhex(party[2:]).rjust(32, b"\0")
        for party in (authorization.payer, authorization.pay_to)
    )
    events = [log for log in receipt.logs if log.address == token]
    told = [(list(log.topics), log.data) for log in events]
    used = [AUTHORIZATION_USED, payer, authorization.nonce], b""
    moved = [ERC20_TRANSFER, payer, pay_to], authorization.amount.to_bytes(32)
    from_payee = any(topics[:2] == [ERC20_TRANSFER, pay_to] for topics, _ in told)
    return not from_payee and (used, moved) in pairwise(told)
