"""Transfers from a session: decided and signed as any x402 payment is, and sent by us.

    execute ──> the ledger: held, and what is to be signed is recorded, in one transaction
    tick, in the process that leads ──> sign ──> claim ──> send, from the operator's account

What is to be sent is what the database says is signed and not seen on the chain. So whoever is
interrupted in between goes on with it, and a claim keeps it from being sent twice. What becomes of
it is for who follows the chain (`SettlementWatch`).
"""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from engine.chain.account import Account
from engine.chain.gateway import ChainGateway
from engine.clock import Clock
from engine.clock import stopwatch as system_stopwatch
from engine.db.database import Database
from engine.db.settlements import OPEN, Settlement
from engine.db.tables import Session, table
from engine.errors import Conflict, InvalidInput, TallystickError
from engine.ledger.ask import ask
from engine.ledger.paying import Paying
from engine.ledger.payment import Payment, payment_id, stored_payment
from engine.ledger.signing import Way
from engine.payments.authorization import TokenDomain
from engine.payments.claims import Claim, Claims, Key
from engine.payments.relay import Relayer, TransactionLost
from engine.payments.settlement_reader import signed_of
from engine.payments.signer import Signer
from engine.payments.terms import SCHEME, TRANSFER, Terms
from engine.payments.token_domain import DomainUnknown, read_token_domain
from engine.payments.turns import Turns
from engine.policy.decision import PaymentRequest
from engine.policy.money import MICRO_USD_PER_USD
from engine.settings import Token

CLAIMS_FILE = "transfers.sqlite3"
TIMEOUT_S = 3_600
"""So long a transfer has to be mined; then its budget returns."""
RETRY_MS = 30_000
"""What is not mined is looked after again after so long; what failed first, too."""
RETRY_MAX_MS = 300_000
"""What fails again waits twice as long each time, and no longer than this."""
ATTEMPTS_MAX = 16
"""So many are attempted in one tick, since whoever leads has more to do than that."""
ATTEMPTS_MS = 1_000
"""After so long no other is begun in the same tick, however slow the chain answers."""

_DAMAGE = (AttributeError, KeyError, TypeError, ValueError)

_At = tuple[str, int]
"""The session, and the number of its record, as a payment is called here."""

_sessions = table(Session)
_settlements = table(Settlement)
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Failing:
    """How often a transfer failed, and the codes of the errors that were logged."""

    times: int = 0
    told: set[str] = field(default_factory=set)


class Transfers:
    """Those on one chain. `operator` pays the gas; nobody else sends from it while `tick` does."""

    def __init__(
        self,
        gateway: ChainGateway,
        network: str,
        operator: Account,
        directory: Path,
        database: Database,
        paying: Paying,
        signer: Signer,
        clock: Clock,
        *,
        stopwatch: Clock = system_stopwatch,
    ) -> None:
        self._gateway = gateway
        self._network = network
        self._operator = operator
        self._path = directory / CLAIMS_FILE
        self._database = database
        self._paying = paying
        self._signer = signer
        self._clock = clock
        self._stopwatch = stopwatch
        self._domains: dict[str, TokenDomain] = {}
        self._opening = threading.Lock()
        self._claims: Claims | None = None
        self._payments: dict[_At, Payment] = {}
        self._due_ms: dict[_At, int] = {}
        self._failing: dict[_At, _Failing] = {}
        self._turns = Turns()

    def execute(
        self,
        session_id: str,
        to: str,
        amount: int,
        token: Token,
        *,
        key: str | None = None,
        description: str | None = None,
    ) -> Payment:
        """Have `amount` micro-USD of a token sent from a session to `to`, if the policy allows it.

        The account is also the merchant that the policy knows. With a `key` the same request has
        the same answer; without one as long as nobody has seen it arrive, see `Paying.pay`.

        Raises:
            InvalidInput: a field is unacceptable.
            NotFound, Conflict: see `Paying.pay`.
            Unavailable: no safe decision is possible now, or the chain does not answer.
        """
        if token.chain != self._network:
            raise InvalidInput("chain", f"transfers are sent on {self._network} only")
        units, rest = divmod(amount * 10**token.decimals, MICRO_USD_PER_USD)
        if rest or not units:
            raise InvalidInput("amount", f"{token.symbol} has {token.decimals} decimals")
        try:
            self._domain(token.asset)
        except DomainUnknown as error:
            raise InvalidInput("token", f"cannot be signed for: {error.message}") from error
        head = self._gateway.head()
        terms = Terms(
            scheme=SCHEME,
            network=token.chain,
            asset=token.asset,
            amount=str(units),
            pay_to=to.lower(),
            resource=None,
            method=TRANSFER,
            body_sha256=None,
            timeout_s=TIMEOUT_S,
        )
        asked = ask(
            session_id,
            PaymentRequest(
                amount=amount,
                merchant=terms.pay_to,
                token=token.asset,
                chain=token.chain,
                token_priced=token.usd_price is not None,
                pay_to=terms.pay_to,
            ),
            memo={"description": description, "metadata_json": "{}"},
            key=key,
            terms=terms.to_json(),
        )
        return self._paying.pay([Way(asked, head.number, head.timestamp_s)]).result()

    def tick(self) -> None:
        """Send what is to be sent, and again what got lost. What fails is tried again later.

        Sessions take turns, and what is left over is for the next tick: who sends what can only
        fail keeps neither the others nor the rest of what the process does waiting.
        """
        rows = {(row.session_id, row.number): row for row in self._unseen()}
        self._payments = {at: each for at, each in self._payments.items() if at in rows}
        self._due_ms = {at: due for at, due in self._due_ms.items() if at in rows}
        self._failing = {at: each for at, each in self._failing.items() if at in rows}
        self._turns.keep(rows)
        now_ms = self._stopwatch()
        due = [at for at in rows if self._is_due(at, now_ms)]
        began_ms = self._stopwatch()
        for at in self._turns.order(sorted(due, key=self._due_ms.__getitem__))[:ATTEMPTS_MAX]:
            now_ms = self._stopwatch()
            if now_ms - began_ms > ATTEMPTS_MS:
                break
            self._turns.take(at)
            self._due_ms[at] = now_ms + RETRY_MS
            try:
                self._send(rows[at])
            except (TallystickError, *_DAMAGE) as error:
                self._failed(at, error, now_ms)

    def _is_due(self, at: _At, now_ms: int) -> bool:
        """Whether it is a transfer that is to be looked after by now."""
        if self._due_ms.get(at, now_ms) > now_ms:
            return False
        try:
            if not self._is_transfer(at):
                return False
        except (TallystickError, *_DAMAGE) as error:  # the others are sent all the same
            self._failed(at, error, now_ms)
            return False
        self._due_ms.setdefault(at, now_ms)
        return True

    def _failed(self, at: _At, error: Exception, now_ms: int) -> None:
        """Have it wait, longer each time; what is wrong with it is logged once."""
        failing = self._failing.setdefault(at, _Failing())
        self._due_ms[at] = now_ms + min(RETRY_MS << min(failing.times, 8), RETRY_MAX_MS)
        failing.times += 1
        code, reason = "damaged", repr(error)
        if isinstance(error, TallystickError):
            code, reason = error.code, error.message
        if code not in failing.told:
            failing.told.add(code)
            name = payment_id(str(at[0]), at[1])
            _log.warning("transfer_not_sent", payment=name, reason=reason)

    def close(self) -> None:
        """Close the claims."""
        with self._opening:
            if self._claims is not None:
                self._claims.dispose()

    def _unseen(self) -> list[Any]:
        """Open payments on this chain that it does not show, and whose signatures are valid."""
        query = sa.select(_settlements).where(
            _settlements.c.network == self._network,
            OPEN,
            _settlements.c.block_number.is_(None),
            _settlements.c.valid_before_s > self._clock() // 1000,
        )
        query = query.order_by(_settlements.c.record_id)
        with self._database.reading() as connection:
            return list(connection.execute(query).all())

    def _is_transfer(self, at: _At) -> bool:
        """Whether it is sent by us; of a 402's payment only the resource server knows when."""
        if at not in self._payments:
            with self._database.reading() as connection:
                self._payments[at] = stored_payment(connection.execute, *at)
        terms = self._payments[at].request["terms"]
        return bool(terms["method"] == TRANSFER)

    def _send(self, row: Any) -> None:
        signed_of(row)  # raises, if it cannot be read
        claims = self._opened_claims()
        relayer = Relayer(self._gateway, self._operator, claims)
        key = Key(row.network, row.asset.rpartition(":")[2], row.payer, row.nonce)
        claim = claims.find(key)
        if claim is None:
            self._check_stands(row.session_id)  # nobody but us has its signature
            claim = self._broadcast(relayer, key, row)
        elif not self._look_after(relayer, claims, claim):
            raise Conflict("its transaction moved nothing", code="transfer_undone")
        if (row.state, row.tx_hash) != ("pending", claim.tx_hash):
            self._paying.sent(payment_id(row.session_id, row.number), claim.tx_hash).result()

    def _check_stands(self, session_id: str) -> None:
        """Raises Conflict: the session was stopped since its transfer was decided."""
        wanted = sa.select(_sessions.c.state).where(_sessions.c.id == session_id)
        with self._database.reading() as connection:
            state = connection.execute(wanted).scalar()
        if state not in ("active", "expired"):
            raise Conflict(f"the session is {state}", code="session_not_active")

    def _broadcast(self, relayer: Relayer, key: Key, row: Any) -> Claim:
        payment = self._payments[row.session_id, row.number]
        domain = self._domain(row.asset)
        authorization, signature = self._signer.sign(payment, row.record_id, domain)
        data = authorization.settling(signature)
        return relayer.broadcast(key, row.nonce, to=key.token, data=data)

    def _look_after(self, relayer: Relayer, claims: Claims, claim: Claim) -> bool:
        """Whether its transaction is still on its way; if not, another one may do it."""
        receipt = self._gateway.receipt(claim.tx_hash)
        try:
            if receipt is None:
                relayer.send_again(claim)
        except TransactionLost:
            claims.free(claim.key)
            return False
        if receipt is not None and not receipt.succeeded:
            claims.free(claim.key)  # nothing was moved
            return False
        return True

    def _domain(self, asset: str) -> TokenDomain:
        known = self._domains.get(asset)
        if known is None:
            known = read_token_domain(self._gateway, asset.rpartition(":")[2])
            self._domains[asset] = known
        return known

    def _opened_claims(self) -> Claims:
        with self._opening:
            if self._claims is None:
                self._claims = Claims(self._path)
            return self._claims
