"""Sends others' payment authorizations to one chain, and pays the gas.

A transaction is signed, then written down as a claim, then sent: whoever is interrupted in between
sends the very same one again and never another. Sending is done one at a time, because two
transactions of one account must not take the same number.

Nothing is concluded from a block before so many are on top of it: what reverts in one fork may
succeed in another.
"""

import threading
from collections.abc import Callable

import structlog

from engine.chain import sender
from engine.chain.account import Account
from engine.chain.depth import receipt_below
from engine.chain.gateway import (
    BlockHeader,
    ChainGateway,
    ChainUnavailable,
    Receipt,
    TransactionPending,
    TransactionRejected,
)
from engine.clock import Clock, system_clock
from engine.errors import TallystickError
from engine.payments.claims import Claim, Claims, Key

GAS_MAX = 1_000_000
"""A transfer needs a tenth of it; a payer whose wallet is a contract has the rest."""
RECEIPT_TIMEOUT_S = 15.0
"""Resource servers, and who pays there, wait for a facilitator no longer than a minute or so."""

Sent = Callable[[Key, bytes], object]
"""Hears the hash of each transaction that may be on its way from now on."""

_log = structlog.get_logger(__name__)


class TransactionLost(Exception):
    """What was written down can no longer be mined: another transaction took its number."""


class Relayer:
    """One account on one chain; nobody else sends from it. May be used from any thread.

    `receipt_timeout_s` is how long it waits for a transaction before its fate is called unknown.
    What it did is known with `confirmations` blocks on top, and not followed any more with
    `finality`. `sent` is told of each; what it raises stops nothing.
    """

    def __init__(
        self,
        gateway: ChainGateway,
        account: Account,
        claims: Claims,
        *,
        receipt_timeout_s: float = RECEIPT_TIMEOUT_S,
        poll_s: float = 0.1,
        confirmations: int = 0,
        finality: int = 0,
        clock: Clock = system_clock,
        sent: Sent | None = None,
    ) -> None:
        self.gateway = gateway
        self.confirmations = confirmations
        self.finality = max(finality, confirmations)
        self.network = f"eip155:{gateway.chain_id}"
        self.address = account.address
        self._account = account
        self._claims = claims
        self._receipt_timeout_s = receipt_timeout_s
        self._poll_s = poll_s
        self._clock = clock
        self._sent = sent
        self._sending = threading.Lock()

    def broadcast(self, key: Key, digest: bytes, *, to: str, data: bytes) -> Claim:
        """Sign, write down, send. What comes back may have been mined, or not yet, or lost.

        Raises:
            CallReverted, TransactionRejected, ChainUnavailable, Unavailable: nothing was sent, and
                no claim is left.
        """
        with self._sending:
            signed = sender.sign(self.gateway, self._account, to=to, data=data, gas_max=GAS_MAX)
            claim = Claim(
                key=key,
                digest=digest,
                tx_hash=signed.hash,
                raw=signed.raw,
                sender=self.address.lower(),
                sender_nonce=signed.nonce,
                state="sent",
                opened_ms=self._clock(),
            )
            self._claims.open(claim)
            try:
                self.gateway.send_raw(signed.raw)
            except TransactionRejected:
                self._claims.free(key)
                raise
            except ChainUnavailable as error:
                _log.warning("settlement_unknown", tx_hash=_hex(signed.hash), reason=error.message)
        if self._sent is not None:
            try:
                self._sent(key, signed.hash)
            except TallystickError as error:
                _log.warning("sent_and_not_told", tx_hash=_hex(signed.hash), reason=error.message)
        return claim

    def wait(self, claim: Claim) -> Receipt | None:
        """The receipt of a claim's transaction; None if it was not deep enough in time."""
        try:
            return sender.wait(
                self.gateway,
                claim.tx_hash,
                timeout_s=self._receipt_timeout_s,
                poll_s=self._poll_s,
                confirmations=self.confirmations,
            )
        except TransactionPending:
            return None

    def known(self, tx_hash: bytes) -> Receipt | None:
        """The receipt of a transaction that is deep enough to be told of.

        Raises:
            ChainUnavailable: the chain does not answer.
        """
        return receipt_below(self.gateway, tx_hash, self.confirmations)

    def known_head(self) -> BlockHeader | None:
        """The newest block with enough on top; None if there is none.

        Raises:
            ChainUnavailable: the chain does not answer.
        """
        head = self.gateway.head()
        if not self.confirmations:
            return head
        number = head.number - self.confirmations
        return None if number < 0 else self.gateway.block(number)

    def send_again(self, claim: Claim) -> None:
        """Send a claim's transaction, of which there is no receipt, once more; unchanged.

        That there is none, though its number is used up, proves nothing: an endpoint in front of
        nodes that do not agree says so of a transaction that was mined. Another one of ours that
        was mined under the same number does prove it.

        Raises:
            TransactionLost: that is so.
            ChainUnavailable: it may or may not have been accepted.
        """
        for rival in self._claims.rivals(claim):
            if self.known(rival) is not None:
                raise TransactionLost
        with self._sending:
            try:
                self.gateway.send_raw(claim.raw)
            except TransactionRejected as error:
                # It may wait elsewhere all the same: its fate stays open.
                _log.warning("settlement_stuck", tx_hash=_hex(claim.tx_hash), reason=error.reason)


def _hex(tx_hash: bytes) -> str:
    return f"0x{tx_hash.hex()}"
