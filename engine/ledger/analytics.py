"""What a workspace's payments come to by day, agent and token.

Payments that are over are added up once and never read again; what is kept for each workspace is a
sum by day, agent and token, the ids of the payments that are still open, and how far it has read.
So a question costs what happened since the last one, and the first one after a start what happened
in `DAYS_MAX` days: a read of one index and of one record for each payment.

Payments are read in the order of their ids. Where many processes write, one may be committed after
another with a higher id, so what was decided within `SETTLING_MS` of the newest is read again.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from engine.clock import Clock
from engine.db.database import Database, Read
from engine.db.tables import Decision, Record, Session, table
from engine.policy.limits import DAY_MS

DAYS_MAX = 90
"""So far back it is counted, today included."""
SETTLING_MS = 60_000
"""No transaction takes so long."""
PAYMENTS_PER_READ_MAX = 1_000
WORKSPACES_MAX = 256
"""So many workspaces' sums are kept; any other is counted anew."""
SESSION_LIFE_MAX_MS = 168 * 3_600_000
"""No session is active that was made longer ago, and a day for clocks."""

_decisions, _records, _sessions = table(Decision), table(Record), table(Session)


@dataclass(slots=True)
class Sum:
    """Payments of one day, agent and token: those that were spent (`captured`, and how much in
    micro-USD), those that were `denied` or `expired`, those given back (`voided`) and still
    `held`."""

    captured: int = 0
    micro_usd: int = 0
    denied: int = 0
    expired: int = 0
    voided: int = 0
    held: int = 0

    def add(self, state: str, micro_usd: int) -> None:
        """Count one payment."""
        setattr(self, state, getattr(self, state) + 1)
        self.micro_usd += micro_usd


class Key(NamedTuple):
    """Which payments a sum is of. `day` is when they were decided, from 1970 on in UTC; `token` is
    a CAIP-19 id."""

    day: int
    agent_id: str
    token: str


class Active(NamedTuple):
    """How many sessions are active now, and how many of those are beneath another."""

    sessions: int
    delegates: int


Sums = dict[Key, Sum]


@dataclass(slots=True)
class _Counted:
    """What is known of a workspace: `sums` of what is over, and what is read again."""

    read_to: int
    sums: Sums = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    counting: threading.Lock = field(default_factory=threading.Lock)


class _Asked(msgspec.Struct):
    token: str


class _Body(msgspec.Struct):
    request: _Asked


class _Told(msgspec.Struct):
    body: _Body


_told = msgspec.json.Decoder(_Told)


class Analytics:
    """Counts from what is committed. Any thread may use it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._keeping = threading.Lock()
        self._kept: OrderedDict[str, _Counted] = OrderedDict()

    def sums(self, workspace_id: str, days: int, agent_id: str | None = None) -> Sums:
        """The sums of the last `days`, at most `DAYS_MAX`, today included; of one agent or all."""
        today = self._clock() // DAY_MS
        counted = self._counted(workspace_id, today)
        with counted.counting:
            found = self._read(counted, workspace_id, today)
        first = today - days + 1
        return {
            key: sum_
            for key, sum_ in found.items()
            if key.day >= first and agent_id in (None, key.agent_id)
        }

    def active(self, workspace_id: str, agent_id: str | None = None) -> Active:
        """The sessions that may pay now. It reads those that were made within a week."""
        now_ms = self._clock()
        ours = [
            _sessions.c.workspace_id == workspace_id,
            _sessions.c.created_ms >= now_ms - SESSION_LIFE_MAX_MS - DAY_MS,
            _sessions.c.state == "active",
            _sessions.c.expires_ms > now_ms,
        ]
        if agent_id is not None:
            ours.append(_sessions.c.agent_id == agent_id)
        count = sa.select(sa.func.count(), sa.func.count(_sessions.c.parent_id)).where(*ours)
        with self._database.reading() as connection:
            return Active(*connection.execute(count).one())

    def _counted(self, workspace_id: str, today: int) -> _Counted:
        with self._keeping:
            counted = self._kept.get(workspace_id)
        if counted is None:
            with self._database.reading() as connection:
                start = _first_since(
                    connection.execute, workspace_id, (today - DAYS_MAX + 1) * DAY_MS
                )
            counted = _Counted(read_to=start - 1)
        with self._keeping:
            counted = self._kept.setdefault(workspace_id, counted)
            self._kept.move_to_end(workspace_id)
            while len(self._kept) > WORKSPACES_MAX:
                self._kept.popitem(last=False)
        return counted

    def _read(self, counted: _Counted, workspace_id: str, today: int) -> Sums:
        """Add up what is over by now; returns those sums with what is still open."""
        first = today - DAYS_MAX + 1
        counted.sums = {key: sum_ for key, sum_ in counted.sums.items() if key.day >= first}
        young: Sums = {}
        with self._database.reading() as connection:
            newest = connection.execute(_newest(workspace_id)).first()
            settled_ms = 0 if newest is None else newest.decided_ms - SETTLING_MS
            for row in _again(connection.execute, counted.open):
                if row.state == "held":
                    _count(young, row)
                else:
                    counted.open.remove(row.id)
                    _count(counted.sums, row)
            settled = True
            for row in _newer(connection.execute, workspace_id, counted.read_to):
                settled = settled and row.decided_ms < settled_ms
                if settled:
                    counted.read_to = row.id
                if settled and row.state == "held":
                    counted.open.add(row.id)
                _count(counted.sums if settled and row.state != "held" else young, row)
        return _together(counted.sums, young)


def _first_since(read: Read, workspace_id: str, time_ms: int) -> int:
    """The id of a workspace's first payment of a time or later: ids ascend with time, but for what
    is committed together, so that a few look-ups find it."""
    last = read(_newest(workspace_id)).first()
    if last is None:
        return 0
    ours = _decided(workspace_id).order_by(_decisions.c.id).limit(1)
    low, high = 0, last.id + 1
    while low < high:
        middle = (low + high) // 2
        row = read(ours.where(_decisions.c.id >= middle)).one()
        if row.decided_ms < time_ms - SETTLING_MS:
            low = row.id + 1
        else:
            high = middle
    return low


def _decided(workspace_id: str) -> sa.Select[Any]:
    columns = _decisions.c.id, _decisions.c.decided_ms
    return sa.select(*columns).where(_decisions.c.workspace_id == workspace_id)


def _newest(workspace_id: str) -> sa.Select[Any]:
    return _decided(workspace_id).order_by(_decisions.c.id.desc()).limit(1)


def _payments() -> sa.Select[Any]:
    names = ("id", "decided_ms", "state", "captured")
    columns = [_decisions.c[name] for name in names]
    return (
        sa.select(*columns, _sessions.c.agent_id, _records.c.body)
        .join(_records, _records.c.id == _decisions.c.id)
        .join(_sessions, _sessions.c.id == _decisions.c.session_id)
    )


def _newer(read: Read, workspace_id: str, above: int) -> Iterator[Any]:
    while True:
        ours = _decisions.c.workspace_id == workspace_id, _decisions.c.id > above
        query = _payments().where(*ours).order_by(_decisions.c.id).limit(PAYMENTS_PER_READ_MAX)
        rows = read(query).all()
        yield from rows
        if len(rows) < PAYMENTS_PER_READ_MAX:
            return
        above = rows[-1].id


def _again(read: Read, open_ids: set[int]) -> Iterator[Any]:
    ids = sorted(open_ids)
    for start in range(0, len(ids), PAYMENTS_PER_READ_MAX):
        some = ids[start : start + PAYMENTS_PER_READ_MAX]
        yield from read(_payments().where(_decisions.c.id.in_(some))).all()


def _count(sums: Sums, row: Any) -> None:
    token = _told.decode(row.body).body.request.token
    key = Key(row.decided_ms // DAY_MS, row.agent_id, token)
    sums.setdefault(key, Sum()).add(row.state, row.captured)


def _together(*parts: Sums) -> Sums:
    found: Sums = {}
    for part in parts:
        for key, each in part.items():
            total = found.setdefault(key, Sum())
            for name in Sum.__slots__:
                setattr(total, name, getattr(total, name) + getattr(each, name))
    return found


def day_text(day: int) -> str:
    """A day as ISO 8601 has it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat()
