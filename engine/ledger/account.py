"""One session's budget in memory: its policy, what it has used of it, and its open holds.

It is what the session's records make it, and is read again from them whenever that is in doubt
(`account_loading.py`).
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.audit.lowering import LOWERED, UNLOWERED, Lowering, follow_lowering
from engine.audit.record import Body
from engine.audit.restricting import RESTRICTED, Above, follow_above
from engine.errors import Conflict
from engine.ledger.ask import read_request
from engine.ledger.batch import Batch
from engine.ledger.stream import Stream
from engine.policy.decision import STANDING_OF_STATE, PaymentRequest, Policy, Standing
from engine.policy.limits import Limits, lowest
from engine.policy.rules import BUDGET_RULES, WINDOW_RULES
from engine.policy.spending import Spending
from engine.policy.windows import Entry

GOES_ON = (RESTRICTED, LOWERED, UNLOWERED, "session.resumed")
"""After these records a session is at no limit until one denies a payment again: its policy is
another, or an operator had it go on."""


@dataclass(slots=True)
class Hold:
    """An open authorization: budget that is taken until it is captured, voided or expires.

    `number` is that of the record that decided it. Once its payment is signed only the chain ends
    it, and `expires_ms` is None. `digest` is that of a request with terms to sign.
    """

    number: int
    entry: Entry
    expires_ms: int | None
    digest: str | None = None


@dataclass(slots=True)
class Waiting:
    """An approval that waits for the grants of operators; `keys` are those that granted it.

    `number` is that of the record with the decision that it was opened by.
    """

    number: int
    digest: str
    policy_version: int
    expires_ms: int
    keys: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Account:
    """See the module. A payment is known by the number of the record that decided it.

    `address` is that of the session's key. `holds` is by number, and `keys` has it for each
    idempotency key that was used. `captured` is micro-USD in all. `restrictions`, and those of
    sessions above, are what the records tell of them; those in force are in `policy`, from the
    beginning, so that a cap that was set later counts all payments.
    """

    stream: Stream
    agent_id: str
    on_chain: bool
    grant_hash: str
    address: str
    policy: Policy
    standing: Standing = Standing.MISMATCH
    genuine: bool = False
    """Whether the parameters are those of its row, of its first record and of the chain."""
    differs: Mapping[str, str | None] | None = None
    """If not, what each of these says (`engine.ledger.parameters`)."""
    rows: bytes = b""
    """The digest of what was read of its row and its first record."""
    records: int = 0
    """How many records of its stream it has followed."""
    captured: int = 0
    spending: Spending = field(init=False)
    holds: dict[int, Hold] = field(default_factory=dict)
    to_sign: dict[str, list[int]] = field(default_factory=dict)
    """The holds of payments that are signed, or can be, by the digests of their requests."""
    keys: dict[str, int] = field(default_factory=dict)
    limit_reached: bool = False
    limit_frees_ms: int | None = None
    """When what was denied last by a limit over time would fit, if time alone can bring that."""
    limit_above: PaymentRequest | None = None
    """What was denied last, if a budget above it did: no record of the session tells when it would
    fit after all."""
    delegators: tuple[tuple[str, Policy], ...] = ()
    """The budgets `session:…` of the sessions that it descends from, the nearest first."""
    delegates: bool = False
    """Whether there are sessions beneath it."""
    restrictions: tuple[str, ...] = ()
    restrictions_above: Above = field(default_factory=dict)
    policy_version: int = 1
    lowered: tuple[Lowering, ...] = ()
    """The limits that the records tell were lowered on the chain."""
    approvals_required: int = 1
    approvals: dict[str, Waiting] = field(default_factory=dict)
    """Those that wait, by the digest of the request."""
    _granted: Limits = field(init=False)
    _expiries: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spending = Spending(self.policy)
        self._granted = self.policy.limits

    def check_stands(self, now_ms: int, chain_time_ms: int) -> None:
        """Be sure that the session may still pay at all, whatever was allowed before.

        Raises:
            Conflict: it is paused, revoked, expired or not what the chain holds.
        """
        how = (self.standing if self.genuine else Standing.MISMATCH).value
        time_ms = max(now_ms, chain_time_ms) if self.on_chain else now_ms
        if how == "active" and time_ms >= self.policy.valid_until_ms:
            how = "expired"
        if how != "active":
            raise Conflict(f"the session is {how}", code="session_not_active")

    def record(self, batch: Batch, kind: str, body: Body) -> int:
        """Append to the log what the account is about to follow; returns the record's id."""
        self.records += 1
        return batch.record(self.stream, kind, body)

    def decided(
        self,
        number: int,
        now_ms: int,
        request: PaymentRequest,
        *,
        allowed: bool,
        rule: str,
        expires_ms: int | None,
        approved: str | None = None,
        to_sign: str | None = None,
        retry_at_ms: int | None = None,
    ) -> None:
        """A decision was made by a record; if it allows, its amount is held until `expires_ms`.

        `retry_at_ms` is when a denial says that it would be allowed. `approved` is the digest of
        the request where an approval let it pass, which is used up; `to_sign` where the request has
        terms.
        """
        if allowed and expires_ms is not None:
            entry = self.spending.add(now_ms, request)
            self.holds[number] = Hold(number, entry, expires_ms, to_sign)
            if to_sign is not None:
                self.to_sign.setdefault(to_sign, []).append(number)
            heapq.heappush(self._expiries, (expires_ms, number))
            self.limit_reached = False
            if approved is not None:
                del self.approvals[approved]
        elif rule in WINDOW_RULES:
            if retry_at_ms is not None or not self.at_limit(now_ms):
                self.limit_frees_ms = retry_at_ms
                self.limit_above = request if rule in BUDGET_RULES else None
            self.limit_reached = True

    def at_limit(self, now_ms: int) -> bool:
        """Whether a limit over time has denied a payment that does not fit by now, either, and
        nothing was paid or given back since."""
        frees_ms = self.limit_frees_ms
        return self.limit_reached and (frees_ms is None or now_ms < frees_ms)

    def ended(self, number: int, captured: int) -> None:
        """A hold ended with `captured` micro-USD of it spent; the rest is free at once."""
        hold = self.holds.pop(number)
        self.spending.reduce(hold.entry, captured)
        if hold.digest is not None:
            self.to_sign[hold.digest].remove(number)
            if not self.to_sign[hold.digest]:
                del self.to_sign[hold.digest]
        self.captured += captured
        self.limit_reached = False

    def signed(self, number: int) -> None:
        """The payment of a hold was signed."""
        self.holds[number].expires_ms = None

    def due(self, now_ms: int) -> Sequence[int]:
        """The holds that are over at `now_ms`, by number and the earliest first."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            if self._expires_ms(self._expiries[0][1]) is not None:
                over = (each for each in self._expiries if each[0] <= now_ms)
                return [number for _, number in sorted(over) if self._expires_ms(number)]
            heapq.heappop(self._expiries)
        return ()

    def _expires_ms(self, number: int) -> int | None:
        """When a hold is over; None: it is none any more, or only the chain ends it."""
        hold = self.holds.get(number)
        return None if hold is None else hold.expires_ms

    def follow_approval(self, kind: str, body: Mapping[str, Any]) -> None:
        """Something was recorded of an approval."""
        digest = body["digest"]
        if kind == "approval.requested":
            number = number_of(body["approval"])
            self.approvals[digest] = Waiting(
                number, digest, body["policy_version"], body["expires_ms"]
            )
        elif kind == "approval.granted":
            self.approvals[digest].keys.append(body["key"])
        else:
            del self.approvals[digest]

    def follow_lowering(self, kind: str, body: Mapping[str, Any]) -> None:
        """Limits were lowered on the chain, or are not any more; what was paid counts as before."""
        self.lowered = follow_lowering(self.lowered, kind, body)
        limits = lowest(self._granted, *(each.limits for each in self.lowered))
        self.policy = replace(self.policy, limits=limits)

    def apply(self, record: Mapping[str, Any]) -> None:
        """Follow one decoded record of the session, the next after those applied so far."""
        kind, body = record["kind"], record["body"]
        self.records += 1
        if kind == "payment.decided":
            decision, request = body["decision"], body["request"]
            self.decided(
                self.records - 1,
                record["time_ms"],
                read_request(request),
                allowed=decision["allowed"],
                rule=decision["rule"],
                expires_ms=body["hold_expires_ms"],
                approved=None if body["approval"] is None else body["request_digest"],
                to_sign=body["request_digest"] if "terms" in request else None,
                retry_at_ms=decision["evidence"].get("retry_at_ms"),
            )
        elif kind == "payment.signed":
            self.signed(number_of(body["payment"]))
        elif kind == "payment.refused":
            pass  # no offer could be paid, so nothing was decided
        elif kind.startswith("payment."):
            self.spending.windows.advance(record["time_ms"])
            self.ended(number_of(body["payment"]), body["captured_micro_usd"])
        elif kind.startswith("approval."):
            self.follow_approval(kind, body)
        else:
            if kind in GOES_ON:
                self.limit_reached = False
            self.standing = STANDING_OF_STATE[body["state"]]
            if kind == "session.created":
                self.approvals_required = body["approvals_required"]
            if kind == RESTRICTED and "ancestor_id" in body:
                self.restrictions_above = follow_above(self.restrictions_above, body)
            elif kind == RESTRICTED:
                self.restrictions = tuple(body["restrictions"])
                self.policy_version = body["policy_version"]
            if kind in (LOWERED, UNLOWERED):
                self.follow_lowering(kind, body)


def number_of(id_: str) -> int:
    """The number of the record that the id of a payment or an approval names."""
    return int(id_.rpartition("_")[2])
