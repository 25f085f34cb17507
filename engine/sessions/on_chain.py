"""What the chain says of sessions, and what we say to it: registration and revocation.

Listening: a revocation acts at first sight, a registration counts after enough confirmations.
Speaking: a transaction is written down before it is sent, and sent again as it is until mined; one
that can no longer be mined is replaced.
"""

import json
import math
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog

from engine.chain import contracts, sender
from engine.chain.gateway import (
    BlockHeader,
    CallReverted,
    ChainGateway,
    TransactionRejected,
)
from engine.chain.resend import send_again
from engine.db.database import Database
from engine.db.tables import ChainEvent, ChainTransaction, Session, table
from engine.ledger.writer import Batch, Writer
from engine.sessions.lifecycle import Sessions
from engine.sessions.session import SessionView

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

TRANSACTIONS_PER_TICK_MAX = 50
REFUSED_WAIT_S = 10
"""What the chain refused is not tried again at once: only somebody's help will change it."""

_events = table(ChainEvent)
_sessions = table(Session)
_transactions = table(ChainTransaction)
_log = structlog.get_logger(__name__)


class Listener:
    """Turns indexed events into what sessions are."""

    def __init__(self, sessions: Sessions, *, confirmations: int) -> None:
        self._sessions = sessions
        self._confirmations = confirmations

    def __call__(self, batch: Batch, tip: BlockHeader, subjects: set[bytes]) -> None:
        """Bring every session up to date that an event is about, or that waits for one."""
        waiting = sa.select(_sessions.c.id).where(
            _sessions.c.mint_pkp, _sessions.c.state.in_(("registering", "mismatch"))
        )
        touched = sa.select(_sessions.c.id).where(_sessions.c.token_id.in_(subjects))
        ids = dict.fromkeys(batch.read(waiting).scalars())
        ids.update(dict.fromkeys(batch.read(touched).scalars()))
        batch.hold(ids)
        for session_id in ids:
            self._update(batch, self._sessions.read(batch, session_id), tip)

    def _update(self, batch: Batch, view: SessionView, tip: BlockHeader) -> None:
        registration, revocation = chain_facts(batch, view.token_id)
        if revocation is not None:
            self._sessions.revoked(batch, view, {"by": "chain", **revocation})
        elif registration is None:
            if view.state in ("active", "mismatch"):
                self._sessions.unregistered(batch, view, {})
        elif registration["grant_hash"] != "0x" + view.grant_hash.hex():
            if view.state in ("registering", "active"):
                self._sessions.mismatched(batch, view, registration)
        elif (
            view.state in ("registering", "mismatch")
            and registration["block_number"] + self._confirmations <= tip.number
        ):
            self._sessions.registered(batch, view, registration)


def chain_facts(
    batch: "Batch | sa.Connection", token_id: bytes
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The registration and the revocation that the canonical chain holds for a token id."""
    query = (
        sa.select(_events)
        .where(_events.c.subject == token_id)
        .order_by(_events.c.block_number, _events.c.log_index)
    )
    rows = (batch.read(query) if isinstance(batch, Batch) else batch.execute(query)).all()
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        args = json.loads(row.args_json)
        found.setdefault(
            row.name,
            {
                "grant_hash": args.get("grantHash"),
                "tx_hash": "0x" + row.tx_hash.hex(),
                "block_number": row.block_number,
                "block_hash": "0x" + row.block_hash.hex(),
                "log_index": row.log_index,
                **({"account": args["by"].lower()} if "by" in args else {}),
            },
        )
    return found.get("SessionRegistered"), found.get("SessionRevoked")


class Registrar:
    """Sends the registrations and revocations that the sessions call for."""

    def __init__(
        self,
        gateway: ChainGateway,
        database: Database,
        writer: Writer,
        sessions: Sessions,
        *,
        registry: str,
        operator: "LocalAccount",
    ) -> None:
        self._gateway = gateway
        self._database = database
        self._writer = writer
        self._sessions = sessions
        self._registry = registry
        self._operator = operator
        self._refused: dict[tuple[str, str], float] = {}

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
        same: its records are proven against the registration.
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
                sa.select(_sessions.c.id, sa.literal(action), _transactions.c.sent_ms)
                .outerjoin(_transactions, transaction)
                .where(_sessions.c.mint_pkp, *conditions)
            )

        state, sent_ms = _sessions.c.state, _transactions.c.sent_ms
        awaited = sa.or_(state == "registering", sa.and_(state == "revoked", sent_ms.is_not(None)))
        register = due("register", awaited, ~seen("SessionRegistered"))
        revoke = due(
            "revoke", state == "revoked", seen("SessionRegistered"), ~seen("SessionRevoked")
        )
        query = (
            sa.union_all(register, revoke)
            .order_by(sa.column("sent_ms").asc().nulls_last(), sa.column("id"))
            .limit(TRANSACTIONS_PER_TICK_MAX)
        )
        with self._database.reading() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def _advance(self, session_id: str, action: str) -> bool:
        """See the transaction mined, send it again, or send the first; says whether one is sent."""
        refused_at = self._refused.get((session_id, action), -math.inf)
        if time.monotonic() - refused_at < REFUSED_WAIT_S:
            return False
        query = sa.select(_transactions).where(
            _transactions.c.session_id == session_id, _transactions.c.action == action
        )
        with self._database.reading() as connection:
            sent = connection.execute(query).first()
        if sent is not None:
            receipt = self._gateway.receipt(sent.tx_hash)
            if receipt is not None and receipt.succeeded:
                return False  # the indexer will see its event
            if receipt is None and self._offer(sent.raw_tx):
                return True
        return self._send(session_id, action)

    def _send(self, session_id: str, action: str) -> bool:
        view = self._writer.call(lambda batch: self._sessions.read(batch, session_id))
        try:
            signed = sender.sign(
                self._gateway, self._operator, to=self._registry, data=_call(view, action)
            )
        except (CallReverted, TransactionRejected) as error:
            reason = contracts.revert_name(error) if isinstance(error, CallReverted) else str(error)
            _log.error("chain_refused", session=session_id, action=action, reason=reason)
            self._refused[session_id, action] = time.monotonic()
            self._writer.call(lambda batch: _forget(batch, session_id, action))
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

    def _offer(self, raw: bytes) -> bool:
        return send_again(self._gateway, self._operator.address.lower(), raw)


def _forget(batch: Batch, session_id: str, action: str) -> None:
    batch.update(
        sa.delete(_transactions).where(
            _transactions.c.session_id == session_id, _transactions.c.action == action
        )
    )


def _call(view: SessionView, action: str) -> bytes:
    if action == "register":
        signed = view.owner_signature, view.consent
        return contracts.registering(view.grant, view.public_key, *signed)
    return contracts.revoking(view.grant, view.token_id)
