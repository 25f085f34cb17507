"""Replay: budgets are rebuilt from the records alone, and every decision must come out the same.

Nothing is believed of a decision but its request and its time. The standing of the session follows
from the records of its life, the windows from the holds and captures before it. What is wrong is
refused by an explicit test, never by an `assert`: an auditor may run Python with `-O`.

The budgets of an agent or a workspace are not in the records of one session. Of a denial by one of
them it follows that every other rule before it allowed the payment; what the budget held is the
operator's word.

Where the merchants of payments are withheld, `engine.audit.blind` says what is still decided again.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from engine.audit import canonical
from engine.audit.approvals import Approvals
from engine.audit.blind import check_blindly, without_merchants
from engine.audit.lowering import LOWERED, UNLOWERED, Lowering, follow_lowering
from engine.audit.record import Record, integer
from engine.audit.report import counted, difference, shown, wrong
from engine.audit.restricting import (
    CHANGES_ABOVE_MAX,
    POLICY_VERSION_MAX,
    RESTRICTED,
    Above,
    follow_above,
)
from engine.audit.signing import Signatures, check_refused
from engine.audit.usage import Asked, Usage, decide_again, read_asked
from engine.grant import NO_PARENT, Grant
from engine.policy.decision import STANDING_OF_STATE, Policy, Standing
from engine.policy.explain import Explanation, explain
from engine.policy.facts import Finding
from engine.policy.money import format_usd
from engine.policy.rules import BUDGET_RULES

HOLD_TTL_MAX_MS = 7 * 86_400_000
"""The longest life of a hold; a longer one could keep the end of a payment out of the records."""

LIVE_STATES = ("awaiting_consent", "registering", "active", "paused")
"""The states of a session that is not over."""
LOWERED_STATES = (*LIVE_STATES, "mismatch")
"""The states in which it is followed what the chain says of the limits, and what binds above."""

ENDS = ("payment.captured", "payment.voided", "payment.expired")
"""The records that end a hold."""

_STATES_AFTER = {
    "session.created": ("awaiting_consent", "registering", "active"),
    "session.consented": ("registering", "active"),
    "session.registered": ("active",),
    "session.unregistered": ("registering",),
    "session.mismatched": ("mismatch",),
    "session.paused": ("paused",),
    "session.resumed": ("active", "registering"),
    "session.revoked": ("revoked",),
    "session.expired": ("expired",),
}
"""The states in which each record of a session's life can leave it."""
_STATES_BEFORE = {"session.paused": ("active", "paused"), "session.resumed": ("paused",)}
"""The states in which some of them can find it."""


class ReplayError(ValueError):
    """A record cannot have been made by the policy; the message says which and why."""


class Replay:
    """One session's budget as its records tell it; feed the records in order.

    `withheld` are the groups that no record shows; where that is the merchants, `usage` is under
    the policy without its rules on merchants.
    """

    def __init__(self, grant: Grant, grant_hash: bytes, *, withheld: Collection[str] = ()) -> None:
        self._grant = grant
        self._grant_hash = grant_hash.hex()
        self._blind = "merchant" in withheld
        self._policy = grant.policy()
        self.usage = Usage(self._visible(self._policy))
        self.policy_version = 1
        self.restrictions: tuple[str, ...] = ()
        self.restrictions_above: Above = {}
        """Those that bind it as they bind sessions above it."""
        self._changes_above = 0
        self.lowered: tuple[Lowering, ...] = ()
        """The limits that count because they were lowered on the chain."""
        self._approvals = Approvals()
        self.signatures = Signatures(grant.session_key)
        self._expires_ms: dict[str, int | None] = {}
        """When each hold that is open is over; None where that is the chain's to say."""
        self.state = ""
        self.registration: Mapping[str, Any] | None = None
        """The body of the last record of a registration on the chain."""
        self.consented: Mapping[str, Any] | None = None
        """The body of the record of the owner's consent."""
        self.decisions = 0
        self.taken_as_told = 0
        """How many of them rest on what is withheld: denials by rules that could not be asked."""
        self.allowed_ms: list[int] = []
        """The times of all allowed decisions, in order."""
        self.allowed_chain_ms: list[int] = []
        """The chain's time that the server knew at each of them."""
        self.allowed_tokens: set[str] = set()
        """The tokens (CAIP-19) that were to pay."""
        self.allowed_before_registration = 0
        """How many of them are older than the last record of a registration."""
        self.allowed_unregistered = False
        """Whether a payment was allowed before a registration on the chain was recorded."""
        self.captured_micro_usd = 0

    @property
    def open_until_ms(self) -> int | None:
        """When the first of the holds that are still open, and not signed, is over; or None."""
        return min(filter(None, self._expires_ms.values()), default=None)

    def feed(self, records: Iterable[Record]) -> None:
        """Apply records.

        Raises:
            ReplayError: naming the first record that does not follow from those before it.
        """
        for record in records:
            self.follow(record)

    def follow(self, record: Record) -> None:
        """Apply the next record.

        Raises:
            ReplayError: it does not follow from those before it.
        """
        try:
            self._apply(record)
        except _WRONG as error:
            raise _named(record, error) from error

    def said(self) -> str:
        """What came of it, in words."""
        said = (
            f"{counted(self.decisions, 'decision')}, {len(self.allowed_ms)} allowed, "
            f"{format_usd(self.captured_micro_usd)} captured"
        )
        if self._blind:
            said += (
                f"; the merchants of {counted(self.decisions, 'payment')} are withheld, so rules "
                "on merchants are not replayed: "
                f"{counted(self.taken_as_told, 'denial')} taken as told"
            )
        return said

    def explain(self, record: Record) -> Explanation:
        """What every rule says to the payment of the next record, a decision; it is not applied.

        What a budget above the session holds is the operator's word: it is told where the recorded
        decision rests on it, and then nobody knows when the payment would be allowed.

        Raises:
            ReplayError: the record is none that could follow.
        """
        try:
            asked = read_asked(record)
            found = explain(
                self.usage.policy,
                asked.standing,
                self.usage.spending,
                asked.request,
                asked.now_ms,
                chain_time_ms=asked.chain_time_ms,
                approved=asked.approved,
            )
            decision = decide_again(self.usage, asked)
        except _WRONG as error:
            raise _named(record, error) from error
        if decision.rule not in BUDGET_RULES:
            return replace(found, decision=decision)
        told = Finding(decision.reason, decision.evidence)
        verdicts = tuple(
            replace(verdict, finding=told) if verdict.rule.name == decision.rule else verdict
            for verdict in found.verdicts
        )
        return replace(found, decision=decision, verdicts=verdicts, allowed_at_ms=None)

    def _apply(self, record: Record) -> None:
        self._approvals.check_follows(record)
        if record.kind == "payment.decided":
            self._decided(record, record.body)
        elif record.kind in ENDS:
            self._ended(record, record.body)
        elif record.kind in _STATES_AFTER:
            self._lived(record, record.body)
        elif record.kind == RESTRICTED:
            self._restricted(record.body)
        elif record.kind in (LOWERED, UNLOWERED):
            self._lowered(record.kind, record.body)
        elif record.kind == "payment.signed":
            self._signed(record, record.body)
        elif record.kind == "payment.refused":
            check_refused(record.body, self._blind)
        elif record.kind.startswith("approval."):
            self._approvals.follow(record, self.policy_version)
        else:
            raise ValueError("no such kind of record")
        self._approvals.passed(record)

    def _lived(self, record: Record, body: Mapping[str, Any]) -> None:
        if (self.state == "") != (record.kind == "session.created"):
            raise ValueError("the session's life does not begin with its creation, or begins twice")
        if self.state == "revoked":
            raise ValueError("a revoked session cannot change any more")
        if record.kind in _STATES_BEFORE and self.state not in _STATES_BEFORE[record.kind]:
            raise ValueError(f"the session was {self.state}")
        if body["state"] not in _STATES_AFTER[record.kind]:
            raise ValueError(f"it cannot make the session {shown(body['state'])}")
        self.state = body["state"]
        if record.kind == "session.created":
            self._approvals.created(body)
        if record.kind == "session.consented":
            if body.get("owner") != self._grant.owner:
                raise ValueError("it is the consent of another than the grant's owner")
            self.consented = body
        if record.kind == "session.registered":
            own = "0x" + self._grant_hash
            if body.get("grant_hash", own) != own:
                raise ValueError("it is the registration of another grant")
            self.registration = body
            self.allowed_before_registration = len(self.allowed_ms)

    def _restricted(self, body: Mapping[str, Any]) -> None:
        above = "ancestor_id" in body
        states = LOWERED_STATES if above else LIVE_STATES
        if self.state not in states or body["state"] != self.state:
            raise ValueError(f"the session was {self.state}")
        if above:
            self._changes_above += 1
            if self._grant.parent == NO_PARENT or self._changes_above > CHANGES_ABOVE_MAX:
                raise ValueError("no session above it can have changed so often")
            self.restrictions_above = follow_above(self.restrictions_above, body)
        else:
            version = integer(body["policy_version"])
            if version != self.policy_version + 1 or version > POLICY_VERSION_MAX:
                raise ValueError(f"version {version} of the policy follows {self.policy_version}")
            self.policy_version = version
            if not isinstance(body["restrictions"], list):
                raise TypeError("restrictions are a list")
            self.restrictions = tuple(body["restrictions"])
        self._policy = self._in_force()
        self.usage.enforce(self._visible(self._policy))

    def _lowered(self, kind: str, body: Mapping[str, Any]) -> None:
        if self.state not in LOWERED_STATES or body["state"] != self.state:
            raise ValueError(f"the session was {self.state}")
        self.lowered = follow_lowering(self.lowered, kind, body)
        self._policy = self._in_force()
        self.usage.limit(self._policy.limits)

    def _in_force(self) -> Policy:
        lowered = (each.limits for each in self.lowered)
        return self._grant.policy(self.restrictions, lowered, self.restrictions_above.values())

    def _decided(self, record: Record, body: Mapping[str, Any]) -> None:
        payment = f"pay_{record.stream.removeprefix('sess_')}_{record.seq}"
        if body["payment"] != payment:
            raise ValueError(f"it decides {payment}, not {shown(body['payment'])}")
        if body["grant_hash"] != self._grant_hash:
            raise ValueError("it was decided under another grant")
        asked = read_asked(record)
        standing = asked.standing
        if standing is not STANDING_OF_STATE[self.state] and standing is not Standing.MISMATCH:
            raise ValueError(f"the session was {self.state}, not {standing.value}")
        if asked.approved:
            self._approvals.check_waived(record, self.policy_version)
        if self._blind:
            self.taken_as_told += check_blindly(self._policy, self.usage, asked)
        else:
            self._check_decision(asked)
        if body["approval"] is not None:
            self._approvals.decided(record, self.policy_version)
        self.decisions += 1
        if not asked.recorded["allowed"]:
            if body["hold_expires_ms"] is not None:
                raise ValueError("a denied payment holds nothing")
            return
        expires_ms = integer(body["hold_expires_ms"])
        if not 0 < expires_ms - record.time_ms <= HOLD_TTL_MAX_MS:
            raise ValueError("the life of its hold is not one that a hold can have")
        self.usage.hold(payment, record.time_ms, asked.request)
        self._expires_ms[payment] = expires_ms
        self.signatures.decided(record)
        self.allowed_ms.append(record.time_ms)
        self.allowed_chain_ms.append(asked.chain_time_ms)
        self.allowed_tokens.add(asked.request.token)
        self.allowed_unregistered |= self.registration is None

    def _check_decision(self, asked: Asked) -> None:
        recorded, decision = asked.recorded, decide_again(self.usage, asked)
        # As bytes, because to Python 1 equals True.
        if canonical.encode_own(decision) != canonical.encode_own(recorded):
            raise ValueError(
                f"the policy decides {decision.code} ({decision.rule}): "
                + difference("decision", decision.to_json(), recorded)
            )

    def _visible(self, policy: Policy) -> Policy:
        """What of a policy can be replayed."""
        return without_merchants(policy) if self._blind else policy

    def _signed(self, record: Record, body: Mapping[str, Any]) -> None:
        expires_ms = self._expires_ms.get(body["payment"])
        if expires_ms is None or record.time_ms >= expires_ms:
            raise ValueError("it signs what is not held, or is signed already")
        self.signatures.signed(record)
        self._expires_ms[body["payment"]] = None

    def _ended(self, record: Record, body: Mapping[str, Any]) -> None:
        payment, kind, now_ms = body["payment"], record.kind, record.time_ms
        if payment not in self._expires_ms:
            raise ValueError("it ends a hold that is not open")
        expires_ms = self._expires_ms.pop(payment)
        amount = self.usage.held(payment)
        held, captured = integer(body["held_micro_usd"]), integer(body["captured_micro_usd"])
        # To spend nothing is to void.
        least, most = (1, amount) if kind == "payment.captured" else (0, 0)
        if held != amount or not least <= captured <= most:
            raise ValueError("its amounts are not those of the hold")
        if expires_ms is not None and (now_ms >= expires_ms) != (kind == "payment.expired"):
            raise ValueError("the hold was over, or was not over yet")
        self.signatures.ended(record)
        self.usage.end(payment, now_ms, captured)
        self.captured_micro_usd += captured


_WRONG = (KeyError, TypeError, ValueError, AssertionError, AttributeError)


def _named(record: Record, error: Exception) -> ReplayError:
    """Whatever is wrong is wrong with this record."""
    return ReplayError(f"record {record.seq} ({record.kind}): {wrong(error)}")
