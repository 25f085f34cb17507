"""The gate: what a 402 asks for is decided by the policy, recorded, and only then signed.

    offers of the 402 ──> those on our networks, in our tokens ──> the ledger: the cheapest that the
    policy allows is held and what is to be signed is recorded, in one transaction ──> signature

The wire format is x402's, version 2, scheme `exact` by EIP-3009 on EVM chains.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.chain.gateway import BlockHeader, ChainError, ChainGateway
from engine.errors import InvalidInput, Unavailable
from engine.ledger.ask import Ask, ask
from engine.ledger.paying import Paying
from engine.ledger.payment import Payment
from engine.ledger.settlements import Settlements, SettlementView
from engine.ledger.signing import Way
from engine.payments.authorization import Authorization, TokenDomain
from engine.payments.offers import OFFERS_MAX, Offer, Unusable, read_offers
from engine.payments.signer import Signer
from engine.payments.terms import Terms, is_method, is_sha256, read_resource
from engine.payments.token_domain import DomainUnknown, read_token_domain
from engine.policy.decision import PaymentRequest
from engine.policy.money import format_usd, micro_usd_of
from engine.settings import Token

X402_VERSION = 2
REASON_LENGTH_MAX = 200


class NoUsableOffer(InvalidInput):
    """Nothing that a 402 offers can be paid; `details` has the reasons, each with its position."""

    def __init__(self, reasons: Sequence[Mapping[str, Any]]) -> None:
        told = "; ".join(f"offer {each['position']}: {each['reason']}" for each in reasons[:3])
        message = told or "there is no offer"
        super().__init__("payment_required", message, code="no_usable_offer")
        self.details = {"field": "payment_required", "reasons": list(reasons)}


@dataclass(frozen=True, slots=True)
class Signed:
    """A payment with its signature; `payload` is x402's PaymentPayload, `header` that in base64."""

    payment: Payment
    settlement: SettlementView
    authorization: Authorization
    payload: Mapping[str, Any]
    header: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    offer: Offer
    way: Way


class Gate:
    """The only way to a signature. `chains` are those that payments can be on, by CAIP-2 id."""

    def __init__(
        self,
        paying: Paying,
        settlements: Settlements,
        signer: Signer,
        tokens: Sequence[Token],
        chains: Mapping[str, ChainGateway],
    ) -> None:
        self._paying = paying
        self._settlements = settlements
        self._signer = signer
        self._tokens = {token.asset: token for token in tokens}
        self._chains = chains
        self._domains: dict[str, TokenDomain] = {}

    def pay(
        self,
        session_id: str,
        required: Mapping[str, Any],
        resource: str,
        method: str = "GET",
        body_sha256: str | None = None,
        *,
        key: str | None = None,
        amount_max: int | None = None,
        metadata_json: str = "{}",
    ) -> Signed | Payment:
        """Pay what a 402 answer (`required`, x402's PaymentRequired) asks for a request.

        `resource` is the URL as it was asked for, `body_sha256` the hash of the request's body in
        hexadecimal. What costs more than `amount_max`, in micro-USD, is no offer. A payment that
        the policy denies is returned without a signature. The same request is answered with the
        same payment and the same signature, see `Paying.pay`.

        Raises:
            InvalidInput: a field is unacceptable.
            NoUsableOffer: there is no offer that could be paid, which is on record.
            NotFound, Conflict: see `Paying.pay`.
            Unavailable: no safe decision is possible now, or no chain of an offer answers.
        """
        accepts = _accepts(required)
        request = _request(resource, method, body_sha256)
        offers, unusable = read_offers(accepts)
        candidates: list[_Candidate] = []
        heads: dict[str, BlockHeader | None] = {}
        for offer in offers:
            try:
                asked = self._ask(session_id, offer, request, key, amount_max, metadata_json)
                head = self._head(offer, heads)
            except _Useless as useless:
                unusable.append(Unusable(offer.position, str(useless)))
            else:
                way = Way(asked, None, 0)
                if head is not None:
                    way = Way(asked, head.number, head.timestamp_s)
                candidates.append(_Candidate(offer, way))
        if not candidates:
            self._refuse(session_id, request, len(accepts), unusable, key)
        candidates.sort(key=lambda each: (each.way.asked.request.amount, each.offer.position))
        payment = self._paying.pay([each.way for each in candidates]).result()
        if payment.state == "denied":
            return payment
        offer = next(
            each.offer for each in candidates if each.way.terms == payment.request["terms"]
        )
        return self._signed(payment, offer, required)

    def _ask(
        self,
        session_id: str,
        offer: Offer,
        request: "_Request",
        key: str | None,
        amount_max: int | None,
        metadata_json: str,
    ) -> Ask:
        """What the ledger is asked for an offer.

        Raises:
            _Useless: it is on a network, in a token or of an amount that is not paid here.
        """
        if offer.network not in self._chains:
            raise _Useless(f"network {offer.network} is not configured")
        token = self._tokens.get(offer.asset)
        if token is None:
            raise _Useless(f"token {offer.asset} is not configured")
        try:
            amount = micro_usd_of(offer.amount, token.decimals)
        except ValueError as error:
            raise _Useless(str(error)) from error
        if amount_max is not None and amount > amount_max:
            raise _Useless(f"it costs {format_usd(amount)}, more than {format_usd(amount_max)}")
        terms = Terms.of_offer(offer, request.resource, request.method, request.body_sha256)
        return ask(
            session_id,
            PaymentRequest(
                amount=amount,
                merchant=request.merchant,
                token=offer.asset,
                chain=offer.network,
                token_priced=token.usd_price is not None,
                pay_to=offer.pay_to,
            ),
            memo={"description": None, "metadata_json": metadata_json},
            key=key,
            terms=terms.to_json(),
        )

    def _head(self, offer: Offer, heads: dict[str, BlockHeader | None]) -> BlockHeader | None:
        """The newest block of an offer's chain, if that answers and tells the token's domain.

        Raises:
            _Useless: the token has no domain that could be signed in.
        """
        network = offer.network
        if network not in heads:
            heads[network] = None
            try:
                heads[network] = self._chains[network].head()
            except ChainError:
                return None
        try:
            self._domain(offer)
        except DomainUnknown as error:
            raise _Useless(f"token {offer.asset}: {error.message}") from error
        except ChainError:
            return None
        return heads[network]

    def _domain(self, offer: Offer) -> TokenDomain:
        known = self._domains.get(offer.asset)
        if known is None:
            known = read_token_domain(self._chains[offer.network], offer.token)
            self._domains[offer.asset] = known
        return known

    def _refuse(
        self,
        session_id: str,
        request: "_Request",
        offers: int,
        unusable: Sequence[Unusable],
        key: str | None,
    ) -> None:
        """Raises NoUsableOffer, once that is on record."""
        reasons = [
            {"position": each.position, "reason": each.reason[:REASON_LENGTH_MAX]}
            for each in sorted(unusable, key=lambda each: each.position)[:OFFERS_MAX]
        ]
        told = {
            "resource": request.resource,
            "method": request.method,
            "body_sha256": request.body_sha256,
            "offers": offers,
            "reasons": reasons,
            "idempotency_key": key,
        }
        self._paying.refuse(session_id, told).result()
        raise NoUsableOffer(reasons)

    def _signed(self, payment: Payment, offer: Offer, required: Mapping[str, Any]) -> Signed:
        settlement = self._settlements.of([payment]).get(payment.id)
        if settlement is None:
            raise Unavailable(f"payment {payment.id} is not signed", code="session_damaged")
        domain = self._domain(offer)
        authorization, signature = self._signer.sign(payment, settlement.record_id, domain)
        payload: dict[str, Any] = {
            "x402Version": X402_VERSION,
            "payload": {
                "signature": "0x" + signature.hex(),
                "authorization": authorization.wire,
            },
            "accepted": dict(offer.accepted),
        }
        for name in ("resource", "extensions"):
            if isinstance(required.get(name), Mapping):
                payload[name] = required[name]
        text = json.dumps(payload, separators=(",", ":"))
        header = base64.b64encode(text.encode()).decode()
        return Signed(payment, settlement, authorization, payload, header)


class _Useless(Exception):
    """Why an offer that could be paid by somebody cannot be paid by us."""


@dataclass(frozen=True, slots=True)
class _Request:
    """The request that is paid for."""

    resource: str
    merchant: str
    method: str
    body_sha256: str | None


def _accepts(required: Mapping[str, Any]) -> Sequence[Any]:
    version, accepts = required.get("x402Version"), required.get("accepts")
    if version != X402_VERSION or type(version) is not int:
        raise InvalidInput("payment_required", f"x402Version is not {X402_VERSION}")
    if not isinstance(accepts, list):
        raise InvalidInput("payment_required", "accepts is no list")
    return accepts


def _request(resource: str, method: str, body_sha256: str | None) -> _Request:
    try:
        url, merchant = read_resource(resource)
    except ValueError as error:
        raise InvalidInput("resource", str(error)) from error
    if not is_method(method):
        raise InvalidInput("method", "takes an HTTP method in capital letters")
    if body_sha256 is not None and not is_sha256(body_sha256):
        raise InvalidInput("body_sha256", "takes 64 hexadecimal digits in lower case")
    return _Request(url, merchant, method, body_sha256)
