"""x402's `exact` scheme on EVM chains (EIP-3009), as the SDK settles it, with a memory.

The SDK verifies signatures, encodes the call and orders the steps. What it does not do is done
here: it forgets what it settled, believes whatever spelling `int()` takes, routes every `eip155`
network to the first chain registered, and calls a payment settled by one event. So, for a request:

1. It is read in its one spelling, and held against what this facilitator serves.
2. Its key (network, token, payer, nonce) is taken in hand: of two that come at once, one is
   refused, or told what was broadcast for the other if they are the very same.
3. A claim of the same key answers it: refused, or, if the very same request was left pending,
   answered from the transaction that was broadcast then. What a reorganisation undid is sent again.
4. The SDK verifies and broadcasts, through `GatewaySigner`, which claims before it sends.
5. What is told is what the receipt's events show, or that nothing is known yet.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from x402.interfaces import FacilitatorContext
from x402.mechanisms.evm.constants import (
    ERR_EIP3009_NOT_SUPPORTED,
    ERR_NONCE_ALREADY_USED,
    ERR_SETTLEMENT_PENDING,
    ERR_TRANSACTION_FAILED,
    ERR_VALID_BEFORE_EXPIRED,
)
from x402.mechanisms.evm.exact import ExactEvmFacilitatorScheme
from x402.schemas import PaymentPayload, PaymentRequirements, SettleResponse, VerifyResponse

from engine.chain.gateway import ChainUnavailable, Receipt
from engine.errors import Unavailable
from engine.payments.asked import Asked, Refused, payer_of, read_asked
from engine.payments.claims import Claim, Claims, Key
from engine.payments.follow_up import FollowUp
from engine.payments.gateway_signer import GatewaySigner
from engine.payments.relay import Relayer, TransactionLost
from engine.payments.served import Served
from engine.payments.settlement import NotSettled, read_settlement

DUPLICATE = "duplicate_settlement"
"""The key was settled or refused before, or is being settled, or by another request."""

_log = structlog.get_logger(__name__)


class ClaimedExactScheme:
    """A `SchemeNetworkFacilitator` of the SDK, for all networks that are served at once.

    Whoever calls it hears `Unavailable` where the chain or the claims cannot be read and nothing
    was sent: no answer is a false one.
    """

    scheme = "exact"
    caip_family = "eip155:*"

    def __init__(
        self, relayers: Mapping[str, Relayer], claims: Claims, follow_up: FollowUp, served: Served
    ) -> None:
        self._relayers = relayers
        self._claims = claims
        self._follow_up = follow_up
        self._served = served
        self._in_hand = _InHand()

    def get_extra(self, network: str) -> dict[str, Any] | None:
        """Nothing more to be known about it."""
        del network
        return None

    def get_signers(self, network: str) -> list[str]:
        """Who pays the gas on a network."""
        return [self._relayers[network].address]

    def verify(
        self,
        payload: PaymentPayload,
        requirements: PaymentRequirements,
        context: FacilitatorContext | None = None,
    ) -> VerifyResponse:
        """Whether `settle` of the same would be answered with success now, as far as one can see.

        Raises:
            Unavailable: nobody can see.
        """
        payer = payer_of(payload)
        try:
            asked = read_asked(payload, requirements, self._relayers, self._served)
            self._in_hand.check_free(asked.key)
            claim = self._own_claim(asked)
            if claim is not None and self._may_still_settle(claim, asked):
                return VerifyResponse(is_valid=True, payer=payer)
            signer = self._signer(asked, None)
            self._check_unused(signer)
            with _undoubted(signer):
                return ExactEvmFacilitatorScheme(signer).verify(payload, requirements, context)
        except Refused as refusal:
            return VerifyResponse(
                is_valid=False,
                invalid_reason=refusal.code,
                invalid_message=refusal.message,
                payer=payer,
            )

    def settle(
        self,
        payload: PaymentPayload,
        requirements: PaymentRequirements,
        context: FacilitatorContext | None = None,
    ) -> SettleResponse:
        """Settle once, whatever is asked how often.

        Raises:
            Unavailable: nobody can see whether it may be settled; nothing was sent.
        """
        try:
            asked = read_asked(payload, requirements, self._relayers, self._served)
            with self._in_hand.taking(asked.key) as taken:
                claim = self._own_claim(asked, taken=taken)
                if not taken:
                    return self._being_settled(claim)
                signer = self._signer(asked, claim)
                if claim is not None:
                    signer = self._take_up(signer, claim, asked)
                if signer.claim is None:
                    self._check_unused(signer)
                scheme = ExactEvmFacilitatorScheme(signer, pending_store=signer)
                with _undoubted(signer):
                    answer = scheme.settle(payload, requirements, context)
                return self._told(signer, asked, answer)
        except Refused as refusal:
            return SettleResponse(
                success=False,
                error_reason=refusal.code,
                error_message=refusal.message,
                payer=payer_of(payload),
                transaction=refusal.transaction,
                network=payload.accepted.network,
            )

    # 3. Claims

    def _own_claim(self, asked: Asked, *, taken: bool = False) -> Claim | None:
        """The claim that this very request left pending, if any."""
        claim = self._claims.find(asked.key)
        same = claim is not None and claim.digest == asked.digest
        if claim is None or (same and claim.state == "sent"):
            return claim
        code, state = DUPLICATE, _STATES[claim.state]
        if claim.state == "settled" and self._follow_up.is_undone(claim):
            if taken and not self._send_undone(claim, asked):
                return None
            # Success was told once: whoever was told it has handed something out for it.
            code = ERR_SETTLEMENT_PENDING if same else DUPLICATE
            state = "settled, and a reorganisation undid it,"
        raise Refused(code, f"this payer's nonce was {state} before", claim.tx_hash)

    def _send_undone(self, claim: Claim, asked: Asked) -> bool:
        """Send what was settled and undone again; False if it moves nothing any more."""
        relayer = self._relayers[asked.key.network]
        if relayer.gateway.receipt(claim.tx_hash) is not None:
            lost = relayer.known(claim.tx_hash) is not None  # it was mined again, and reverted
        else:
            self._check_not_over(self._signer(asked, claim), claim, asked)
            lost = False
            try:
                relayer.send_again(claim)
            except TransactionLost:
                lost = True
            except ChainUnavailable as error:  # it may have been accepted
                _log.warning("settlement_unknown", reason=error.message)
        if lost:
            self._claims.free(asked.key)
        return not lost

    def _take_up(self, signer: GatewaySigner, claim: Claim, asked: Asked) -> GatewaySigner:
        """Go on with what was broadcast; start anew only if that can no longer be mined."""
        relayer = self._relayers[asked.key.network]
        try:
            signer.receipt = relayer.known(claim.tx_hash)
            if signer.receipt is None and relayer.gateway.receipt(claim.tx_hash) is None:
                self._check_not_over(signer, claim, asked)
                relayer.send_again(claim)
        except TransactionLost:
            self._claims.free(asked.key)
            return self._signer(asked, None)
        except Unavailable as error:
            _log.warning("settlement_unknown", reason=error.message)
        return signer

    def _check_not_over(self, signer: GatewaySigner, claim: Claim, asked: Asked) -> None:
        """An authorization that ended unused, by the clock of one block, is never used."""
        head = self._relayers[asked.key.network].known_head()
        if head is None or head.timestamp_s < asked.authorization.valid_before_s:
            return
        with suppress(RuntimeError):
            if not signer.is_used(block=head.number):
                self._claims.close(asked.key, "expired")
                raise Refused(ERR_VALID_BEFORE_EXPIRED, "it was not mined in time", claim.tx_hash)

    def _may_still_settle(self, claim: Claim, asked: Asked) -> bool:
        relayer = self._relayers[asked.key.network]
        receipt = relayer.gateway.receipt(claim.tx_hash)
        return receipt is None or receipt.succeeded

    def _being_settled(self, claim: Claim | None) -> SettleResponse:
        """Whoever has it in hand is told the end of it; nobody is told success twice."""
        if claim is None:
            raise Refused(DUPLICATE, "it is being settled")
        return _pending(claim)

    # 4. and 5. The chain

    def _signer(self, asked: Asked, claim: Claim | None) -> GatewaySigner:
        return GatewaySigner(self._relayers[asked.key.network], asked.key, asked.digest, claim)

    def _check_unused(self, signer: GatewaySigner) -> None:
        """A token that takes a used nonce in silence would cost gas for nothing, or pay twice."""
        try:
            used = signer.is_used()
        except RuntimeError as error:
            raise Refused(ERR_EIP3009_NOT_SUPPORTED, str(error)) from error
        if used:
            raise Refused(ERR_NONCE_ALREADY_USED, "the authorization was used or canceled")

    def _told(self, signer: GatewaySigner, asked: Asked, answer: SettleResponse) -> SettleResponse:
        """The answer of the SDK if nothing was broadcast; else what the chain shows."""
        if signer.claim is None:
            return answer
        if signer.receipt is None:
            return _pending(signer.claim)
        try:
            return self._concluded(signer.receipt, asked)
        except Unavailable as error:
            # What is not noted is not told either: the same request is told another time.
            _log.warning("settlement_unknown", reason=error.message)
            return _pending(signer.claim)

    def _concluded(self, receipt: Receipt, asked: Asked) -> SettleResponse:
        outcome = _outcome(asked.key, receipt.tx_hash)
        if not receipt.succeeded:
            self._claims.free(asked.key)
            return SettleResponse(
                success=False,
                error_reason=ERR_TRANSACTION_FAILED,
                error_message="the transaction reverted: nothing was moved",
                **outcome,
            )
        found = read_settlement(receipt, asked.key.token, asked.authorization)
        if isinstance(found, NotSettled):
            self._claims.close(asked.key, "refused")
            _log.warning("settlement_refused", code=found.code, **outcome)
            return SettleResponse(
                success=False,
                error_reason=f"invalid_exact_evm_{found.code}",
                error_message=found.reason,
                **outcome,
            )
        relayer = self._relayers[asked.key.network]
        self._claims.close(asked.key, "settled", final=relayer.confirmations >= relayer.finality)
        return SettleResponse(success=True, amount=str(found.amount), **outcome)


_STATES = {
    "sent": "broadcast",
    "settled": "settled",
    "refused": "used, and paid something else,",
    "expired": "broadcast, and not mined in time,",
}


class _InHand:
    """Keys that are being settled at this moment. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[Key] = set()

    def check_free(self, key: Key) -> None:
        """Refuse a key that somebody holds."""
        with self._lock:
            if key in self._keys:
                raise Refused(DUPLICATE, "it is being settled")

    @contextmanager
    def taking(self, key: Key) -> Iterator[bool]:
        """Hold a key; False if somebody else does."""
        with self._lock:
            taken = key not in self._keys
            self._keys.add(key)
        try:
            yield taken
        finally:
            if taken:
                with self._lock:
                    self._keys.remove(key)


@contextmanager
def _undoubted(signer: GatewaySigner) -> Iterator[None]:
    """What the SDK says of a chain that it could not read, and where nothing was sent, is nothing.

    Raises:
        Unavailable: that is so.
    """
    try:
        yield
    except RuntimeError as error:
        if signer.doubt is None:
            raise
        raise signer.doubt from error
    if signer.doubt is not None and signer.claim is None:
        raise signer.doubt


def _outcome(key: Key, tx_hash: bytes) -> dict[str, Any]:
    return {
        "payer": key.payer,
        "transaction": f"0x{tx_hash.hex()}",
        "network": key.network,
    }


def _pending(claim: Claim) -> SettleResponse:
    return SettleResponse(
        success=False,
        error_reason=ERR_SETTLEMENT_PENDING,
        error_message="it was broadcast; ask again with the same request",
        **_outcome(claim.key, claim.tx_hash),
    )
