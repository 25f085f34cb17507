"""What the chain says of sessions, and what we say to it: registration, rotation, revocation.

Listening: what tightens acts at first sight (a revocation, lower limits, the end of a workspace), a
registration counts after enough confirmations. Lower limits are undone once their event has been
missing for as many blocks; what was revoked stays so.
Speaking: a transaction is written down before it is sent, and sent again as it is until mined; one
that can no longer be mined is replaced.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
import structlog

from engine.audit.lowering import Lowering, lowered_from_json, read_lowering
from engine.audit.replay import LOWERED_STATES
from engine.chain import contracts, sender
from engine.chain.account import Account
from engine.chain.gateway import (
    BlockHeader,
    CallReverted,
    ChainGateway,
    TransactionRejected,
)
from engine.chain.indexer import REORG_DEPTH_MAX
from engine.chain.resend import send_again
from engine.db.database import Database, Read
from engine.db.tables import (
    ChainBlock,
    ChainEvent,
    ChainTransaction,
    DiscrepancyRow,
    Record,
    Session,
    table,
)
from engine.errors import Unavailable
from engine.ledger.batch import Batch
from engine.ledger.discrepancies import SESSION_DAMAGED
from engine.ledger.writer import Writer
from engine.sessions.chain_facts import (
    ChainFacts,
    chain_facts,
    workspace_closings,
    workspace_hash,
)
from engine.sessions.lifecycle import Sessions
from engine.sessions.refusals import Refusals
from engine.sessions.rotation import may_rotate_now
from engine.sessions.session import SessionView

TRANSACTIONS_PER_TICK_MAX = 50

_blocks = table(ChainBlock)
_discrepancies = table(DiscrepancyRow)
_events = table(ChainEvent)
_records = table(Record)
_sessions = table(Session)
_transactions = table(ChainTransaction)
_log = structlog.get_logger(__name__)


class Listener:
    """Turns indexed events into what sessions are. Belongs to the process that leads."""

    def __init__(self, sessions: Sessions, *, confirmations: int) -> None:
        self._sessions = sessions
        self._confirmations = confirmations
        self._missing: dict[tuple[str, Lowering], BlockHeader] = {}
        """The newest block when the event of limits in force was first not on the chain."""

    def __call__(self, batch: Batch, tip: BlockHeader, subjects: set[bytes]) -> None:
        """Bring every session up to date that an event is about, or that waits for one."""
        for workspace_id in _workspaces_of(batch, subjects):
            self._follow_workspace(batch, workspace_id)
        waiting = sa.select(_sessions.c.id).where(
            _sessions.c.mint_pkp, _sessions.c.state.in_(("registering", "mismatch"))
        )
        touched = sa.select(_sessions.c.id).where(_sessions.c.token_id.in_(subjects))
        ids = dict.fromkeys(batch.read(waiting).scalars())
        ids.update(dict.fromkeys(batch.read(touched).scalars()))
        ids.update(dict.fromkeys(_whose_lowering_is_missing(batch)))
        ids.update(dict.fromkeys(_damaged_before(batch)))
        batch.hold(ids)
        for session_id in ids:
            try:
                view = self._sessions.read(batch, session_id)
                facts = chain_facts(batch.read, view.token_id)
                view = self._sessions.follow_above(batch, view)
            except Unavailable as error:
                self._sessions.unreadable(batch, session_id, error.message)
            else:
                self._update(batch, view, facts, tip)

    def _follow_workspace(self, batch: Batch, workspace_id: str) -> None:
        """End the sessions that a closing ended which was not seen before."""
        known = _recorded_closings(batch, workspace_id)
        for closing in workspace_closings(batch.read, workspace_id):
            if (closing["tx_hash"], closing["epoch"]) not in known:
                self._sessions.closed(batch, workspace_id, closing)

    def _update(self, batch: Batch, view: SessionView, facts: ChainFacts, tip: BlockHeader) -> None:
        if facts.revocation is not None:
            self._sessions.revoked(batch, view, {"by": "chain", **facts.revocation})
            return
        view = self._follow_limits(batch, view, facts.lowerings, tip)
        registration = facts.registration
        if registration is None:
            if view.mint_pkp and view.state in ("active", "mismatch"):
                self._sessions.unregistered(batch, view, {})
        elif registration["grant_hash"] != "0x" + view.grant_hash.hex():
            if view.state in ("registering", "active"):
                self._sessions.mismatched(batch, view, registration)
        elif (
            view.state in ("registering", "mismatch")
            and registration["block_number"] + self._confirmations <= tip.number
        ):
            self._sessions.registered(batch, view, registration)

    def _follow_limits(
        self,
        batch: Batch,
        view: SessionView,
        lowerings: Sequence[Mapping[str, Any]],
        tip: BlockHeader,
    ) -> SessionView:
        """Lower at first sight; undo it once its event was missing for enough blocks.

        They are counted from the newest block when it was first not there, and from the start if
        that one is replaced or the process is another.
        """
        if view.state not in LOWERED_STATES:
            return view
        there = {read_lowering(event): event for event in lowerings}
        known = set(view.lowered)
        for lowering in there:
            self._missing.pop((view.id, lowering), None)
        if unseen := [event for lowering, event in there.items() if lowering not in known]:
            view = self._sessions.lowered(batch, view, unseen)
        for lowering in view.lowered:
            if lowering in there or lowering.ancestor_id is not None:
                continue
            since = self._missing.get((view.id, lowering))
            if since is None or not _is_indexed(batch, since, tip):
                since = self._missing[view.id, lowering] = tip
            if since.number + self._confirmations <= tip.number:
                del self._missing[view.id, lowering]
                confirmed_by = {"block_number": tip.number, "block_hash": "0x" + tip.hash.hex()}
                view = self._sessions.unlowered(batch, view, lowering, confirmed_by)
        return view


def _workspaces_of(batch: Batch, subjects: Collection[bytes]) -> list[str]:
    """The workspaces here that were closed on the chain and are among the subjects."""
    closed = sa.select(_events.c.subject).where(
        _events.c.subject.in_(subjects), _events.c.name == "WorkspaceClosed"
    )
    hashes = set(batch.read(closed).scalars()) if subjects else set()
    if not hashes:
        return []
    ids = batch.read(sa.select(_sessions.c.workspace_id).distinct()).scalars()
    return sorted(each for each in ids if workspace_hash(each) in hashes)


def _recorded_closings(batch: Batch, workspace_id: str) -> set[tuple[str, int]]:
    """Those that the records of a workspace tell of, by transaction and epoch."""
    query = sa.select(_records.c.body).where(_records.c.stream == workspace_id)
    records = map(json.loads, batch.read(query).scalars())
    return {
        (record["body"]["tx_hash"], record["body"]["epoch"])
        for record in records
        if record["kind"] == "workspace.closed"
    }


def _whose_lowering_is_missing(batch: Batch) -> Iterator[str]:
    """The sessions that are bound by limits whose event is not on the chain."""
    event = sa.and_(_events.c.subject == _sessions.c.token_id, _events.c.name == "LimitsLowered")
    query = (
        sa.select(_sessions.c.id, _sessions.c.lowered_json, _events.c.tx_hash)
        .outerjoin_from(_sessions, _events, event)
        # As the index on it has it: with a parameter it would not be used.
        .where(_sessions.c.lowered_json != sa.literal_column("'[]'"))
        .where(_sessions.c.state.in_(LOWERED_STATES))
        .order_by(_sessions.c.id)
    )
    for (session_id, lowered_json), rows in groupby(batch.read(query).all(), key=itemgetter(0, 1)):
        there = {"0x" + row.tx_hash.hex() for row in rows if row.tx_hash is not None}
        try:
            lowered = lowered_from_json(lowered_json)
        except (ValueError, TypeError, AttributeError):
            yield session_id  # whoever reads it will say what is wrong
        else:
            if any(each.ancestor_id is None and each.tx_hash not in there for each in lowered):
                yield session_id


def _damaged_before(batch: Batch) -> list[str]:
    """The sessions that could not be read, and may have missed what the chain said meanwhile."""
    query = sa.select(_discrepancies.c.subject).where(
        _discrepancies.c.kind == SESSION_DAMAGED, _discrepancies.c.resolved_ms.is_(None)
    )
    return list(
        batch.read(query.join(_sessions, _sessions.c.id == _discrepancies.c.subject)).scalars()
    )


def _is_indexed(batch: Batch, block: BlockHeader, tip: BlockHeader) -> bool:
    """Whether a block is still one of the chain; what is older than the index keeps, is."""
    kept = batch.read(sa.select(_blocks.c.hash).where(_blocks.c.number == block.number)).scalar()
    if kept is None:
        return block.number < tip.number - REORG_DEPTH_MAX
    return bool(kept == block.hash)


class Registrar:
    """Sends the registrations, rotations and revocations that the sessions call for."""

    def __init__(
        self,
        gateway: ChainGateway,
        database: Database,
        writer: Writer,
        sessions: Sessions,
        *,
        registry: str,
        operator: Account,
    ) -> None:
        self._gateway = gateway
        self._database = database
        self._writer = writer
        self._sessions = sessions
        self._registry = registry
        self._operator = operator
        self._refusals = Refusals()

    def tick(self) -> int:
        """Send what is due; returns how many transactions were sent.

        Raises:
            ChainUnavailable: the chain does not answer.
        """
        sent = 0
        for session_id, action in self._due():
            sent += self._advance(session_id, action)
        return sent

    def _due(self) -> list[tuple[str, str]]:
        """What the chain does not show yet; what was sent comes first, in the order of sending.

        A session that was revoked while its registration was on its way is registered all the
        same: its records are proven against the registration. What ended with its workspace has
        ended on the chain, too, and is not revoked there one by one.
        """

        def seen(name: str) -> sa.Exists:
            return sa.exists().where(
                _events.c.subject == _sessions.c.token_id, _events.c.name == name
            )

        def due(action: str, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
            transaction = sa.and_(
                _transactions.c.session_id == _sessions.c.id, _transactions.c.action == action
            )
            return (
                sa.select(
                    *(_sessions.c.id, _sessions.c.workspace_id, _transactions.c.sent_ms),
                    sa.literal(action).label("action"),
                )
                .outerjoin(_transactions, transaction)
                .where(_sessions.c.mint_pkp, *conditions)
                .where(_sessions.c.id.not_in(self._refusals.waiting(action)))
            )

        state, sent_ms = _sessions.c.state, _transactions.c.sent_ms
        live = state.in_(("registering", "paused"))  # it was there before, and may be gone
        awaited = sa.or_(live, sa.and_(state == "revoked", sent_ms.is_not(None)))
        register = due("register", awaited, ~seen("SessionRegistered"))
        revoke = due(
            "revoke", state == "revoked", seen("SessionRegistered"), ~seen("SessionRevoked")
        )
        ended: dict[str, sa.ColumnElement[bool]] = {}
        with self._database.reading() as connection:
            while True:
                query = (
                    sa.union_all(register, revoke.where(*ended.values()))
                    .order_by(sa.column("sent_ms").asc().nulls_last(), sa.column("id"))
                    .limit(TRANSACTIONS_PER_TICK_MAX)
                )
                rows = connection.execute(query).all()
                revoking = {row.workspace_id for row in rows if row.action == "revoke"}
                if not (fresh := _not_ended(connection.execute, revoking - ended.keys())):
                    return [(row.id, row.action) for row in rows]
                ended.update(fresh)

    def _advance(self, session_id: str, action: str) -> bool:
        """See the transaction mined, send it again, or send the first; says whether one is sent."""
        query = sa.select(_transactions).where(
            _transactions.c.session_id == session_id, _transactions.c.action == action
        )
        with self._database.reading() as connection:
            sent = connection.execute(query).first()
        if sent is not None:
            receipt = self._gateway.receipt(sent.tx_hash)
            if receipt is not None:
                if not receipt.succeeded:  # it was not to, so what it calls may always do that
                    reason = "it was mined and reverted"
                    self._forget(session_id, action, reason, self._refusals.reverted)
                return False  # the indexer will see its event
            if self._offer(sent.raw_tx):
                return True
        return self._send(session_id, action)

    def _send(self, session_id: str, action: str) -> bool:
        try:
            view, old = self._writer.call(lambda batch: self._read(batch, session_id))
            data = _call(view, old, action)
        except Exception as error:  # noqa: BLE001 (the others must not wait until it is mended)
            _log.error("session_unreadable", session=session_id, reason=repr(error))
            self._refusals.note(session_id, action)
            return False
        try:
            signed = sender.sign(self._gateway, self._operator, to=self._registry, data=data)
        except (CallReverted, TransactionRejected) as error:
            reason = contracts.revert_name(error) if isinstance(error, CallReverted) else str(error)
            self._forget(session_id, action, reason, self._refusals.note)
            return False

        def command(batch: Batch) -> None:
            _forget(batch, session_id, action)
            batch.insert(
                _transactions,
                {
                    "session_id": session_id,
                    "action": action,
                    **view.stream.columns(),
                    "tx_hash": signed.hash,
                    "raw_tx": signed.raw,
                    "sent_ms": batch.now_ms,
                },
            )

        self._writer.call(command)
        return self._offer(signed.raw)

    def _forget(
        self, session_id: str, action: str, reason: str, noted: Callable[[str, str], None]
    ) -> None:
        _log.error("chain_refused", session=session_id, action=action, reason=reason)
        noted(session_id, action)
        self._writer.call(lambda batch: _forget(batch, session_id, action))

    def _read(self, batch: Batch, session_id: str) -> tuple[SessionView, SessionView | None]:
        """A session, and the one that its registration is to revoke, if it still can."""
        view = self._sessions.read(batch, session_id)
        if view.rotates_id is None:
            return view, None
        old = self._sessions.read(batch, view.rotates_id)
        return view, old if may_rotate_now(batch.read, old) else None

    def _offer(self, raw: bytes) -> bool:
        return send_again(self._gateway, self._operator.address.lower(), raw)


def _not_ended(read: Read, workspace_ids: Collection[str]) -> dict[str, sa.ColumnElement[bool]]:
    """For each workspace that was closed: which sessions did not end with it."""
    found = {}
    for workspace_id in workspace_ids:
        if closings := workspace_closings(read, workspace_id):
            place = closings[-1]["block_number"], closings[-1]["log_index"]
            registered_before = sa.exists().where(
                _events.c.subject == _sessions.c.token_id,
                _events.c.name == "SessionRegistered",
                sa.tuple_(_events.c.block_number, _events.c.log_index) < place,
            )
            ours = _sessions.c.workspace_id == workspace_id
            found[workspace_id] = sa.not_(sa.and_(ours, registered_before))
    return found


def _forget(batch: Batch, session_id: str, action: str) -> None:
    batch.update(
        sa.delete(_transactions).where(
            _transactions.c.session_id == session_id, _transactions.c.action == action
        )
    )


def _call(view: SessionView, old: SessionView | None, action: str) -> bytes:
    if action == "register":
        new = view.grant, view.public_key, view.owner_signature, view.consent
        if old is not None:
            return contracts.rotating(old.grant, old.token_id, *new)
        return contracts.registering(*new)
    return contracts.revoking(view.grant, view.token_id)
