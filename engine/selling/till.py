"""Where payments are taken: each is settled before anything is handed out, and buys one thing once.

    sale = await till.open(payment, cost, request, ready)       # settled, or it raises
    with till.storage.paid_by(sale.payer):
        …                                                       # what was bought
    await sale.hold()                                           # it is still for us alone
    …                                                           # hand it out
    await sale.used()                                           # that was done; or sale.left()

It knows no HTTP: `payment` is x402's `PaymentPayload` as an object, and `request` whatever tells
requests apart (see `digest_of`). docs/decisions/0028 says why it is as it is.
"""

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from x402.mechanisms.evm.constants import ERR_NONCE_ALREADY_USED, ERR_SETTLEMENT_PENDING
from x402.schemas import (
    PaymentPayload,
    PaymentRequired,
    PaymentRequirements,
    ResourceInfo,
    SettleResponse,
)

from engine.clock import Clock, system_clock
from engine.errors import TallystickError, Unavailable
from engine.selling.currency import Cost
from engine.selling.grant import Grant
from engine.selling.methods import PaymentMethod, PaymentMethods
from engine.selling.places import Places
from engine.selling.presented import Presented, read_presented
from engine.selling.refusals import PaymentPending, PaymentRefused
from engine.selling.sale import Sale
from engine.selling.visits import Visits
from engine.selling.witness import Sight, Witness
from engine.storage.grants import Grants
from engine.storage.payer import Payer
from engine.storage.session import Session, Storage

T = TypeVar("T")

LEASE_MS = 120_000
"""So long one request works on a payment: more than a facilitator and a chain are waited for."""
SETTLEMENTS_MAX = 64
"""So many payments of each network are verified and settled at once; who comes then is asked to
come again."""
PAYER_SETTLEMENTS_MAX = 16
"""So many, on all networks, may be one payer's."""
ANSWER_S = 30.0
"""So long a facilitator is waited for; then what it does with a payment is unknown."""
WATCHERS = 16
"""So many threads ask each chain, and wait for it, beside the event loop's own."""

Ready = Callable[[Session, str], Awaitable[None]]
"""Raises what would keep a payer from what is asked for, before anything is settled. The text is
the `reservation` under which room may be kept; it is let go if nothing was paid."""

_DOUBTFUL = (ERR_SETTLEMENT_PENDING, ERR_NONCE_ALREADY_USED, "duplicate_settlement")
"""Reasons that do not say whether the payment was made."""
_FULL = "too many payments are being settled: send it again"
_log = structlog.get_logger(__name__)


def digest_of(*parts: str | bytes) -> str:
    """What requests are told apart by: SHA-256 of its parts, each with its length."""
    encoded = [part.encode() if isinstance(part, str) else part for part in parts]
    framed = b"".join(len(part).to_bytes(8) + part for part in encoded)
    return hashlib.sha256(b"tallystick/request/1\n" + framed).hexdigest()


class Till:
    """Takes payments by any of the `methods`, for what `storage` has and for anything else.

    `grants` are the store's own if it has some. With `visits` who paid may read again by signing
    in.

    Raises:
        ValueError: the store has none, or see `PaymentMethods`.
    """

    def __init__(
        self,
        storage: Storage | Callable[[], Storage],
        *methods: PaymentMethod,
        grants: Grants | None = None,
        visits: Visits | None = None,
        lease_ms: int = LEASE_MS,
        settlements_max: int = SETTLEMENTS_MAX,
        payer_settlements_max: int = PAYER_SETTLEMENTS_MAX,
        answer_s: float = ANSWER_S,
        clock: Clock = system_clock,
    ) -> None:
        self._storage = storage
        self.methods = PaymentMethods(methods)
        self._own_grants = grants
        self._visits = visits
        self._lease_ms = lease_ms
        self._places = Places(settlements_max, payer_settlements_max)
        self._answer_s = answer_s
        self._watchers: dict[str, ThreadPoolExecutor] = {}
        self._clock = clock
        self._numbers = itertools.count(1)
        self._check_grants()

    @property
    def storage(self) -> Storage:
        """What payers stored."""
        return self._storage if isinstance(self._storage, Storage) else self._storage()

    def required(
        self, cost: Cost, resource: str, error: str | None = None, *, visit: str | None = None
    ) -> PaymentRequired:
        """What is told to somebody who has not paid: x402's `PaymentRequired`.

        `visit` is path and query of what may be read by signing in.
        """
        visits = None if visit is None else self._visits
        return PaymentRequired(
            error=error or "Payment required",
            resource=ResourceInfo(url=resource),
            accepts=self.methods.offers(cost),
            extensions=visits and visits.offer(str(visit), self.methods.networks),
        )

    async def enter(self, told: Mapping[str, Any], visit: str) -> Payer | None:
        """Who signed in to read `visit` (path and query); None if that is not to be had here.

        Raises:
            SignInRefused: see `Visits.enter`.
        """
        if self._visits is None:
            return None
        grants = self._check_grants()
        return await self._visits.enter(grants, told, visit, self.methods.networks)

    async def open(
        self, payment: Mapping[str, Any], cost: Cost, request: str, ready: Ready | None = None
    ) -> Sale:
        """Take a payment of what something costs, for what `request` (see `digest_of`) stands for.

        It returns when the payment is settled, and then it is for the caller alone until the sale
        is `used` or `left`. `ready` is asked before, of who would pay; of a payment that was
        claimed before only if the chain shows that it is not paid.

        Raises:
            PaymentRefused: nothing was paid by it.
            PaymentUsed, PaymentForAnother: it bought something else, or this already.
            Unavailable: nobody can tell now; the same payment, sent again, goes on from there.
        """
        grants = self._check_grants()
        presented = read_presented(payment, self.methods.currencies)
        holder = f"{grants.opening}/{next(self._numbers)}"
        while True:
            kept, now_ms = await grants.read(presented.id)
            grant = None if kept is None else Grant.read(kept)
            if grant is not None:
                grant.check(request, presented.digest)
            with self._place(presented, grant):
                try:
                    claim = grant or await self._claim(presented, cost, request, ready)
                except PaymentRefused:
                    # Whoever else came with it may have had it settled meanwhile.
                    if (await grants.read(presented.id))[0] is None:
                        raise
                    continue
                gone = not grants.shared and not claim.holder.startswith(f"{grants.opening}/")
                held = claim.held(holder, now_ms, now_ms + self._lease_ms, gone=gone)
                if await grants.replace(presented.id, kept, held.body):
                    sale = Sale(self.storage, grants, presented, held, self._lease_ms)
                    if held.state == "claimed":
                        await self._settle(sale, None if grant is None else ready)
                    return sale

    def _place(self, presented: Presented, grant: Grant | None) -> AbstractContextManager[object]:
        """Of a payment that is not settled: nobody else is waited for where one is."""
        if grant is not None and grant.state == "settled":
            return nullcontext()
        full = PaymentPending(_FULL) if grant is not None else Unavailable(_FULL, code="busy")
        return self._places.taken(presented.id, presented.payer, full)

    async def _claim(
        self, presented: Presented, cost: Cost, request: str, ready: Ready | None
    ) -> Grant:
        """A claim of a payment that comes for the first time, and would be settled."""
        wanted = presented.choose(self.methods.offers(cost), self._clock())
        method = self.methods.of(presented.currency)
        await self._verify(method, presented, wanted)
        since = (
            None
            if method.witness is None
            else await self._watch(method.witness, method.witness.since)
        )
        if ready is not None:  # last, so that nothing fails after it has kept room
            await ready(self.storage.session(presented.payer), presented.id)
        settling = {
            "payload": presented.payload.model_dump(mode="json", by_alias=True),
            "requirements": wanted.model_dump(mode="json", by_alias=True),
            "since": since,
        }
        return Grant("claimed", request, presented.digest, settling)

    async def _verify(
        self, method: PaymentMethod, presented: Presented, wanted: PaymentRequirements
    ) -> None:
        try:
            async with asyncio.timeout(self._answer_s):
                verified = await method.facilitator.verify(presented.payload, wanted)
        except Exception as error:  # whatever went wrong, nothing was verified
            raise Unavailable(
                "the facilitator does not answer", code="facilitator_unavailable"
            ) from error
        if not verified.is_valid:
            raise PaymentRefused(
                verified.invalid_message or "the facilitator refuses it",
                code=verified.invalid_reason or PaymentRefused.code,
            )

    async def _settle(self, sale: Sale, ready: Ready | None) -> None:
        seen = None if ready is None else await self._seen(sale, ready)
        outcome = seen or await self._outcome(sale)
        if isinstance(outcome, _Paid):
            if self._visits is not None:  # before it counts as settled: a crash skips nothing
                await self._visits.begin(self._check_grants(), sale.payer)
            await sale.settled(outcome.transaction)
            return
        if isinstance(outcome, _Unpaid):
            await sale.drop()
            raise PaymentRefused(outcome.reason, code=outcome.code)
        await sale.left()
        raise PaymentPending(
            "it is not known yet whether this payment was made: send it again, and no other",
            transaction=outcome.transaction,
        )

    async def _seen(self, sale: Sale, ready: Ready) -> "_Paid | _Unpaid | None":
        """What became of a payment that was claimed before; None if it is still to be settled.

        Raises what speaks against that by now: the claim stays, and is good once nothing does.
        """
        sight = await self._look(sale)
        if sight is not None and sight.state == "open":
            try:
                await ready(sale.session, sale.reservation)
            except TallystickError:
                await sale.left()
                raise
        return _shown(sight)

    async def _outcome(self, sale: Sale) -> "_Paid | _Unpaid | _Unknown":
        """What became of a claimed payment. That nothing is sent twice is the facilitator's."""
        settling = sale.grant.settling
        assert settling is not None
        payload = PaymentPayload.model_validate(settling["payload"])
        wanted = PaymentRequirements.model_validate(settling["requirements"])
        method = self.methods.of(sale.presented.currency)
        try:
            async with asyncio.timeout(self._answer_s):
                answer = await method.facilitator.settle(payload, wanted)
        except Exception as error:  # noqa: BLE001 (whatever went wrong, it may have been sent)
            _log.warning("settlement_unknown", payment=sale.reservation, reason=repr(error)[:200])
            answer = None
        if answer is not None and answer.success:
            if true := await self._is_true(sale, answer):
                return _Paid(answer.transaction)
            if true is False:
                _log.error("settlement_contradicted", payment=sale.reservation)
        # A transaction that nobody has seen to pay is not passed on as if it had.
        sent = None if answer is None or answer.success else answer.transaction or None
        sight = await self._look(sale)
        if (shown := _shown(sight)) is not None:
            return shown
        if answer is None or answer.success or answer.error_reason in _DOUBTFUL:
            return _Unknown(sent)
        if sight is None and (sent or method.witness is not None):
            return _Unknown(sent)
        reason = answer.error_reason or "settlement_failed"
        return _Unpaid(reason, answer.error_message or "it could not be settled")

    async def _is_true(self, sale: Sale, answer: SettleResponse) -> bool | None:
        """Whether a success is of this payment; None if that cannot be seen yet."""
        authorization = sale.presented.authorization
        told = (answer.payer or authorization.payer).lower(), answer.network
        currency = sale.presented.currency
        if told != (authorization.payer, currency.network):
            return False
        witness = self.methods.of(currency).witness
        if witness is None:
            return True
        asked = currency.token, authorization, answer.transaction
        try:
            return await self._watch(witness, witness.confirms, *asked)
        except Unavailable as error:
            _log.warning("settlement_unconfirmed", reason=error.message)
            return None

    async def _look(self, sale: Sale) -> Sight | None:
        settling = sale.grant.settling
        assert settling is not None
        since, currency = settling["since"], sale.presented.currency
        witness = self.methods.of(currency).witness
        if witness is None or since is None:
            return None
        asked = currency.token, sale.presented.authorization, since
        try:
            return await self._watch(witness, witness.look, *asked)
        except Unavailable as error:
            _log.warning("settlement_unseen", reason=error.message)
            return None

    async def _watch(self, witness: Witness, function: Callable[..., T], *arguments: Any) -> T:
        """Ask its chain, on threads that nobody else waits for."""
        if (watchers := self._watchers.get(witness.network)) is None:
            watchers = self._watchers[witness.network] = ThreadPoolExecutor(WATCHERS, "witness")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(watchers, function, *arguments)

    def _check_grants(self) -> Grants:
        grants = self._own_grants or self.storage.grants
        if grants is None:
            raise ValueError("this store keeps no grants: give the till some")
        return grants


@dataclass(frozen=True, slots=True)
class _Paid:
    transaction: str


@dataclass(frozen=True, slots=True)
class _Unpaid:
    """It is sure that nothing was paid."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Unknown:
    transaction: str | None


def _shown(sight: Sight | None) -> _Paid | _Unpaid | None:
    """What the chain shows for sure."""
    if sight is not None and sight.state == "paid":
        assert sight.transaction is not None
        return _Paid(sight.transaction)
    if sight is not None and sight.state == "void":
        return _Unpaid("payment_void", "the authorization ended, or was canceled, unpaid")
    return None
