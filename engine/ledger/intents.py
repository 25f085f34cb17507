"""Payment intents: asked for by one party, confirmed by a session, which pays.

An intent moves no money. To confirm it is to ask the ledger for a payment of the session
(`Ledger.authorise_now`), in the transaction in which the intent is found to be open; so whoever
confirms, how often and from where, it is paid once.
"""

import hmac
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa

from engine.audit.canonical import CanonicalError, encode
from engine.audit.rest import rest_hash
from engine.db.database import Database, Read
from engine.db.intents import OPEN
from engine.db.tables import OutboxEvent, Record, Session, table
from engine.errors import Conflict, Forbidden, InvalidInput
from engine.identifiers import secret_hash
from engine.ledger.ask import Ask, ask
from engine.ledger.batch import Batch
from engine.ledger.intent import (
    EXPIRED,
    LINK,
    CaptureMethod,
    Intent,
    State,
    cancel_intent,
    in_state,
    intents,
    intents_from_rows,
    no_such_intent,
    one,
    open_intent,
)
from engine.ledger.ledger import Ledger
from engine.ledger.once import Once, made_once
from engine.ledger.payment import Payment, stored_payment
from engine.ledger.sweep import SWEPT_MAX
from engine.ledger.writer import Writer
from engine.policy.decision import PaymentRequest
from engine.settings import Token

LIFE_MAX_S = 30 * 86_400
"""The longest that an intent can wait to be confirmed."""

_outbox = table(OutboxEvent)
_records = table(Record)
_sessions = table(Session)


@dataclass(frozen=True, slots=True)
class NewIntent:
    """What is to be paid, within `lifetime_s` seconds; only by this session, or a session of this
    agent, if one is named. `memo` is JSON that is kept and shown."""

    request: PaymentRequest
    capture_method: CaptureMethod
    agent_id: str | None
    session_id: str | None
    lifetime_s: int
    memo: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """Which intents somebody sees: those for an agent, or what a session made or confirmed."""

    agent_id: str | None = None
    session_id: str | None = None

    def where(self) -> sa.ColumnElement[bool]:
        """Which rows they are."""
        if self.agent_id is not None:
            return intents.c.agent_id == self.agent_id
        return intents.c.session_id == self.session_id


@dataclass(frozen=True, slots=True)
class Confirming:
    """Who confirms: a session, its agent, and what was sent along; `secret` is the intent's."""

    session_id: str
    agent_id: str
    secret: str
    memo: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An intent, and the decision about it; `payment.replayed` says that it was made before."""

    intent: Intent
    payment: Payment


@dataclass(frozen=True, slots=True)
class IntentEvent:
    """An event of an intent, as webhooks tell it: number `sequence` of the workspace's stream."""

    stream: str
    sequence: int
    name: str
    payload_json: str
    created_ms: int


class Intents:
    """Makes, lists, confirms and ends them."""

    def __init__(
        self, database: Database, writer: Writer, ledger: Ledger, tokens: Iterable[Token]
    ) -> None:
        self._database = database
        self._writer = writer
        self._ledger = ledger
        self._priced = {token.asset for token in tokens if token.usd_price is not None}

    def create(
        self, workspace_id: str, new: NewIntent, *, by: str, once: Once | None = None
    ) -> tuple[Intent, str]:
        """Make one; returns it and its client secret, which is not shown again but to `once`.

        Raises:
            InvalidInput: naming the field.
            Conflict: the idempotency key was used for another request.
        """
        if not 0 < new.lifetime_s <= LIFE_MAX_S:
            raise InvalidInput("expires_in_seconds", f"must be 1 to {LIFE_MAX_S}")
        asked = new.request
        sent = {
            **new.memo,
            "merchant": asked.merchant,
            "token": asked.token,
            "chain": asked.chain,
            "permission": asked.permission,
        }
        try:
            sent_json = encode(sent).decode()
        except CanonicalError as error:
            raise InvalidInput("request", str(error)) from error

        def make(batch: Batch) -> tuple[Intent, str]:
            intent_id = batch.identifiers.new("pi")
            secret = batch.identifiers.secret(f"{intent_id}_secret_")
            rest: dict[str, str | bytes] = {
                "sent_json": sent_json,
                "secret_hash": secret_hash(secret),
            }
            row = {
                "workspace_id": workspace_id,
                "id": intent_id,
                "agent_id": new.agent_id,
                "amount": asked.amount,
                "capture_method": new.capture_method,
                **rest,
                "state": "requires_payment",
                "code": None,
                **_session_columns(batch, new.session_id),
                "decided_number": None,
                "created_ms": batch.now_ms,
                "expires_ms": batch.now_ms + new.lifetime_s * 1_000,
            }
            open_intent(batch, row, by, rest_hash(**rest))
            return self._found(batch.read, workspace_id, intent_id, batch.now_ms), secret

        def find(batch: Batch, made: str) -> Intent:
            return self._found(batch.read, workspace_id, made, batch.now_ms)

        return self._writer.call(made_once(once, make, find), workspace_id)

    def get(
        self, workspace_id: str, intent_id: str, now_ms: int, seen: Seen | None = None
    ) -> Intent:
        """One intent as it stands at `now_ms`, of those that are `seen`; None stands for all.

        Raises:
            NotFound: absent, or of another workspace, or not seen.
        """
        with self._database.reading() as connection:
            return self._found(connection.execute, workspace_id, intent_id, now_ms, seen)

    def page(
        self,
        workspace_id: str,
        now_ms: int,
        *,
        seen: Seen | None,
        state: State | None,
        after: str | None,
        offset: int,
        limit: int,
    ) -> tuple[list[Intent], int]:
        """Intents from `offset` on, the newest first, and how many there are in all; of those that
        are older than the intent `after`, if one is named."""
        where = [intents.c.workspace_id == workspace_id]
        if seen is not None:
            where.append(seen.where())
        if state is not None:
            where.append(in_state(state, now_ms))
        if after is not None:
            where.append(intents.c.id < after)
        query = sa.select(intents).where(*where).order_by(intents.c.id.desc())
        count = sa.select(sa.func.count()).select_from(intents).where(*where)
        with self._database.reading() as connection:
            rows = connection.execute(query.offset(offset).limit(limit)).mappings()
            found = intents_from_rows(connection.execute, rows, now_ms)
            return found, connection.execute(count).scalar_one()

    def events(self, intent: Intent) -> list[IntentEvent]:
        """What was told of an intent, the first thing first."""
        query = (
            sa.select(_outbox)
            .join(_records, _records.c.id == _outbox.c.id)
            .where(_records.c.stream == intent.workspace_id, _records.c.seq.in_(intent.numbers))
            .order_by(_records.c.seq)
        )
        with self._database.reading() as connection:
            return [
                IntentEvent(row.stream, row.seq, row.event, row.payload_json, row.created_ms)
                for row in connection.execute(query)
            ]

    def confirm(self, workspace_id: str, intent_id: str, by: Confirming) -> Confirmed:
        """Have a session pay. To confirm again with the same session is answered as a replay.

        What the policy denies has failed, and stays so; what needs an approval waits for it.

        Raises:
            NotFound: no such intent in this workspace.
            Forbidden: the secret is another, or the intent is for another agent.
            Conflict: it is over or was confirmed by another session, or in other words than now.
            Unavailable: no safe decision is possible now; nothing has changed.
        """

        def command(batch: Batch) -> Confirmed:
            row = _row(batch.read, workspace_id, intent_id)
            _check_may(row, by)
            asked = self._ask(row, by)
            if row["state"] == "requires_payment" and batch.now_ms < row["expires_ms"]:
                batch.head(workspace_id)  # raises before anything is written, if it has to
                payment = self._ledger.authorise_now(batch, asked)
            elif row["decided_number"] is not None and row["session_id"] == by.session_id:
                earlier = stored_payment(batch.read, row["session_id"], row["decided_number"])
                asked.check_same(earlier.request)
                payment = msgspec.structs.replace(earlier, replayed=True)
            else:
                state = "canceled" if row["state"] == "requires_payment" else row["state"]
                raise Conflict(f"the payment intent is {state}", code=f"intent_{state}")
            now = self._found(batch.read, workspace_id, intent_id, batch.now_ms)
            return Confirmed(now, payment)

        streams = self._ledger.streams((by.session_id,)) | {workspace_id}
        return self._writer.call(command, *streams)

    def cancel(
        self, workspace_id: str, intent_id: str, *, by: str, seen: Seen | None = None
    ) -> Intent:
        """End one that nobody has confirmed. Canceling again changes nothing.

        Raises:
            NotFound: absent, or of another workspace, or not seen.
            Conflict: it was confirmed; the code says what it is, such as `intent_succeeded`.
        """

        def command(batch: Batch) -> Intent:
            before = self._found(batch.read, workspace_id, intent_id, batch.now_ms, seen)
            if before.state == "requires_payment":
                row = _row(batch.read, workspace_id, intent_id)
                cancel_intent(batch, dict(row), by, None)
            elif before.state != "canceled":
                raise Conflict(
                    f"the payment intent is {before.state}", code=f"intent_{before.state}"
                )
            return self._found(batch.read, workspace_id, intent_id, batch.now_ms, seen)

        return self._writer.call(command, workspace_id)

    def _ask(self, row: sa.RowMapping, by: Confirming) -> Ask:
        """The payment that an intent is about, as a session asks for it."""
        sent = json.loads(row["sent_json"])
        asked = {name: sent.pop(name) for name in ("merchant", "token", "chain", "permission")}
        request = PaymentRequest(
            amount=row["amount"], token_priced=asked["token"] in self._priced, **asked
        )
        return ask(
            by.session_id,
            request,
            memo={
                "description": sent["description"],
                "metadata_json": sent["metadata_json"],
                **by.memo,
                LINK: row["id"],
            },
            key=f"payment-intent:{row['id']}",
            capture=row["capture_method"] == "automatic",
        )

    def over(self, batch: Batch, but: Collection[str]) -> Mapping[str, None]:
        """The intents that nobody confirmed in time; but not these."""
        due = batch.read(
            sa.select(intents.c.id, intents.c.workspace_id)
            .where(OPEN, intents.c.expires_ms <= batch.now_ms, intents.c.id.not_in(but))
            .order_by(intents.c.expires_ms)
            .limit(SWEPT_MAX)
        )
        rows = due.all()
        batch.hold(dict.fromkeys(row.workspace_id for row in rows))
        return dict.fromkeys(row.id for row in rows)

    def end(self, batch: Batch, intent_id: str, _found: None) -> int:
        """Record the end of an intent that is over; returns that it was one."""
        row = batch.read(sa.select(intents).where(intents.c.id == intent_id)).mappings().one()
        cancel_intent(batch, dict(row), None, EXPIRED)
        return 1

    def _found(
        self,
        read: Read,
        workspace_id: str,
        intent_id: str,
        now_ms: int,
        seen: Seen | None = None,
    ) -> Intent:
        return intents_from_rows(read, [_row(read, workspace_id, intent_id, seen)], now_ms)[0]


def _session_columns(batch: Batch, session_id: str | None) -> dict[str, Any]:
    """What every row about a session has."""
    if session_id is None:
        return {"session_id": None, "session_type": None, "label": None}
    named = _sessions.c.id.label("session_id"), _sessions.c.type.label("session_type")
    query = sa.select(*named, _sessions.c.label).where(_sessions.c.id == session_id)
    return dict(batch.read(query).mappings().one())


def _row(read: Read, workspace_id: str, intent_id: str, seen: Seen | None = None) -> sa.RowMapping:
    query = sa.select(intents).where(one(workspace_id, intent_id))
    row = read(query if seen is None else query.where(seen.where())).mappings().first()
    if row is None:
        raise no_such_intent()
    return row


def _check_may(row: sa.RowMapping, by: Confirming) -> None:
    """Raise `Forbidden` unless the secret is the intent's and the agent one that it is for, and
    `NotFound` where it is for another session."""
    if row["state"] == "requires_payment" and row["session_id"] not in (None, by.session_id):
        raise no_such_intent()
    if not hmac.compare_digest(row["secret_hash"], secret_hash(by.secret)):
        raise Forbidden("the client secret is not this intent's", code="invalid_client_secret")
    if row["agent_id"] not in (None, by.agent_id):
        raise Forbidden("the payment intent is for another agent", code="intent_of_another_agent")
