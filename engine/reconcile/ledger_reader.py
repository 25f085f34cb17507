"""Reads the ledger's side of reconciliation: one consistent state of the database."""

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from eth_utils.crypto import keccak

from engine.audit.canonical import decode_object
from engine.audit.lowering import lowered_from_json
from engine.db.database import Database, Read
from engine.db.tables import (
    Anchor,
    ChainBlock,
    ChainEvent,
    ChainTransaction,
    Session,
    Workspace,
    table,
)
from engine.grant import Grant
from engine.ledger.log import Log
from engine.policy.limits import Limits, lowest
from engine.reconcile.chain_reader import Tip, indexed, order_of
from engine.reconcile.compare import ENDED_STATES
from engine.reconcile.sides import Event, EventPlace, LedgerAnchor, LedgerSession, LedgerSide

_anchors = table(Anchor)
_blocks = table(ChainBlock)
_events = table(ChainEvent)
_sessions = table(Session)
_transactions = table(ChainTransaction)
_workspaces = table(Workspace)
_columns = _sessions.c
_anchors_of_records = sa.select(_anchors).where(_anchors.c.size > 0)


@dataclass(frozen=True, slots=True)
class _Parameters:
    source: tuple[str, str]
    hash: bytes | None
    limits: Limits | None


class LedgerReader:
    """Reads it again and again; remembers the hashes of parameters that did not change."""

    def __init__(self, database: Database, log: Log, log_id: bytes) -> None:
        self._database = database
        self._log = log
        self._log_id = log_id
        self._parameters: dict[str, _Parameters] = {}

    def read(self, now_ms: int, *, from_block: int = 0) -> tuple[LedgerSide, Tip | None]:
        """The ledger's side, and the last block that the index had read by then, if any.

        Of the index only what is in `from_block` and later.
        """
        with self._database.reading() as connection:
            read = connection.execute
            tip = read(sa.select(_blocks).order_by(_blocks.c.number.desc()).limit(1)).first()
            sessions = self._read_sessions(read)
            anchors = [_anchor(row) for row in read(_anchors_of_records)]
            events = _read_events(read, from_block)
            names = read(sa.select(_workspaces.c.id)).scalars().all()
            self._log.follow(read)
        side = LedgerSide(
            now_ms=now_ms,
            log_id=self._log_id,
            log_size=self._log.size,
            root=self._log.tree.root,
            workspaces={keccak(text=name): name for name in names},
            sessions=sessions,
            anchors=anchors,
            events=events,
        )
        if tip is None:
            return side, None
        return side, Tip(tip.number, tip.hash)

    def _read_sessions(self, read: Read) -> list[LedgerSession]:
        query = sa.select(
            _transactions.c.session_id,
            _transactions.c.action,
            _transactions.c.tx_hash,
            _transactions.c.sent_ms,
        )
        sent = {(row.session_id, row.action): row for row in read(query)}
        columns: sa.Select[Any] = sa.select(
            _columns.id,
            _columns.workspace_id,
            _columns.type,
            _columns.label,
            _columns.state,
            _columns.mint_pkp,
            _columns.token_id,
            _columns.grant_hash,
            _columns.grant_json,
            _columns.lowered_json,
            _columns.created_ms,
            _columns.ended_ms,
        )
        sessions = []
        parameters: dict[str, _Parameters] = {}
        for row in read(columns):
            source = (row.grant_json, row.lowered_json)
            known = _Parameters(
                source, row.grant_hash, None
            )  # of what is over, nothing is enforced
            if row.state not in ENDED_STATES:
                known = self._parameters.get(row.id, known)
                if known.limits is None or known.source != source:
                    known = _parse(source)
                parameters[row.id] = known
            action = "revoke" if row.state == "revoked" else "register"
            transaction = sent.get((row.id, action))
            sessions.append(_session(row, known, transaction))
        self._parameters = parameters
        return sessions


def _parse(source: tuple[str, str]) -> _Parameters:
    grant_json, lowered_json = source
    try:
        grant = Grant.from_json(decode_object(grant_json.encode()))
        lowered = lowered_from_json(lowered_json)
    except (ValueError, TypeError, AttributeError):
        return _Parameters(source, None, None)
    limits = lowest(grant.limits, *(each.limits for each in lowered))
    return _Parameters(source, grant.hash(), limits)


def _session(row: Any, parameters: _Parameters, transaction: Any) -> LedgerSession:
    waiting_since_ms = None
    if row.mint_pkp and row.state == "registering":
        waiting_since_ms = row.created_ms if transaction is None else transaction.sent_ms
    elif row.mint_pkp and row.state == "revoked":
        waiting_since_ms = row.ended_ms if transaction is None else transaction.sent_ms
    return LedgerSession(
        id=row.id,
        workspace_id=row.workspace_id,
        type=row.type,
        label=row.label,
        state=row.state,
        on_chain=row.mint_pkp,
        token_id=row.token_id,
        grant_hash=row.grant_hash,
        parameters_hash=parameters.hash,
        limits=parameters.limits,
        waiting_since_ms=waiting_since_ms,
        tx_hash=None if transaction is None else transaction.tx_hash,
    )


def _anchor(row: Any) -> LedgerAnchor:
    replaced = [keccak(bytes.fromhex(raw)) for raw in json.loads(row.replaced_json)]
    return LedgerAnchor(
        size=row.size,
        root=row.root,
        state=row.state,
        tx_hashes=(row.tx_hash, *reversed(replaced)),
        block_number=row.block_number,
        block_hash=row.block_hash,
        sent_ms=row.sent_ms,
    )


def _read_events(read: Read, from_block: int) -> dict[EventPlace, Event]:
    query = sa.select(_events).where(_events.c.block_number >= from_block)
    rows = map(dict, read(query).mappings())
    return {order_of(row): indexed(row) for row in rows}
