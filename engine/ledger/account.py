"""One session's budget in memory: its policy, its rolling windows and its open holds.

It can always be rebuilt from the database, and is whenever that is in doubt.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import decode_object
from engine.audit.record import decode_record
from engine.db.tables import Decision as DecisionRow
from engine.db.tables import Record, Session, table
from engine.errors import NotFound
from engine.grant import Grant
from engine.ledger.stream import Stream
from engine.ledger.writer import Batch
from engine.policy.decision import STANDING_OF_STATE, Policy, Standing
from engine.policy.limits import MONTH_MS
from engine.policy.windows import Entry, RollingWindows

_records = table(Record)
_sessions = table(Session)
_decisions = table(DecisionRow)


@dataclass(slots=True)
class Hold:
    """An open authorization: budget that is taken until it is captured, voided or expires."""

    number: int
    entry: Entry
    expires_ms: int


@dataclass(slots=True)
class Account:
    """See the module. `decisions` counts every decision ever made; `holds` is by its number.

    `keys` has the number for each idempotency key that was used.
    """

    stream: Stream
    on_chain: bool
    grant_hash: str
    policy: Policy
    standing: Standing
    decisions: int = 0
    windows: RollingWindows = field(default_factory=RollingWindows)
    holds: dict[int, Hold] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    limit_reached: bool = False
    _expiries: list[tuple[int, int]] = field(default_factory=list)

    def open(self, number: int, entry: Entry, expires_ms: int) -> None:
        """Remember a hold."""
        self.holds[number] = Hold(number, entry, expires_ms)
        heapq.heappush(self._expiries, (expires_ms, number))

    def close(self, number: int, captured: int) -> None:
        """A hold ended with `captured` micro-USD of it spent; the rest is free at once."""
        self.windows.reduce(self.holds.pop(number).entry, captured)

    def due(self, now_ms: int) -> Iterator[int]:
        """Take the holds that are over at `now_ms`, by number and the earliest first."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, number = heapq.heappop(self._expiries)
            if number in self.holds:
                yield number


def load_account(batch: Batch, session_id: str) -> Account:
    """Rebuild an account from the database.

    Its parameters must be those that the first record of the session tells: whoever could change
    the stored grant could not change a record that was anchored since.

    Raises:
        NotFound: there is no such session.
    """
    row: Any = batch.read(sa.select(_sessions).where(_sessions.c.id == session_id)).first()
    if row is None:
        raise NotFound("no such session", code="session_not_found")
    grant = Grant.from_json(decode_object(row.grant_json.encode()))
    first = sa.select(_records.c.body).where(_records.c.stream == session_id, _records.c.seq == 0)
    created = decode_record(batch.read(first).scalar_one())
    grant_hash = bytes.fromhex(created.body["grant_hash"])
    standing = STANDING_OF_STATE[row.state]
    if not grant.hash() == row.grant_hash == grant_hash:
        standing = Standing.MISMATCH
    stream = Stream(row.workspace_id, session_id, row.type, row.label)
    account = Account(stream, row.mint_pkp, grant_hash.hex(), grant.policy(), standing)
    columns = _decisions.c
    newest = sa.select(sa.func.max(columns.number)).where(columns.session_id == session_id)
    last = batch.read(newest).scalar_one()
    account.decisions = 0 if last is None else last + 1
    keyed = sa.select(columns.idempotency_key, columns.number).where(
        columns.session_id == session_id, columns.idempotency_key.is_not(None)
    )
    account.keys = {row.idempotency_key: row.number for row in batch.read(keyed)}
    live: Any = batch.read(
        sa.select(_decisions)
        .where(
            columns.session_id == session_id,
            columns.state.in_(("held", "captured")),
            columns.decided_ms > batch.now_ms - MONTH_MS,  # what is older is in no window
        )
        .order_by(columns.number)
    )
    for row in live:
        held = row.state == "held"
        entry = account.windows.add(row.decided_ms, row.amount if held else row.captured)
        if held:
            account.open(row.number, entry, row.expires_ms)
    return account
