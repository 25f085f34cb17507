"""Approvals by the records: asked for, granted by as many operators as it takes, or ended.

It shares no code with the engine. What a granted payment is decided to is the auditor's own affair.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.simulation.books import APPROVAL_TTL_MS, WAITING_MAX, Account, Books, Question
from tests.simulation.log import Record, require


@dataclass(slots=True)
class Approval:
    """One approval. `payment` is the number of the decision that its last grant led to."""

    id: str
    number: int
    asked: Question
    digest: str
    expires_ms: int
    keys: list[str] = field(default_factory=list)
    state: str = "waiting"
    denied_by: str | None = None
    payment: int | None = None
    code: str | None = None


class Approvals:
    """What waits in all sessions."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def named(self, account: Account, digest: str, number: int) -> str | None:
        """The approval that a denied payment has to name: one that waits, or a new one."""
        if (waiting := account.waiting.get(digest)) is not None:
            return str(waiting.id)
        return _id(account, number) if len(account.waiting) < WAITING_MAX else None

    def denied(self, account: Account, decided: Record, asked: Question, digest: str) -> None:
        """A payment needs an approval; the first of its kind opens one."""
        approval = decided.body["approval"]
        if approval is None or digest in account.waiting:
            return
        expires_ms = decided.time_ms + APPROVAL_TTL_MS
        opened = Approval(approval, decided.seq, asked, digest, expires_ms)
        bound = {"policy_version": 1, "expires_ms": expires_ms}
        self.record(account, opened, "requested", bound)
        account.waiting[digest] = account.approvals[approval] = opened

    def end_due(self, account: Account) -> None:
        """Whoever asks a session anything finds its approvals ended that are over."""
        for approval in list(account.waiting.values()):
            if approval.expires_ms <= self._books.time_ms:
                self._expire(account, approval)
        early = self._books.comes("approval.expired", account.session)
        require(not early, "approvals", f"an approval of {account.session} expired too early")

    def expired(self, account: Account) -> None:
        """One of a session expires that nobody asked about."""
        over = [a for a in account.waiting.values() if a.expires_ms <= self._books.time_ms]
        require(bool(over), "approvals", f"one of {account.session} expired too early")
        self._expire(account, over[0])

    def granted(self, account: Account, approval: Approval, key: str) -> bool:
        """There is one more grant; says whether those that count are enough."""
        self.record(account, approval, "granted", {"key": key})
        approval.keys.append(key)
        count = len(self._books.keys.intersection(approval.keys))
        self._books.figures["grants of operators"] += 1
        return count >= account.required

    def end(self, account: Account, approval: Approval, state: str) -> None:
        """It does not wait any more."""
        approval.state = state
        del account.waiting[approval.digest]
        self._books.figures[f"approvals {state}"] += 1

    def record(self, account: Account, approval: Approval, what: str, told: dict[str, Any]) -> None:
        """Explain the record of a change, which somebody has to be told of."""
        comes = self._books.comes(f"approval.{what}", account.session)
        require(comes, "approvals", f"{approval.id}: no record that it is {what}")
        record = self._books.take(f"approval.{what}", account.session)
        body = {"approval": approval.id, "digest": approval.digest, **told}
        require(record.body == body, "approvals", f"{record.body} is not {body}")
        self._books.tell(record, record.kind)

    def _expire(self, account: Account, approval: Approval) -> None:
        self.record(account, approval, "expired", {})
        self.end(account, approval, "expired")


def _id(account: Account, number: int) -> str:
    return f"apr_{account.session.removeprefix('sess_')}_{number}"
