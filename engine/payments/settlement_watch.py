"""Follows on one chain what becomes of signed payments, and ends them when that is final.

    tick ──> read the chain, outside of any transaction ──> one transaction for what changed, and
             one for each payment that is over (`payment.captured` or `payment.expired`)

What the chain shows against what was signed is a discrepancy; the budget stays held until the chain
says otherwise, or an operator accepts it once the chain has said all that it will.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

from engine.chain.gateway import BlockHeader, ChainError, ChainGateway, ChainUnavailable
from engine.clock import Clock
from engine.db.database import Database
from engine.db.settlements import OPEN, Settlement
from engine.db.tables import table
from engine.errors import Conflict, TallystickError, Unavailable
from engine.ledger.batch import Batch
from engine.ledger.discrepancies import (
    SETTLEMENT_CONTRADICTED,
    note,
    open_discrepancies,
    resolve,
)
from engine.ledger.paying import Paying
from engine.ledger.payment import payment_id
from engine.ledger.settlements import ENDED, stored_settlement
from engine.ledger.stream import Stream
from engine.ledger.writer import Writer
from engine.payments.acceptance import accepted
from engine.payments.settlement_reader import Key, Readable, SettlementReader, View
from engine.payments.settlement_states import (
    Answer,
    Shown,
    Signed,
    Standing,
    Use,
    is_over,
    standing,
)
from engine.payments.turns import Turns

ASKED_MAX = 50
"""Of so many payments, of which no use is seen, more is asked in one tick; then of the next."""

_settlements = table(Settlement)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Open:
    """A row of a payment that is open, and what the chain shows of it."""

    row: Any
    signed: Signed
    shown: Shown

    @property
    def id(self) -> str:
        return payment_id(self.signed.session_id, self.signed.number)

    @property
    def stream(self) -> Stream:
        row = self.row
        return Stream(row.workspace_id, row.session_id, row.session_type, row.label)


class SettlementWatch:
    """The payments on one chain. One tick at a time; from any thread.

    `pass_time` mines a block on a chain that would mine none by itself.
    """

    def __init__(
        self,
        gateway: ChainGateway,
        network: str,
        database: Database,
        writer: Writer,
        paying: Paying,
        clock: Clock,
        *,
        confirmations: int,
        finality: int,
        pass_time: Callable[[], object] | None = None,
    ) -> None:
        self.network = network
        self.gateway = gateway
        self.confirmations = confirmations
        self.finality = finality
        self._database = database
        self._writer = writer
        self._paying = paying
        self._clock = clock
        self._pass_time = pass_time
        self._reader = SettlementReader(gateway, finality=finality)
        self._readable = Readable()
        self._turns = Turns()
        self._refused: dict[str, str] = {}
        self._ticking = threading.Lock()
        self._contradictions: dict[str, dict[str, Any]] | None = None
        self.fault: str | None = None
        """Why the chain was not heard when it was last asked; None if it was, or never asked."""
        self.head: BlockHeader | None = None
        """The chain's newest block when it was last asked."""
        self.read_number: int | None = None
        """The newest block that was read for the payments that are open."""
        self.open = 0
        """How many payments were open then."""

    @property
    def lag(self) -> int | None:
        """How many blocks the reading is behind; None if that is not known."""
        if self.head is None or self.read_number is None:
            return None
        return max(0, self.head.number - self.read_number)

    def tick(self) -> None:
        """Read once, and do what follows. A silent chain is noted and nothing is concluded."""
        with self._ticking:
            rows = self._rows()
            self.open = len(rows)
            try:
                self._read(rows)
            except ChainError as error:
                self._heard(error.message)

    def _read(self, rows: list[Any]) -> None:
        if not rows:
            self.head = self._reader.read(()).head
            self.read_number = self.head.number
            self._heard(None)
            return
        found, view, fault = self._look(rows)
        self._conclude(found, view)
        self.read_number = view.head.number
        self._heard(fault)

    def _look(
        self, rows: list[Any], wanted: str | None = None
    ) -> tuple[list[_Open], View, str | None]:
        """What the chain shows of these payments, or of the one that is wanted; and why, if some
        had to be left out.

        Of more than can be asked about at once the others are left out until it is their turn.
        """
        read = self._readable.of(rows)
        signed = {each.key: each for _, each in read}
        if self._pass_time is not None:
            self._let_time_pass(signed.values())
        view = self._reader.read(list(signed.values()))
        self.head = view.head
        if wanted is None:
            waiting = self._waiting(read, view)
        else:
            read = [(row, each) for row, each in read if payment_id(*each.key) == wanted]
            waiting = set()
        fault = None
        found = []
        for row, each in read:
            if each.key in waiting:
                continue
            try:
                shown = self._shown(row, each, view)
            except ChainUnavailable as error:  # such as an endpoint without old states
                fault = error.message
            else:
                found.append(_Open(row, each, shown))
        return found, view, fault

    def _waiting(self, read: list[tuple[Any, Signed]], view: View) -> set[Key]:
        """Those that are to be asked about and have to wait for their turn."""
        self._turns.keep([each.key for _, each in read])
        asked = [each.key for row, each in read if _is_asked(row, each, view)]
        asked = self._turns.order(sorted(asked, key=self._turns.last))
        for key in asked[:ASKED_MAX]:
            self._turns.take(key)
        return set(asked[ASKED_MAX:])

    def accept(self, payment: str, *, by: str, reason: str) -> None:
        """Count a payment that the chain contradicts as spent, by the word of an operator.

        `by` is the key's id. The chain is read first.

        Raises:
            Conflict: the payment is not signed and open; `settlement_not_contradicted`: the chain
                shows nothing against it; or `settlement_open`: it may still show something else.
            Unavailable: the chain does not answer, or the payment's row is damaged.
        """
        with self._ticking:
            try:
                found, view, fault = self._look(self._rows(), payment)
            except ChainError as error:
                raise Unavailable(error.message, code="chain_unavailable") from error
            each = found[0] if found else None
            if each is None and fault is not None:
                raise Unavailable(fault, code="chain_unavailable")
            if each is None and payment in self._readable.damaged:
                raise Unavailable("its settlement cannot be read", code="session_damaged")
            if each is None:
                raise Conflict("the payment is not signed and open", code="payment_not_signed")
            settlement = accepted(
                self.network,
                each.signed,
                self._standing(each, each.row),
                each.shown,
                view.final,
                finality=self.finality,
                by=by,
                reason=reason,
            )
            self._writer.call(
                lambda batch: self._paying.accept(batch, payment, settlement),
                each.signed.session_id,
            )

    def _heard(self, fault: str | None) -> None:
        if fault is not None and fault != self.fault:
            _log.warning("network_silent", network=self.network, reason=fault)
        elif fault is None and self.fault is not None:
            _log.warning("network_heard", network=self.network)
        self.fault = fault

    def _rows(self) -> list[Any]:
        query = sa.select(_settlements).where(_settlements.c.network == self.network, OPEN)
        with self._database.reading() as connection:
            return list(connection.execute(query).all())

    def _let_time_pass(self, signed: Iterable[Signed]) -> None:
        assert self._pass_time is not None
        now_s, head = self._clock() // 1000, self.gateway.head()
        if any(head.timestamp_s <= each.valid_before_s < now_s for each in signed):
            self._pass_time()

    def _shown(self, row: Any, signed: Signed, view: View) -> Shown:
        uses = view.uses.get(signed.key, ())
        final_time_s = None if view.final is None else view.final.timestamp_s
        told: Answer | None = None
        reverted: bool | None = None
        if not uses:
            if view.final is not None and is_over(signed, final_time_s):
                told = self._reader.ask(signed, view.final)
            if row.tx_hash is not None and told != "unused":
                reverted = self._reader.reverted(row.tx_hash)
        return Shown(uses, view.head.number, final_time_s, told, reverted)

    # What the chain shows becomes what is stored.

    def _conclude(self, found: list[_Open], view: View) -> None:
        if self._contradictions is None:
            with self._database.reading() as connection:
                self._contradictions = {
                    each.subject: dict(each.evidence)
                    for each in open_discrepancies(connection.execute)
                    if each.kind == SETTLEMENT_CONTRADICTED
                    and each.evidence.get("network") == self.network
                }
        changed, ended = [], []
        for each in found:
            now = self._standing(each, each.row)
            if now.state in ENDED:
                ended.append((each, now))
            elif _columns(now, each.row) != _stored(each.row):
                changed.append(each)
            self._note(each, now)
        if changed:
            self._writer.call(lambda batch: self._store(batch, changed))
        for each, now in ended:
            self._end(each, now, view)

    def _standing(self, each: _Open, row: Any) -> Standing:
        return standing(
            each.signed,
            row.state,
            each.shown,
            seen=row.block_number is not None,
            confirmations=self.confirmations,
            finality=self.finality,
        )

    def _store(self, batch: Batch, changed: list[_Open]) -> None:
        for each in changed:
            ours = (
                _settlements.c.session_id == each.signed.session_id,
                _settlements.c.number == each.signed.number,
            )
            row = batch.read(sa.select(_settlements).where(*ours)).first()
            if row is None or row.state in ENDED:
                continue  # another process has ended it
            # What was reported meanwhile is not lost: the state follows from the row as it is.
            columns = _columns(self._standing(each, row), row)
            if columns != _stored(row):
                update = sa.update(_settlements).where(*ours)
                batch.update(update.values(**columns, updated_ms=batch.now_ms))

    def _end(self, each: _Open, now: Standing, view: View) -> None:
        """Capture or expire; what cannot be ended now is tried again with the next tick."""
        if now.use is None:
            assert view.final is not None
            state, told = "expired", _expiry(self.network, view.final)
        else:
            state, told = "captured", _capture(self.network, each, now.use)

        def command(batch: Batch) -> None:
            self._paying.settle(batch, each.id, state, told)  # type: ignore[arg-type]

        self._written(each, command, "not_settled")

    def _written(self, each: _Open, command: Callable[[Batch], object], event: str) -> bool:
        """Whether it could be written; why not is logged once while it lasts.

        What is wrong with one payment, or its session, must not keep the others from their end.
        """
        try:
            self._writer.call(command, each.signed.session_id)
        except TallystickError as refusal:
            if self._refused.get(each.id) != refusal.message:
                trace = isinstance(refusal, Unavailable)
                _log.warning(event, payment=each.id, reason=refusal.message, exc_info=trace)
            self._refused[each.id] = refusal.message
            return False
        self._refused.pop(each.id, None)
        return True

    def _note(self, each: _Open, now: Standing) -> None:
        assert self._contradictions is not None
        if now.contradiction is None:
            if each.id in self._contradictions and self._written(
                each, lambda batch: resolve(batch, SETTLEMENT_CONTRADICTED, each.id), "not_resolved"
            ):
                del self._contradictions[each.id]
            return
        evidence = {
            "reason": now.contradiction,
            "network": self.network,
            "signed": {
                "asset": each.row.asset,
                "from": each.signed.payer,
                "to": each.signed.pay_to,
                "amount": str(each.signed.amount),
                "nonce": each.signed.nonce.hex(),
            },
            "chain": [use.to_json() for use in each.shown.uses],
        }
        if self._contradictions.get(each.id) == evidence:
            return

        def command(batch: Batch) -> None:
            stored = stored_settlement(batch.read, *each.signed.key)
            if stored is not None and stored.state not in ENDED:  # nor accepted meanwhile
                note(batch, SETTLEMENT_CONTRADICTED, each.id, "critical", evidence, each.stream)

        if self._written(each, command, "not_noted"):
            self._contradictions[each.id] = evidence
            _log.error("discrepancy", kind=SETTLEMENT_CONTRADICTED, subject=each.id)


def _is_asked(row: Any, signed: Signed, view: View) -> bool:
    """Whether more is asked about a payment than its blocks show."""
    if view.uses.get(signed.key):
        return False
    over = view.final is not None and is_over(signed, view.final.timestamp_s)
    return over or row.tx_hash is not None


def _columns(now: Standing, row: Any) -> dict[str, Any]:
    """What is stored of a standing. Of what was seen and is gone, the transaction stays known."""
    use = now.use
    return {
        "state": now.state,
        "tx_hash": row.tx_hash if use is None else use.tx_hash,
        "block_number": None if use is None else use.block_number,
        "block_hash": None if use is None else use.block_hash,
    }


def _stored(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("state", "tx_hash", "block_number", "block_hash")}


def _capture(network: str, each: _Open, use: Use) -> Mapping[str, Any]:
    return {"network": network, "asset": each.row.asset, **use.to_json()}


def _expiry(network: str, final: BlockHeader) -> Mapping[str, Any]:
    return {
        "network": network,
        "block_number": final.number,
        "block_hash": "0x" + final.hash.hex(),
        "block_time_s": final.timestamp_s,
    }
