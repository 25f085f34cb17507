"""Replay: budgets are rebuilt from the records alone, and every decision must come out the same.

Nothing is believed of a decision but its request and its time. The standing of the session follows
from the records of its life, the windows from the holds and captures before it. What is wrong is
refused by an explicit test, never by an `assert`: an auditor may run Python with `-O`.

The budgets of an agent or a workspace are not in the records of one session. Of a denial by one of
them it follows that every other rule before it allowed the payment; what the budget held is the
operator's word.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from engine.audit import canonical
from engine.audit.record import Record
from engine.grant import Grant
from engine.policy.budgets import BUDGET_LIMITS, budget_rule
from engine.policy.conditions import Cap, parse_condition
from engine.policy.decide import decide, remaining
from engine.policy.decision import STANDING_OF_STATE, Decision, PaymentRequest, Standing
from engine.policy.facts import Finding
from engine.policy.limit_checks import over_finding
from engine.policy.money import AMOUNT_MAX_MICRO_USD
from engine.policy.rules import BUDGET_RULES
from engine.policy.spending import Spending
from engine.policy.windows import Entry

HOLD_TTL_MAX_MS = 7 * 86_400_000
"""The longest life of a hold; a longer one could keep the end of a payment out of the records."""

LIVE_STATES = ("awaiting_consent", "registering", "active", "paused")
"""The states of a session that is not over."""
POLICY_VERSION_MAX = 1_000
"""Each change of the restrictions counts all payments again, so there is an end to them."""

_STATES_AFTER = {
    "session.created": ("awaiting_consent", "registering", "active"),
    "session.consented": ("registering", "active"),
    "session.registered": ("active",),
    "session.unregistered": ("registering",),
    "session.mismatched": ("mismatch",),
    "session.revoked": ("revoked",),
    "session.expired": ("expired",),
}
"""The states in which each record of a session's life can leave it."""


class ReplayError(ValueError):
    """A record cannot have been made by the policy; the message says which and why."""


class Replay:
    """One session's budget as its records tell it; feed the records in order."""

    def __init__(self, grant: Grant, grant_hash: bytes) -> None:
        self._grant = grant
        self._grant_hash = grant_hash.hex()
        self._policy = grant.policy()
        self.policy_version = 1
        self._spending = Spending(self._policy)
        self._holds: dict[str, tuple[Entry, int]] = {}
        self._counted: dict[str, tuple[int, PaymentRequest]] = {}
        """What counts of each payment, and when it was decided; in that order."""
        self.state = ""
        self.registration: Mapping[str, Any] | None = None
        """The body of the last record of a registration on the chain."""
        self.decisions = 0
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
        """When the first of the holds that are still open is over; None if there is none."""
        return min((expires_ms for _, expires_ms in self._holds.values()), default=None)

    def feed(self, records: Iterable[Record]) -> None:
        """Apply records.

        Raises:
            ReplayError: naming the first record that does not follow from those before it.
        """
        for record in records:
            try:
                self._apply(record)
            except (KeyError, TypeError, ValueError, AssertionError, AttributeError) as error:
                raise ReplayError(f"record {record.seq} ({record.kind}): {error}") from error

    def _apply(self, record: Record) -> None:
        if record.kind in _STATES_AFTER:
            self._lived(record, record.body)
        elif record.kind == "session.restricted":
            self._restricted(record.body)
        elif record.kind == "payment.decided":
            self._decided(record, record.body)
        elif record.kind in ("payment.captured", "payment.voided", "payment.expired"):
            self._ended(record, record.body)
        else:
            raise ValueError("no such kind of record")

    def _lived(self, record: Record, body: Mapping[str, Any]) -> None:
        if (self.state == "") != (record.kind == "session.created"):
            raise ValueError("the session's life does not begin with its creation, or begins twice")
        if self.state == "revoked":
            raise ValueError("a revoked session cannot change any more")
        if body["state"] not in _STATES_AFTER[record.kind]:
            raise ValueError(f"it cannot make the session {body['state']}")
        self.state = body["state"]
        if record.kind == "session.registered":
            self.registration = body
            self.allowed_before_registration = len(self.allowed_ms)

    def _restricted(self, body: Mapping[str, Any]) -> None:
        if self.state not in LIVE_STATES or body["state"] != self.state:
            raise ValueError(f"the session was {self.state}")
        version = _integer(body["policy_version"])
        if version != self.policy_version + 1 or version > POLICY_VERSION_MAX:
            raise ValueError(f"version {version} of the policy follows {self.policy_version}")
        self.policy_version = version
        if not isinstance(body["restrictions"], list):
            raise TypeError("restrictions are a list")
        self._policy = self._grant.policy(body["restrictions"])
        # A new cap counts what was paid before it, too.
        self._spending = Spending(self._policy)
        for payment, (decided_ms, request) in self._counted.items():
            entry = self._spending.add(decided_ms, request)
            if payment in self._holds:
                self._holds[payment] = entry, self._holds[payment][1]

    def _decided(self, record: Record, body: Mapping[str, Any]) -> None:
        payment = f"pay_{record.stream.removeprefix('sess_')}_{self.decisions}"
        if body["payment"] != payment:
            raise ValueError(f"the next payment is {payment}, not {body['payment']}")
        if body["grant_hash"] != self._grant_hash:
            raise ValueError("it was decided under another grant")
        standing = Standing(body["standing"])
        if standing not in (STANDING_OF_STATE[self.state], Standing.MISMATCH):
            raise ValueError(f"the session was {self.state}, not {standing.value}")
        request = _request(body["request"])
        chain_time_ms = _integer(body["chain_time_ms"])
        recorded = body["decision"]
        decision = self._decide_again(standing, request, record.time_ms, chain_time_ms, recorded)
        # As bytes, because to Python 1 equals True.
        if canonical.encode(decision.to_json()) != canonical.encode(recorded):
            raise ValueError(
                f"the policy decides {decision.code} ({decision.rule}), "
                f"the record says {recorded.get('code')}, or differs in its facts"
            )
        self.decisions += 1
        if not decision.allowed:
            if body["hold_expires_ms"] is not None:
                raise ValueError("a denied payment holds nothing")
            return
        expires_ms = _integer(body["hold_expires_ms"])
        if not 0 < expires_ms - record.time_ms <= HOLD_TTL_MAX_MS:
            raise ValueError("the life of its hold is not one that a hold can have")
        self._holds[payment] = (self._spending.add(record.time_ms, request), expires_ms)
        self._counted[payment] = record.time_ms, request
        self.allowed_ms.append(record.time_ms)
        self.allowed_chain_ms.append(chain_time_ms)
        self.allowed_tokens.add(request.token)
        self.allowed_unregistered |= self.registration is None

    def _decide_again(
        self,
        standing: Standing,
        request: PaymentRequest,
        now_ms: int,
        chain_time_ms: int,
        recorded: Mapping[str, Any],
    ) -> Decision:
        by_budget = recorded["rule"] in BUDGET_RULES
        decision = decide(
            self._policy,
            standing,
            self._spending,
            request,
            now_ms,
            chain_time_ms=chain_time_ms,
            # No record tells of an approval. Budgets come before it, so it cannot matter to them.
            approved=by_budget,
        )
        if not by_budget or not decision.allowed:
            return decision
        finding = _budget_finding(recorded["rule"], recorded["evidence"], request)
        left = remaining(self._policy, self._spending, now_ms, request)
        return Decision(False, "LIMIT_EXCEEDED", recorded["rule"], *finding, left)

    def _ended(self, record: Record, body: Mapping[str, Any]) -> None:
        if body["payment"] not in self._holds:
            raise ValueError("it ends a hold that is not open")
        entry, expires_ms = self._holds.pop(body["payment"])
        held, captured = _integer(body["held_micro_usd"]), _integer(body["captured_micro_usd"])
        most = entry.amount if record.kind == "payment.captured" else 0
        if held != entry.amount or not 0 <= captured <= most:
            raise ValueError("its amounts are not those of the hold")
        if (record.time_ms >= expires_ms) != (record.kind == "payment.expired"):
            raise ValueError("the hold was over, or was not over yet")
        self._spending.windows.advance(record.time_ms)
        self._spending.reduce(entry, captured)
        if captured:
            decided_ms, request = self._counted[body["payment"]]
            self._counted[body["payment"]] = decided_ms, replace(request, amount=captured)
        else:
            del self._counted[body["payment"]]
        self.captured_micro_usd += captured


def _budget_finding(rule: str, told: Mapping[str, Any], request: PaymentRequest) -> Finding:
    """What a budget that holds as much as the evidence tells has against a payment."""
    budget, used, limit = told["budget"], _integer(told["used"]), _integer(told["limit"])
    if budget_rule(budget) != rule:
        raise ValueError(f"{rule} is not about budget {budget}")
    cap = _named_cap(told["name"], limit)
    if cap.name not in (None, request.token if cap.of == "token" else request.merchant):
        raise ValueError(f"the payment is not under {cap}")
    requested = 1 if cap.of == "payments" else request.amount
    if not 0 <= limit < used + requested:
        raise ValueError(f"the payment fits into budget {budget}")
    retry_at_ms = told["retry_at_ms"]
    if retry_at_ms is not None:
        _integer(retry_at_ms)
    about = {"budget": budget, "name": told["name"]}
    return over_finding(cap, used, requested, retry_at_ms, about)


def _named_cap(name: str, limit: int) -> Cap:
    """The cap that the evidence names: by its limit, or by the sentence of a condition."""
    if name in BUDGET_LIMITS:
        of, per = BUDGET_LIMITS[name]
        return Cap(of, None, limit, per)
    cap = parse_condition(name)
    if not isinstance(cap, Cap) or cap.name is None or cap.at_most != limit:
        raise ValueError(f"{name} is not the limit of {limit}")
    return cap


def _request(asked: Mapping[str, Any]) -> PaymentRequest:
    amount = _integer(asked["amount_micro_usd"])
    if not 0 < amount <= AMOUNT_MAX_MICRO_USD:
        raise ValueError("the amount is not one that can be paid")
    if type(asked["token_priced"]) is not bool:
        raise ValueError("token_priced is not true or false")
    return PaymentRequest(
        amount=amount,
        merchant=asked["merchant"],
        token=asked["token"],
        chain=asked["chain"],
        permission=asked["permission"],
        token_priced=asked["token_priced"],
    )


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not an integer")
    return value
