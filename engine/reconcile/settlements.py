"""Holds what the ledger says became of signed payments against what each chain says of them.

The watch reads blocks by their blooms; here the endpoint's own search for events is asked, which is
another way to the same. A chain that does not answer is left out, and a row that cannot be read:
nothing of it is filed or resolved.

What has ended is compared until that was found right against a final block past the end of its
signature: from then on only a reorganisation deeper than that changes anything. For such a one it
is compared for some days more. Who verifies evidence looks at all of a session.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

from engine.chain.contracts import AUTHORIZATION_USED
from engine.chain.gateway import ChainError, Log
from engine.clock import Clock
from engine.db.database import Database
from engine.db.settlements import NOT_COMPARED, Settlement
from engine.db.tables import table
from engine.ledger.batch import Batch
from engine.ledger.discrepancies import (
    SETTLEMENT_CONTRADICTED,
    note,
    open_discrepancies,
    resolve,
)
from engine.ledger.payment import payment_id
from engine.ledger.settlements import ENDED
from engine.ledger.stream import Stream
from engine.ledger.writer import Writer
from engine.payments.settlement_reader import Readable
from engine.payments.settlement_watch import SettlementWatch
from engine.reconcile.kinds import KINDS

OVERDUE_MS = 600_000
"""So long after the end of its signature it is expected to be known what became of a payment."""
LOOK_BACK_MS = 7 * 86_400_000
"""So long what was found right is compared all the same."""
ROWS_PER_UPDATE = 500
BLOCKS_PER_QUESTION = 2_000
PAYERS_PER_QUESTION = 50

MISSING, NOT_CAPTURED, OVERDUE = FOUND_HERE = (
    "settlement_missing",
    "settlement_not_captured",
    "settlement_overdue",
)

_settlements = table(Settlement)
_log = structlog.get_logger(__name__)
_Nonce = tuple[str, str, bytes]
"""Token, payer and nonce."""


@dataclass(frozen=True, slots=True)
class _Found:
    kind: str
    row: Any
    evidence: Mapping[str, Any]

    @property
    def subject(self) -> str:
        return payment_id(self.row.session_id, self.row.number)


def compare(
    rows: Sequence[Any], used: Mapping[_Nonce, Log], final_number: int, now_ms: int
) -> Iterator[_Found]:
    """What of these rows the chain contradicts; `used` are its events up to `final_number`."""
    for row in rows:
        log = used.get((row.asset.rpartition(":")[2], row.payer, row.nonce))
        told = {"network": row.network, "state": row.state, "compared_to": final_number}
        if row.state == "final" and row.block_number <= final_number:
            if log is None or (log.tx_hash, log.block_hash) != (row.tx_hash, row.block_hash):
                ledger = {"tx_hash": _hex(row.tx_hash), "block_hash": _hex(row.block_hash)}
                yield _Found(MISSING, row, {**told, "ledger": ledger, "chain": _place(log)})
        elif row.state not in ("final", "accepted") and log is not None:
            yield _Found(NOT_CAPTURED, row, {**told, "chain": _place(log)})
        elif row.state not in ENDED and row.valid_before_s * 1000 + OVERDUE_MS < now_ms:
            known = {"valid_before_s": row.valid_before_s, "tx_hash": _hex(row.tx_hash)}
            yield _Found(OVERDUE, row, {**told, **known})


class SettlementReconciler:
    """The payments of all chains that are watched."""

    def __init__(
        self,
        watches: Mapping[str, SettlementWatch],
        database: Database,
        writer: Writer,
        clock: Clock,
    ) -> None:
        self._watches = watches
        self._database = database
        self._writer = writer
        self._clock = clock
        self._readable = {network: Readable() for network in watches}

    def run(self) -> None:
        """Compare each chain that answers, once the payments on it are as it says by now."""
        for watch in self._watches.values():
            watch.tick()
            try:
                found, right = self._compare(watch)
            except ChainError as error:
                _log.warning("not_reconciled", network=watch.network, reason=error.message)
            else:
                self._file(watch.network, found, right)

    def _compare(self, watch: SettlementWatch) -> tuple[list[_Found], list[bytes]]:
        """What is found, and the nonces of the payments that need not be compared any more."""
        rows = self._rows(watch.network)
        if not rows:
            return [], []
        final_number = watch.gateway.head().number - watch.finality
        final = watch.gateway.block(final_number) if final_number >= 0 else None
        used: dict[_Nonce, Log] = {}
        for nonce, log in _used(watch, rows, final_number):
            used.setdefault(nonce, log)  # the first counts
        found = list(compare(rows, used, final_number, self._clock()))
        wrong = {each.subject for each in found}
        right = [
            row.nonce
            for row in rows
            if row.compared_ms is None
            and row.state in ENDED
            and final is not None
            and final.timestamp_s > row.valid_before_s
            and row.block_number is not None
            and row.block_number <= final_number
            and payment_id(row.session_id, row.number) not in wrong
        ]
        return found, right

    def _rows(self, network: str) -> Sequence[Any]:
        recent = _settlements.c.updated_ms > self._clock() - LOOK_BACK_MS
        with self._database.reading() as connection:
            contradicted = {
                each.subject
                for each in open_discrepancies(connection.execute)
                if each.kind == SETTLEMENT_CONTRADICTED
            }
            query = sa.select(_settlements).where(
                _settlements.c.network == network, sa.or_(NOT_COMPARED, recent)
            )
            rows = connection.execute(query).all()
        read = [row for row, _ in self._readable[network].of(rows)]
        return [row for row in read if payment_id(row.session_id, row.number) not in contradicted]

    def _file(self, network: str, found: Sequence[_Found], right: Sequence[bytes]) -> None:
        seen = {(each.kind, each.subject) for each in found}
        unread = self._readable[network].damaged

        def command(batch: Batch) -> None:
            for each in found:
                row = each.row
                stream = Stream(row.workspace_id, row.session_id, row.session_type, row.label)
                severity = KINDS[each.kind].severity
                if note(batch, each.kind, each.subject, severity, each.evidence, stream):
                    _log.error("discrepancy", kind=each.kind, subject=each.subject)
            for known in open_discrepancies(batch.read):
                of_network = known.evidence.get("network") == network
                if (
                    known.kind in FOUND_HERE
                    and of_network
                    and (known.kind, known.subject) not in seen
                    and known.subject not in unread
                ):
                    resolve(batch, known.kind, known.subject)
            _mark(batch, right, batch.now_ms)
            # What was right once and is not any more is compared until it is again.
            _mark(batch, [each.row.nonce for each in found], None)

        self._writer.call(command)


def _mark(batch: Batch, nonces: Sequence[bytes], compared_ms: int | None) -> None:
    for start in range(0, len(nonces), ROWS_PER_UPDATE):
        some = _settlements.c.nonce.in_(nonces[start : start + ROWS_PER_UPDATE])
        batch.update(sa.update(_settlements).where(some).values(compared_ms=compared_ms))


def _used(
    watch: SettlementWatch, rows: Sequence[Any], final_number: int
) -> Iterator[tuple[_Nonce, Log]]:
    """The events of used nonces of these payers, as the endpoint's search has them."""
    tokens = sorted({row.asset.rpartition(":")[2] for row in rows})
    payers = sorted({row.payer for row in rows})
    first = max(0, min(row.from_block for row in rows) - watch.finality)
    for start in range(first, final_number + 1, BLOCKS_PER_QUESTION):
        last = min(final_number, start + BLOCKS_PER_QUESTION - 1)
        for at in range(0, len(payers), PAYERS_PER_QUESTION):
            some = [
                bytes.fromhex(payer[2:]).rjust(32, b"\0")
                for payer in payers[at : at + PAYERS_PER_QUESTION]
            ]
            for log in watch.gateway.logs(
                from_block=start,
                to_block=last,
                addresses=tokens,
                topics=[AUTHORIZATION_USED, some],
            ):
                if len(log.topics) == 3:
                    yield (log.address, "0x" + log.topics[1][12:].hex(), log.topics[2]), log


def _place(log: Log | None) -> dict[str, Any] | None:
    if log is None:
        return None
    return {
        "tx_hash": _hex(log.tx_hash),
        "block_number": log.block_number,
        "block_hash": _hex(log.block_hash),
        "log_index": log.log_index,
    }


def _hex(value: bytes | None) -> str | None:
    return None if value is None else "0x" + value.hex()
