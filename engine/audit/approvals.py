"""Approvals as one session's records tell them: asked for, granted, and used once or ended.

A payment above what a session may pay alone is denied, and waits until operators grant it. One that
was paid must have been asked for by exactly this request, under the policy that is still in force,
and granted in time by as many different keys as the session requires, the last of them in the
record right before the payment.

That a key is an operator's, and was not revoked, is the operator's word.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.audit import canonical
from engine.audit.record import Record, integer
from engine.audit.report import counted, shown

REQUIRED_MAX = 10
"""The most grants that a session can require."""
TTL_MAX_MS = 7 * 86_400_000
"""The longest life of an approval."""
_DECIDED = "payment.decided"
REQUIRED_CODE = "APPROVAL_REQUIRED"
POLICY_CHANGED = "POLICY_CHANGED"
"""Why an approval is refused whose session was restricted, or freed, while it waited."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: bytes
    digest: str | None
    """None where it is withheld, with the merchant; it is then known by its id alone."""
    policy_version: int
    expires_ms: int
    keys: set[str] = field(default_factory=set)


class Approvals:
    """What waits in one session. Every method raises `ValueError` for what cannot have happened."""

    def __init__(self) -> None:
        self._required = 0
        self._waiting: dict[str, _Waiting] = {}
        self._previous: Record | None = None

    def created(self, body: Mapping[str, Any]) -> None:
        """The session's first record says how many grants it requires."""
        required = integer(body["approvals_required"])
        if not 0 < required <= REQUIRED_MAX:
            raise ValueError(f"it cannot require {required} approvals")
        self._required = required

    def check_follows(self, record: Record) -> None:
        """What a decision calls for is recorded right behind it."""
        previous = self._previous
        if previous is None or previous.kind != _DECIDED:
            return
        wanted = _called_for(previous)
        if wanted is not None:
            approval = previous.body["approval"]
            if (record.kind, record.body.get("approval")) != (wanted, approval):
                raise ValueError(f"{wanted} of {approval} must follow, with record {previous.seq}")

    def passed(self, record: Record) -> None:
        """The record was accepted."""
        self._previous = record

    def check_waived(self, record: Record, policy_version: int) -> None:
        """A decision names an approval that was granted, by which its amount may be above the
        threshold: it is of one that was granted for it."""
        approval = record.body["approval"]
        waiting = self._same(record.body)
        _check_live(waiting, record, policy_version)
        previous = self._previous
        if (
            previous is None
            or previous.kind != "approval.granted"
            or previous.body["approval"] != approval
            or previous.time_ms != record.time_ms
        ):
            raise ValueError(f"{approval} was not granted right before it")
        if len(waiting.keys) < self._required:
            raise ValueError(
                f"{approval} was granted by {len(waiting.keys)} of {counted(self._required, 'key')}"
            )

    def decided(self, record: Record, policy_version: int) -> None:
        """A decision that names an approval came out as it is recorded; if that let it pass, it is
        used up."""
        approval, decision = record.body["approval"], record.body["decision"]
        digest = record.body.get("request_digest")
        if decision["code"] != REQUIRED_CODE:
            if decision["allowed"]:
                del self._waiting[approval]
        elif approval != _opened_by(record):
            _check_live(self._same(record.body), record, policy_version)
        elif any(each.digest == digest for each in self._waiting.values() if digest is not None):
            raise ValueError("an approval of the same request waits already")

    def follow(self, record: Record, policy_version: int) -> None:
        """Apply one record about an approval."""
        approval, body = record.body["approval"], record.body
        if record.kind == "approval.requested":
            self._waiting[approval] = self._requested(record, policy_version)
            return
        waiting = self._find(approval)
        if body.get("digest") != waiting.digest:
            raise ValueError(f"{approval} waits for another request")
        if record.kind == "approval.expired":
            if record.time_ms < waiting.expires_ms:
                raise ValueError(f"{approval} was not over yet")
        elif record.kind == "approval.refused":
            self._check_refused(record, waiting, policy_version)
        else:
            _check_key(body["key"])
            if record.kind == "approval.granted":
                _check_live(waiting, record, policy_version)
                if body["key"] in waiting.keys:
                    raise ValueError(f"{body['key']} has granted {approval} before")
                waiting.keys.add(body["key"])
                return
            if record.kind != "approval.denied":
                raise ValueError("no such kind of record")
            _check_in_time(waiting, record)
        del self._waiting[approval]

    def _requested(self, record: Record, policy_version: int) -> _Waiting:
        body, previous = record.body, self._previous
        if previous is None or _called_for(previous) != record.kind:
            raise ValueError("no denial asks for it")
        denial = previous.body
        ttl_ms = integer(body["expires_ms"]) - record.time_ms
        if not 0 < ttl_ms <= TTL_MAX_MS or previous.time_ms != record.time_ms:
            raise ValueError("its life is not one that an approval can have")
        if (body.get("digest"), integer(body["policy_version"])) != (
            denial.get("request_digest"),
            policy_version,
        ):
            raise ValueError("it is of another request or another policy than the denial")
        return _Waiting(
            canonical.encode(denial["request"]),
            body.get("digest"),
            policy_version,
            body["expires_ms"],
        )

    def _check_refused(self, record: Record, waiting: _Waiting, policy_version: int) -> None:
        body, previous = record.body, self._previous
        if previous is not None and _called_for(previous) == record.kind:
            decided = previous.body["payment"], previous.body["decision"]["code"]
            if (body["payment"], body["code"]) != decided:
                raise ValueError("it is refused for something else than was decided")
            return
        _check_in_time(waiting, record)
        if (body["payment"], body["code"]) != (None, POLICY_CHANGED):
            raise ValueError("no decision refuses it")
        if waiting.policy_version == policy_version:
            raise ValueError("the policy has not changed while it waited")

    def _find(self, approval: Any) -> _Waiting:
        waiting = self._waiting.get(approval)
        if waiting is None:
            named = approval if isinstance(approval, str) else shown(approval)
            raise ValueError(f"{named} does not wait")
        return waiting

    def _same(self, body: Mapping[str, Any]) -> _Waiting:
        """The approval that a decision names, which waits for the same request."""
        waiting = self._find(body["approval"])
        asked = body.get("request_digest"), canonical.encode(body["request"])
        if asked != (waiting.digest, waiting.request):
            raise ValueError(f"{body['approval']} waits for another request")
        return waiting


def names_granted(decided: Mapping[str, Any]) -> bool:
    """Whether the body of a decision names an approval that was granted, not one that waits."""
    return decided["approval"] is not None and decided["decision"]["code"] != REQUIRED_CODE


def _opened_by(decided: Record) -> str:
    """The approval that is called for by a denial for which none waits yet."""
    return "apr_" + str(decided.body["payment"]).removeprefix("pay_")


def _called_for(record: Record) -> str | None:
    """The kind of record that must follow a decision, if it calls for one."""
    if record.kind != _DECIDED or record.body["approval"] is None:
        return None
    decision = record.body["decision"]
    if decision["code"] == REQUIRED_CODE:
        return "approval.requested" if record.body["approval"] == _opened_by(record) else None
    return None if decision["allowed"] else "approval.refused"


def _check_live(waiting: _Waiting, record: Record, policy_version: int) -> None:
    _check_in_time(waiting, record)
    if waiting.policy_version != policy_version:
        raise ValueError("the policy has changed since it was asked for")


def _check_in_time(waiting: _Waiting, record: Record) -> None:
    if record.time_ms >= waiting.expires_ms:
        raise ValueError(f"{record.body['approval']} was over")


def _check_key(key: Any) -> None:
    if not isinstance(key, str) or not key:
        raise ValueError("it does not name a key")
