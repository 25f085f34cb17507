"""After the answer: what was told as settled is followed until it is final, and may be looked up.

settled ──> its block is replaced ──> said so in the log, and sent again, unchanged
   └──> so many blocks on top that nothing takes it back: not followed any more
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import structlog

from engine.chain import sender
from engine.chain.depth import mined
from engine.errors import Unavailable
from engine.payments.authorization import Authorization
from engine.payments.claims import Claim, Claims, Key
from engine.payments.relay import Relayer, TransactionLost
from engine.payments.settlement import Settlement, read_settlement

State = Literal["pending", "confirmed", "final", "orphaned", "failed", "refused", "expired"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """How far the chain is with what was sent. `depth` is in blocks on top, None if in none."""

    state: State
    tx_hash: bytes
    depth: int | None = None


class FollowUp:
    """The claims of a facilitator after they were answered. From any thread."""

    def __init__(self, relayers: Mapping[str, Relayer], claims: Claims) -> None:
        self._relayers = relayers
        self._claims = claims
        self._ticking = threading.Lock()
        self._undone: set[bytes] = set()
        """The transactions of which it was said that they are."""

    def is_undone(self, claim: Claim) -> bool:
        """Whether what was settled is not on the chain any more, or moves nothing there.

        Raises:
            Unavailable: the chain does not answer.
        """
        if not claim.raw:
            return False
        receipt = self._relayers[claim.key.network].gateway.receipt(claim.tx_hash)
        return receipt is None or not receipt.succeeded

    def look_up(self, key: Key) -> Known | None:
        """What became of an authorization that was sent; None if it was not, or not by us.

        Raises:
            Unavailable: the chain or the claims cannot be read.
        """
        relayer = self._relayers.get(key.network)
        claim = self._claims.find(key)
        if claim is None or relayer is None:
            return None
        tx_hash = claim.tx_hash
        if claim.state in ("refused", "expired"):
            return Known(claim.state, tx_hash)
        if not claim.raw:
            return Known("final", tx_hash)
        found = mined(relayer.gateway, tx_hash)
        if found is None:
            return Known("pending" if claim.state == "sent" else "orphaned", tx_hash)
        if found.depth < relayer.confirmations:
            return Known("pending", tx_hash, found.depth)
        if not found.receipt.succeeded:
            return Known("failed", tx_hash, found.depth)
        paid = read_settlement(found.receipt, key.token, _sent(claim))
        if not isinstance(paid, Settlement):
            return Known("refused", tx_hash, found.depth)
        state: State = "confirmed" if found.depth < relayer.finality else "final"
        return Known(state, tx_hash, found.depth)

    def tick(self) -> None:
        """Look once at all that is settled and not final. A silent chain is left for later."""
        with self._ticking:
            for relayer in self._relayers.values():
                claims = self._claims.not_final(relayer.network)
                try:
                    head = relayer.gateway.head()
                    for claim in claims:
                        self._follow(relayer, claim, head.number)
                except Unavailable as error:
                    _log.warning("not_followed", network=relayer.network, reason=error.message)

    def _follow(self, relayer: Relayer, claim: Claim, head_number: int) -> None:
        receipt = relayer.gateway.receipt(claim.tx_hash)
        if receipt is None:
            self._say_undone(claim, sent_again=self._send_again(relayer, claim))
            return
        final = head_number - receipt.block_number >= relayer.finality
        if not receipt.succeeded:
            self._say_undone(claim, sent_again=False)
            if final:
                self._claims.free(claim.key, claim.tx_hash)  # not what was sent since
            return
        self._undone.discard(claim.tx_hash)
        if final:
            self._claims.forget(claim)

    def _send_again(self, relayer: Relayer, claim: Claim) -> bool:
        try:
            relayer.send_again(claim)
        except TransactionLost:
            return False
        return True

    def _say_undone(self, claim: Claim, *, sent_again: bool) -> None:
        """Once."""
        if claim.tx_hash not in self._undone:
            self._undone.add(claim.tx_hash)
            tx_hash = f"0x{claim.tx_hash.hex()}"
            _log.error("settlement_undone", tx_hash=tx_hash, sent_again=sent_again)


def _sent(claim: Claim) -> Authorization:
    """What a claim's transaction settles: the first words of `transferWithAuthorization`."""
    data = bytes(sender.fields_of(claim.raw)["data"])[4:]
    payer, pay_to, amount, after, before, nonce = (data[at : at + 32] for at in range(0, 192, 32))
    return Authorization(
        payer=f"0x{payer[12:].hex()}",
        pay_to=f"0x{pay_to[12:].hex()}",
        amount=int.from_bytes(amount),
        valid_after_s=int.from_bytes(after),
        valid_before_s=int.from_bytes(before),
        nonce=nonce,
    )
