"""What the records add up to: every session, its payments, and what still has to be explained.

It shares no code with the engine.
"""

from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from tests.simulation.log import LogFollower, Record, require
from tests.simulation.pools import Pool, limited, of_limits, of_terms
from tests.simulation.terms import Spend, Terms

HOLD_TTL_MS = 900_000
APPROVAL_TTL_MS = 2_400_000
WAITING_MAX = 100
WORKSPACE = "workspace"

Lowering = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Question:
    """One question to the ledger. `body` is a payment's, `amount` a capture's (None: all)."""

    what: str
    session: str = ""
    key: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict)
    payment: str = ""
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """How well the engine knows the chain: True, False, or None if nobody can say.

    `read` is about whether it was ever read since the start, `fresh` whether lately enough.
    """

    read: bool | None = True
    fresh: bool | None = True


@dataclass(frozen=True, slots=True)
class Seen:
    """The chain as it is: by address the registrations, the newest block, its time, the anchors.

    `whole` says that the engine read all of it and did all that follows from it.
    """

    clock_ms: int
    whole: bool
    sessions: dict[str, dict[str, Any]]
    tip: int
    time_ms: int
    time_max_ms: int
    anchored: list[tuple[int, bytes]]
    log_size: int = 0
    log_root: bytes = b""


class Account:
    """One session by its records."""

    def __init__(self, session: str, body: dict[str, Any]) -> None:
        self.session, self.state = session, body["state"]
        self.terms, self.grant_hash = Terms(body["grant"]), body["grant_hash"]
        self.address, self.on_chain = body["grant"]["session_key"], body["mint_pkp"]
        self.decisions: dict[int, Record] = {}
        self.spends: dict[int, Spend] = {}
        self.due: list[tuple[int, int]] = []
        self.keys: dict[str, tuple[int, Question]] = {}
        self.used_up = False
        self.frees_ms: int | None = None
        self.agent, self.required = body["grant"]["agent_id"], body["approvals_required"]
        self.line: tuple[str, ...] = ()
        """The sessions that it descends from, its parent first."""
        self.waiting: dict[str, Any] = {}
        """The approvals that wait, by the digest of what was asked, and all, by id."""
        self.approvals: dict[str, Any] = {}
        self.lowered: dict[Lowering, dict[str, int | None]] = {}
        """The limits that were lowered on the chain and count, by transaction and value."""
        self.inherited: dict[tuple[str, Lowering], dict[str, int | None]] = {}
        """The same of sessions above it, by those."""
        self.missing: dict[Lowering, int] = {}
        """The newest block when each of them was first seen to be not there."""

    def payment(self, number: int) -> str:
        """The id of a decision."""
        return f"pay_{self.session.removeprefix('sess_')}_{number}"


class Books:
    """All sessions by their records. A record is taken once, by what explains it."""

    def __init__(self) -> None:
        self.log = LogFollower()
        self.accounts: dict[str, Account] = {}
        self.figures: Counter[str] = Counter()
        self.events: dict[tuple[str, int], str] = {}
        """What has to be told, by the record it is told of."""
        self.time_ms = 0
        self.pools: dict[str, Pool] = {}
        self.limits: dict[str, dict[str, int | None]] = {}
        """Of the budgets that are in force."""
        self.keys: set[str] = set()
        """Those of operators that are valid."""
        self.chain_ms = (0, 0)
        """Between which instants the chain's clock is, as the engine must know it."""

    def at(self, clock_ms: int) -> None:
        """The clock was asked: time never runs backwards."""
        self.time_ms = max(self.time_ms, clock_ms)

    def comes(self, kind: str, session: str | None = None) -> bool:
        """Whether the next record that nothing has explained is such a one."""
        if not self.log.unexplained:
            return False
        record = self.log.unexplained[0]
        return record.kind == kind and session in (None, record.stream)

    def take(self, kind: str, session: str | None) -> Record:
        """Explain the next record, which has to be such a one and of this moment."""
        require(bool(self.log.unexplained), "durability", f"no record of {kind} for {session}")
        record = self.log.unexplained.popleft()
        found = (record.kind, record.stream if session is not None else None)
        require(found == (kind, session), "answers", f"{found} in place of {(kind, session)}")
        require(
            record.time_ms == self.time_ms,
            "time",
            f"{kind} of {record.stream} is of {record.time_ms}, not of {self.time_ms}",
        )
        return record

    def tell(self, record: Record, event: str) -> None:
        """There has to be such an event beside the record."""
        self.events[record.stream, record.seq] = event

    # What bounds several sessions

    def above(self, account: Account) -> list[Pool]:
        """The budgets that the payments of a session are under, the nearest first."""
        if not self.pools:
            return []
        names = [f"session:{each}" for each in (account.session, *account.line)]
        names += [f"agent:{account.agent}", WORKSPACE]
        return [self.pools[name] for name in names if name in self.pools]

    def delegates(self, account: Account) -> None:
        """A session has one beneath it: from now on it bounds what they spend together."""
        name = f"session:{account.session}"
        if name not in self.pools:
            self.pools[name] = of_terms(name, account.terms)
            self._enter_past(self.pools[name], [account])

    def set_budget(self, name: str, limits: dict[str, int | None] | None) -> None:
        """The budget of an agent or the workspace; None: it is lifted. What was spent counts."""
        self.pools.pop(name, None)
        self.limits.pop(name, None)
        if limits is not None:
            self.limits[name] = limits
            self.pools[name] = of_limits(name, limits)
            of_whom = [
                account
                for account in self.accounts.values()
                if name in (WORKSPACE, f"agent:{account.agent}")
            ]
            self._enter_past(self.pools[name], of_whom)

    def lower(self, account: Account) -> None:
        """The limits of a session are those of its grant and all that were lowered."""
        account.terms.lower([*account.lowered.values(), *account.inherited.values()])
        if (pool := self.pools.get(f"session:{account.session}")) is not None:
            limited(pool, account.terms)

    def _enter_past(self, pool: Pool, accounts: list[Account]) -> None:
        past = [
            (spend.decided_ms, account.session, number, spend)
            for account in accounts
            for number, spend in account.spends.items()
            if spend.state in ("held", "captured")
        ]
        for _, session, number, spend in sorted(past, key=lambda each: each[:3]):
            pool.add((session, number), spend)

    # Payments

    def allowed(self, account: Account, number: int, spend: Spend, *, capture: bool) -> None:
        """A payment was allowed, and spent at once or held."""
        account.terms.add(spend)
        for pool in self.above(account):
            pool.add((account.session, number), spend)
        account.spends[number] = spend
        account.used_up = False
        if capture:
            self.ended(account, number, "captured", spend.amount)
        else:
            heappush(account.due, (spend.expires_ms, number))

    def ended(self, account: Account, number: int, state: str, amount: int) -> None:
        """A hold ends now, with `amount` of it spent."""
        record = self.take(f"payment.{state}", account.session)
        spend, payment = account.spends[number], account.payment(number)
        late = record.time_ms >= spend.expires_ms
        require(spend.state == "held", "holds", f"{payment} was {spend.state} before")
        require(late == (state == "expired"), "holds", f"{payment} {state} at {record.time_ms}")
        require(
            record.body
            == {"payment": payment, "held_micro_usd": spend.held, "captured_micro_usd": amount},
            "holds",
            f"{record.body} is not {payment} {state} of {amount}",
        )
        account.terms.reduce(spend, amount, record.time_ms)
        for pool in self.above(account):
            pool.ended((account.session, number), amount, record.time_ms)
        spend.state = state
        account.used_up = False
        self.tell(record, "payment.confirmed" if state == "captured" else f"payment.{state}")
        self.figures[state] += 1

    def expire_due(self, account: Account) -> None:
        """Whoever asks a session anything finds its holds expired that are over."""
        while account.due and account.due[0][0] <= self.time_ms:
            _, number = heappop(account.due)
            if account.spends[number].state == "held":
                require(
                    self.comes("payment.expired", account.session),
                    "holds",
                    f"{account.payment(number)} is over and did not expire",
                )
                self.ended(account, number, "expired", 0)

    def expired(self, account: Account) -> None:
        """A hold of a session expires that nobody asked about."""
        while account.due and account.spends[account.due[0][1]].state != "held":
            heappop(account.due)
        over = account.due and account.due[0][0] <= self.time_ms
        require(bool(over), "holds", f"a hold of {account.session} expired too early")
        self.ended(account, heappop(account.due)[1], "expired", 0)
