"""All sessions of a workspace as people look through them: filtered, sorted, with their use; and
revoked together.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from engine.audit.record import Record, decode_record
from engine.audit.replay import LIVE_STATES
from engine.db.acts import Act
from engine.db.database import Database
from engine.db.tables import BATCH_RECORDS_MAX, ChainEvent, Decision, LogBatch, Session, table
from engine.db.tables import Record as RecordRow
from engine.errors import Conflict, InvalidInput, NotFound, Unavailable
from engine.ledger.batch import Batch
from engine.ledger.writer import Writer
from engine.policy.decide import Left
from engine.policy.decision import Remaining
from engine.sessions.chain_facts import chain_facts
from engine.sessions.lifecycle import Sessions, Wanted
from engine.sessions.revocable import Revocable, revocable
from engine.sessions.session import SessionView, readable, session_from_row

REVOKED_TOGETHER_MAX = 500
LIFE_MAX = 200
NOTHING_LEFT = Left(Remaining(0, 0, 0), ())
"""What is told of a session for which nothing is decided."""
_DAMAGED = ("session_damaged", "budget_damaged")
Order = Literal["created", "last_used", "expiry"]

_acts = table(Act)
_batches = table(LogBatch)
_decisions = table(Decision)
_events = table(ChainEvent)
_records = table(RecordRow)
_sessions = table(Session)
_denied = _decisions.c.state == "denied"
_held = _decisions.c.state == "held"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sessions. One without chains of its own may spend on any `chain`; `search` is part of
    an id, a label, an agent's id or name, or the beginning of the address of the session's key or
    owner, whatever its case."""

    wanted: Wanted
    chain: str | None = None
    search: str | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """For the rows of sessions."""
        found = self.wanted.conditions()
        if self.chain is not None:
            grant = _sessions.c.grant_json
            listed = grant.contains(f'"{self.chain}"', autoescape=True)
            found.append(sa.or_(grant.contains('"chains":[]', autoescape=True), listed))
        if self.search is not None:
            columns = (_sessions.c[name] for name in ("id", "label", "agent_id", "agent_name"))
            parts = [column.icontains(self.search, autoescape=True) for column in columns]
            if self.search[:2].lower() == "0x":
                begins = (f'"{name}":"{self.search.lower()}' for name in ("owner", "session_key"))
                grant = _sessions.c.grant_json
                parts += [grant.contains(each, autoescape=True) for each in begins]
            found.append(sa.or_(*parts))
        return found


@dataclass(frozen=True, slots=True)
class Used:
    """A session, how many payments were asked of it, and when the last was (milliseconds)."""

    view: SessionView
    requests: int
    last_used_ms: int | None


@dataclass(frozen=True, slots=True)
class Told:
    """A record of a session; `leaf` is its place in the log's tree, None until it has one."""

    record: Record
    leaf: int | None


@dataclass(frozen=True, slots=True)
class Milestone:
    """Something that happened to a session: the kind of its record, or `paid` and `refused` for the
    first payment that was allowed and denied; milliseconds."""

    what: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class OnChain:
    """An event of the contracts about a session."""

    name: str
    block_number: int
    tx_hash: bytes


class Inventory:
    """Reads what is committed, and revokes."""

    def __init__(self, database: Database, writer: Writer, sessions: Sessions) -> None:
        self._database = database
        self._writer = writer
        self._lifecycle = sessions

    def page(
        self, workspace_id: str, sought: Filter, order: Order, *, offset: int, limit: int
    ) -> tuple[list[Used], int]:
        """Sessions from `offset` on and how many there are: the newest first, the last used first,
        or what is over soonest first. One whose row is damaged is only counted."""
        where = [_sessions.c.workspace_id == workspace_id, *sought.conditions()]
        last, asked = _last_used(), _requests()
        sorts: dict[str, list[sa.ColumnElement[Any]]] = {
            "created": [_sessions.c.created_ms.desc()],
            "last_used": [sa.func.coalesce(last, 0).desc()],
            "expiry": [_sessions.c.expires_ms],
        }
        query = (
            sa.select(_sessions, last.label("last_used_ms"), asked.label("requests"))
            .where(*where)
            .order_by(*sorts[order], _sessions.c.id.desc())
            .offset(offset)
            .limit(limit)
        )
        count = sa.select(sa.func.count()).select_from(_sessions).where(*where)
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
            return readable(rows, _used), connection.execute(count).scalar_one()

    def one(self, workspace_id: str, session_id: str) -> Used:
        """One session with its use.

        Raises:
            NotFound: absent, or of another workspace.
        """
        view = self._lifecycle.get(workspace_id, session_id)
        query = sa.select(_last_used(), _requests()).where(_sessions.c.id == session_id)
        with self._database.reading() as connection:
            last, asked = connection.execute(query).one()
        return Used(view, asked, last)

    def records(self, session_id: str, *, offset: int, limit: int) -> tuple[list[Told], int]:
        """Records of a session from `offset` on, the newest first, and how many there are."""
        within = _records.c.id % BATCH_RECORDS_MAX
        query = (
            sa.select(_records.c.body, (_batches.c.first_leaf + within).label("leaf"))
            .join(_batches, _batches.c.id == _records.c.id - within)
            .where(_records.c.stream == session_id)
            .order_by(_records.c.seq.desc())
            .offset(offset)
            .limit(limit)
        )
        last = sa.select(sa.func.max(_records.c.seq)).where(_records.c.stream == session_id)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
            total = (connection.execute(last).scalar_one() or 0) + 1
        return [Told(decode_record(row.body), row.leaf) for row in rows], total

    def life(self, session_id: str, kinds: Collection[str]) -> list[Milestone]:
        """The newest `LIFE_MAX` records of some kinds, none of payments, and the first payments;
        the first first."""
        acts = (
            sa.select(_acts.c.kind, _acts.c.time_ms)
            .join(_records, _records.c.id == _acts.c.id)
            .where(_records.c.stream == session_id, _acts.c.kind.in_(kinds))
            .order_by(_records.c.seq.desc())
            .limit(LIFE_MAX)
        )
        with self._database.reading() as connection:
            found = [Milestone(*row) for row in connection.execute(acts)][::-1]
            for what, denied in (("paid", False), ("refused", True)):
                query = _of(session_id, sa.func.min(_decisions.c.decided_ms))
                at_ms = connection.execute(query.where(_denied if denied else ~_denied)).scalar()
                if at_ms is not None:
                    found.append(Milestone(what, at_ms))
        return sorted(found, key=lambda each: each.at_ms)

    def spent(self, session_id: str, since_ms: int, step_ms: int) -> list[tuple[int, int]]:
        """What a session has held or spent since then: when (milliseconds) and how much
        (micro-USD), in order. What was decided within the same `step_ms` is one amount."""
        decided, step = _decisions.c.decided_ms, (_decisions.c.decided_ms - since_ms) // step_ms
        amount = sa.case((_held, _decisions.c.amount), else_=_decisions.c.captured)
        query = (
            _of(session_id, sa.func.min(decided), sa.func.sum(amount))
            .where(decided >= since_ms, _decisions.c.state.in_(("held", "captured")))
            .group_by(step)
            .order_by(sa.func.min(decided))
        )
        with self._database.reading() as connection:
            return [(at_ms, int(total)) for at_ms, total in connection.execute(query)]

    def on_chain(self, view: SessionView) -> list[OnChain]:
        """What the contracts told of a session, the first first."""
        query = (
            sa.select(_events.c.name, _events.c.block_number, _events.c.tx_hash)
            .where(_events.c.subject == view.token_id)
            .order_by(_events.c.block_number, _events.c.log_index)
        )
        with self._database.reading() as connection:
            return [OnChain(*row) for row in connection.execute(query)]

    def rotated(self, view: SessionView) -> tuple[SessionView | None, SessionView | None]:
        """The session whose place this one took on the chain in one transaction, and the one that
        took its place; None: none did, or it is nobody's here."""
        with self._database.reading() as connection:
            facts = chain_facts(connection.execute, view.token_id)
            ours = _sessions.c.workspace_id == view.workspace_id

            def found(event: Mapping[str, Any] | None, side: str) -> SessionView | None:
                token_id = bytes.fromhex((event or {}).get(side, "")[2:])
                query = sa.select(_sessions).where(ours, _sessions.c.token_id == token_id)
                rows = connection.execute(query).mappings().all() if token_id else ()
                return next(iter(readable(rows, session_from_row)), None)

            return found(facts.registration, "rotated_from"), found(facts.revocation, "rotated_to")

    def to_revoke(self, workspace_id: str, sought: Filter) -> list[Revocable]:
        """The sessions that `revoke` would end; damaged ones, too.

        Raises:
            InvalidInput: they are too many to be ended together.
        """
        with self._database.reading() as connection:
            return _few(connection.execute(_live(workspace_id, sought)).all())

    def revoke(self, workspace_id: str, sought: Filter, seen: str, *, by: str) -> int:
        """Revoke all live sessions that are sought, in one transaction, if they are still those
        that were `seen` (`digest`); returns how many. Left alone are those whose last record is
        damaged: nothing can follow it, and nothing is paid from them.

        Raises:
            Conflict: they are others by now; nothing is revoked.
            InvalidInput: they are too many.
        """

        def command(batch: Batch) -> int:
            views = _few(batch.read(_live(workspace_id, sought)).all())
            if digest(views) != seen:
                raise Conflict(
                    "the sessions that match have changed since they were shown; look again",
                    code="selection_changed",
                )
            batch.hold(view.id for view in views)
            views = [view for view in views if _goes_on(batch, view)]
            for view in views:
                self._end(batch, view, {"by": by})
            return len(views)

        return self._writer.call(command, *(v.id for v in self.to_revoke(workspace_id, sought)))

    def revoke_damaged(self, workspace_id: str, session_id: str, *, by: str) -> None:
        """Revoke one session whose row may hold none, and with it every session beneath it.

        Raises:
            NotFound: absent, or of another workspace.
            Unavailable: its last record is damaged, and nothing can follow it.
        """
        ours = _sessions.c.id == session_id, _sessions.c.workspace_id == workspace_id

        def command(batch: Batch) -> None:
            row = batch.read(sa.select(_sessions).where(*ours)).first()
            if row is None:
                raise NotFound("no such session", code="session_not_found")
            batch.head(session_id)
            self._end(batch, revocable(row), {"by": by})

        self._writer.call(command, session_id)

    def _end(self, batch: Batch, view: Revocable, evidence: Mapping[str, Any]) -> None:
        state = batch.read(sa.select(_sessions.c.state).where(_sessions.c.id == view.id)).scalar()
        if state == "revoked":  # with another that is above it
            return
        try:
            now = self._lifecycle.read(batch, view.id, view.workspace_id)
        except Unavailable:  # and yet it has to end, which takes nothing of it but its row
            self._lifecycle.end_all(batch, view, evidence)
        else:
            self._lifecycle.revoked(batch, now, evidence)


def digest(views: Sequence[SessionView | Revocable]) -> str:
    """SHA-256 over the ids of some sessions, in hexadecimal, in whatever order."""
    return hashlib.sha256("\n".join(sorted(view.id for view in views)).encode()).hexdigest()


def left_of_each(
    left: Callable[[str], "Future[Left]"], views: Iterable[SessionView]
) -> list[Left | None]:
    """What is left of each session, as `left` tells it of one; None: what it rests on is damaged,
    and nothing is decided for it.

    Raises:
        Unavailable: nothing is decided for anybody.
    """
    found: list[Left | None] = []
    for future in [left(view.id) for view in views]:  # all are asked for before one is awaited
        try:
            found.append(future.result())
        except Unavailable as error:
            if error.code not in _DAMAGED:
                raise
            found.append(None)
    return found


def _few(rows: Sequence[Any]) -> list[Revocable]:
    if len(rows) > REVOKED_TOGETHER_MAX:
        raise InvalidInput("filter", f"matches more than {REVOKED_TOGETHER_MAX} live sessions")
    return [revocable(row) for row in rows if isinstance(row.id, str)]  # or nobody can name it


def _goes_on(batch: Batch, view: Revocable) -> bool:
    """Whether a record can follow the last one of a session."""
    try:
        batch.head(view.id)
    except Unavailable:
        return False
    return True


def _live(workspace_id: str, sought: Filter) -> sa.Select[Any]:
    where = (
        _sessions.c.workspace_id == workspace_id,
        _sessions.c.state.in_(LIVE_STATES),
        _sessions.c.expires_ms > sought.wanted.now_ms,
    )
    query = sa.select(_sessions).where(*where, *sought.conditions()).order_by(_sessions.c.id)
    return query.limit(REVOKED_TOGETHER_MAX + 1)


def _decided() -> sa.Select[Any]:
    both = _records.join(_decisions, _decisions.c.id == _records.c.id)
    return (
        sa.select(_decisions.c.decided_ms)
        .select_from(both)
        .where(_records.c.stream == _sessions.c.id)
    )


def _of(session_id: str, *wanted: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Of the decisions on a session's payments."""
    both = _records.join(_decisions, _decisions.c.id == _records.c.id)
    return sa.select(*wanted).select_from(both).where(_records.c.stream == session_id)


def _last_used() -> sa.ScalarSelect[Any]:
    return (
        _decided().order_by(_records.c.seq.desc()).limit(1).correlate(_sessions).scalar_subquery()
    )


def _requests() -> sa.ScalarSelect[Any]:
    counted = _decided().with_only_columns(sa.func.count())
    return counted.correlate(_sessions).scalar_subquery()


def _used(row: Any) -> Used:
    fields = dict(row)
    last, asked = fields.pop("last_used_ms"), fields.pop("requests")
    return Used(session_from_row(fields), asked, last)
