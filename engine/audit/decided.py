"""What the record of a decision tells, as a form that is quick to write and to withhold from.

A mapping with the same members is written as the same bytes; `engine.audit.disclosure.GROUPS` says
what of it can be withheld. These are the records that are written most.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from engine.policy.decision import Decision

_OF_MERCHANT = ("resource", "body_sha256")
"""What in a request's terms is withheld with its merchant."""


class _Remaining(Struct):
    lifetime: int | UnsetType | None = UNSET
    merchant: int | UnsetType | None = UNSET
    payments: int | UnsetType | None = UNSET
    per_day: int | UnsetType | None = UNSET
    per_month: int | UnsetType | None = UNSET
    per_week: int | UnsetType | None = UNSET
    token: int | UnsetType | None = UNSET


class _Decision(Struct):
    allowed: bool | UnsetType = UNSET
    code: str | UnsetType = UNSET
    evidence: Mapping[str, Any] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    remaining: _Remaining | UnsetType = UNSET
    rule: str | UnsetType = UNSET


class _Request(Struct):
    amount_micro_usd: int | UnsetType = UNSET
    chain: str | UnsetType = UNSET
    merchant: str | UnsetType | None = UNSET
    permission: str | UnsetType = UNSET
    terms: Mapping[str, Any] | UnsetType = UNSET
    token: str | UnsetType = UNSET
    token_priced: bool | UnsetType = UNSET


class Part(Struct):
    """A part of the body of the record of a decision. What is not set is not in it."""

    approval: str | UnsetType | None = UNSET
    chain_time_ms: int | UnsetType = UNSET
    decision: Decision | _Decision | UnsetType = UNSET
    grant_hash: str | UnsetType = UNSET
    hold_expires_ms: int | UnsetType | None = UNSET
    idempotency_key: str | UnsetType | None = UNSET
    payment: str | UnsetType = UNSET
    request: Mapping[str, Any] | _Request | UnsetType = UNSET
    request_digest: str | UnsetType = UNSET
    standing: str | UnsetType = UNSET


class Decided(Struct):
    """The body of the record of a decision."""

    approval: str | None
    chain_time_ms: int
    decision: Decision
    grant_hash: str
    hold_expires_ms: int | None
    idempotency_key: str | None
    payment: str
    request: Mapping[str, Any]
    request_digest: str
    standing: str

    def split(self) -> tuple[Part, Part]:
        """The body without what tells of the merchant, and that: the one group that it has."""
        decision, request = self.decision, self.request
        left = decision.remaining
        terms: Mapping[str, Any] | UnsetType = request.get("terms", UNSET)
        withheld: Mapping[str, Any] | UnsetType = UNSET
        if not isinstance(terms, UnsetType):
            withheld = {name: terms[name] for name in _OF_MERCHANT}
            terms = {name: terms[name] for name in terms if name not in withheld}
        kept = Part(
            self.approval,
            self.chain_time_ms,
            _Decision(
                decision.allowed,
                decision.code,
                UNSET,
                UNSET,
                _Remaining(
                    left.lifetime,
                    UNSET,
                    left.payments,
                    left.per_day,
                    left.per_month,
                    left.per_week,
                    left.token,
                ),
                decision.rule,
            ),
            self.grant_hash,
            self.hold_expires_ms,
            UNSET,
            self.payment,
            _Request(
                request["amount_micro_usd"],
                request["chain"],
                UNSET,
                request["permission"],
                terms,
                request["token"],
                request["token_priced"],
            ),
            UNSET,
            self.standing,
        )
        taken = Part(
            decision=_Decision(
                evidence=decision.evidence,
                reason=decision.reason,
                remaining=_Remaining(merchant=left.merchant),
            ),
            idempotency_key=self.idempotency_key,
            request=_Request(merchant=request["merchant"], terms=withheld),
            request_digest=self.request_digest,
        )
        return kept, taken
