"""Holds the ledger against the chain: every discrepancy between the two, and nothing else.

Pure. Both sides are as of one block, the last that the index holds, so that what happened since is
not mistaken for a difference. What is on its way is none, until it has been so for long.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.ledger.discrepancies import Severity
from engine.policy.limits import lowest
from engine.reconcile.kinds import KINDS
from engine.reconcile.sides import (
    Anchoring,
    ChainSide,
    Ending,
    LedgerAnchor,
    LedgerSession,
    LedgerSide,
    Lowering,
    Registration,
)

ENDED_STATES = ("revoked", "expired")
OVERDUE_MS = 600_000
"""What was sent is expected to be mined within ten minutes."""
INDEX_LAG_MAX = 64
"""So many blocks the index may be behind while it catches up."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A discrepancy. `evidence` is what each side says, in the JSON of the log."""

    kind: str
    subject: str
    evidence: dict[str, Any]
    session: LedgerSession | None = None
    workspace_id: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """By which it is the same one when it is seen again."""
        return (self.kind, self.subject)

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return KINDS[self.kind].severity


def compare(
    ledger: LedgerSide,
    chain: ChainSide,
    *,
    confirmations: int,
    overdue_ms: int = OVERDUE_MS,
) -> list[Finding]:
    """Every discrepancy, each once: sessions, then what the chain has beside them, anchors, index.

    `confirmations` is how many blocks a registration needs before it counts here.
    """
    late_ms = ledger.now_ms - overdue_ms
    return [
        *(
            finding
            for session in ledger.sessions
            for finding in _of_session(session, chain, confirmations, late_ms)
        ),
        *_unknown_sessions(ledger, chain),
        *_of_anchors(ledger, chain, late_ms),
        *_of_index(ledger, chain),
    ]


def _of_session(
    session: LedgerSession, chain: ChainSide, confirmations: int, late_ms: int
) -> Iterator[Finding]:
    registration = chain.registrations.get(session.token_id)
    if registration is None:
        yield from _not_registered(session, chain, late_ms)
        return
    live = session.state not in ENDED_STATES
    if not session.grant_hash == registration.grant_hash == session.parameters_hash:
        yield _finding(
            "parameters_differ",
            session,
            {
                "enforced": _hex(session.parameters_hash),
                "ledger": _hex(session.grant_hash),
                "chain": _hex(registration.grant_hash),
            },
            registration,
        )
    ending = _ending(session, registration, chain)
    over = registration.valid_until_s <= chain.block.timestamp_s
    if live and ending is not None:
        yield _finding(
            "revoked_on_chain_only",
            session,
            {"event": ending.event, "account": ending.account},
            ending,
        )
    elif live and over and session.state != "mismatch":
        yield _finding(
            "expired_on_chain_only",
            session,
            {"valid_until_s": registration.valid_until_s, "chain_time_s": chain.block.timestamp_s},
            registration,
        )
    elif live:
        yield from _in_force(session, registration, chain, confirmations)
    elif session.state == "revoked" and ending is None and not over:
        yield from _overdue("revocation_overdue", session, late_ms)


def _not_registered(session: LedgerSession, chain: ChainSide, late_ms: int) -> Iterator[Finding]:
    if not session.on_chain or not chain.whole:
        return
    if session.state in ("active", "paused"):
        yield _finding("session_missing_on_chain", session, {"read_to": chain.block.number})
    elif session.state not in ENDED_STATES:
        yield from _overdue("registration_overdue", session, late_ms)


def _in_force(
    session: LedgerSession, registration: Registration, chain: ChainSide, confirmations: int
) -> Iterator[Finding]:
    """What a session that is over on neither side still has to agree on."""
    lowering = chain.lowerings.get(session.token_id)
    if (
        lowering is not None
        and lowering.grant_hash == session.grant_hash
        and (session.limits is None or lowest(session.limits, lowering.limits) != session.limits)
    ):
        yield _finding(
            "lowered_on_chain_only",
            session,
            {
                "enforced": None if session.limits is None else session.limits.to_json(),
                "chain": lowering.to_json(),
            },
            lowering,
        )
    confirmed = registration.place.block_number + confirmations <= chain.block.number
    agreed = session.grant_hash == registration.grant_hash
    unasked = not session.on_chain or session.state == "awaiting_consent"
    if unasked or (session.state == "registering" and confirmed and agreed):
        yield _finding("registered_on_chain_only", session, {}, registration)


def _ending(session: LedgerSession, registration: Registration, chain: ChainSide) -> Ending | None:
    """How the chain ended a session: its own revocation, or the end of its workspace's epoch."""
    revocation = chain.revocations.get(session.token_id)
    if revocation is not None:
        return revocation
    for closing in chain.closings.get(registration.workspace, ()):
        if closing.place.order > registration.place.order:
            return closing
    return None


def _overdue(kind: str, session: LedgerSession, late_ms: int) -> Iterator[Finding]:
    since_ms = session.waiting_since_ms
    if since_ms is not None and since_ms < late_ms:
        yield _finding(
            kind, session, {"waiting_since_ms": since_ms, "tx_hash": _hex(session.tx_hash)}
        )


def _unknown_sessions(ledger: LedgerSide, chain: ChainSide) -> Iterator[Finding]:
    known = {session.token_id for session in ledger.sessions}
    strangers: dict[str, list[Registration]] = {}
    for registration in chain.registrations.values():
        if registration.audit_log == ledger.log_id and registration.token_id not in known:
            workspace_id = ledger.workspaces.get(registration.workspace)
            yield Finding(
                "session_unknown_here",
                f"token {_hex(registration.token_id)}",
                {
                    "grant_hash": _hex(registration.grant_hash),
                    "workspace": _hex(registration.workspace),
                    "place": registration.place.to_json(),
                },
                workspace_id=workspace_id,
            )
        elif (
            registration.audit_log != ledger.log_id and registration.workspace in ledger.workspaces
        ):
            name = ledger.workspaces[registration.workspace]
            strangers.setdefault(name, []).append(registration)
    for workspace_id, found in strangers.items():
        newest = max(found, key=lambda registration: registration.place.order)
        yield Finding(
            "workspace_shared",
            f"workspace {workspace_id}",
            {
                "sessions": len(found),
                "audit_log": _hex(newest.audit_log),
                "place": newest.place.to_json(),
            },
            workspace_id=workspace_id,
        )


def _of_anchors(ledger: LedgerSide, chain: ChainSide, late_ms: int) -> Iterator[Finding]:
    ours = {anchor.size: anchor for anchor in ledger.anchors if _countable(anchor.size)}
    for size in sorted(ours.keys() | chain.anchors.keys()):
        found = _of_anchor(ledger, chain, late_ms, size, ours.get(size), chain.anchors.get(size))
        if found is not None:
            kind, evidence = found
            yield Finding(kind, f"anchor {size}", evidence)


def _of_anchor(
    ledger: LedgerSide,
    chain: ChainSide,
    late_ms: int,
    size: int,
    ours: LedgerAnchor | None,
    theirs: Anchoring | None,
) -> tuple[str, dict[str, Any]] | None:
    """What is wrong with the anchor of one size, the worst of it, and each side's word."""
    root = ledger.root(size) if size <= ledger.log_size else None
    evidence = {
        "log": {"size": ledger.log_size, "root": _hex(root)},
        "ledger": None if ours is None else _told(ours),
        "chain": None if theirs is None else {"root": _hex(theirs.root), **theirs.place.to_json()},
    }
    here = None if ours is None or ours.state == "sent" else (ours.block_number, ours.block_hash)
    if any(known is not None and known.root != root for known in (ours, theirs)):
        return "anchor_differs", evidence
    if theirs is not None:
        there = (theirs.place.block_number, theirs.place.block_hash)
        if ours is None:
            return "anchor_unknown_here", evidence
        if theirs.place.tx_hash not in ours.tx_hashes:
            return "anchor_replaced", evidence
        if here is not None and here != there:
            return "anchor_reorged", evidence
    elif ours is not None and here is not None and _read(chain, ours):
        return "anchor_missing", evidence
    if ours is not None and here is None and ours.sent_ms < late_ms:
        return "anchor_stuck", evidence
    return None


def _read(chain: ChainSide, ours: LedgerAnchor) -> bool:
    """Whether the block that a mined anchor is said to be in was read."""
    number = ours.block_number
    return number is None or chain.from_block <= number <= chain.block.number


def _of_index(ledger: LedgerSide, chain: ChainSide) -> Iterator[Finding]:
    known = {place for place in ledger.events if _countable(*place)}
    for place in sorted(known | chain.events.keys()):
        here, there = ledger.events.get(place), chain.events.get(place)
        if here != there:
            number, log_index = place
            yield Finding(
                "index_differs",
                f"event {number}/{log_index}",
                {
                    side: None
                    if event is None
                    else {
                        "name": event.name,
                        "tx_hash": _hex(event.tx_hash),
                        "block_hash": _hex(event.block_hash),
                    }
                    for side, event in (("index", here), ("chain", there))
                },
            )
    if chain.head_number - chain.block.number > INDEX_LAG_MAX:
        yield Finding(
            "index_behind",
            "index",
            {"indexed": chain.block.number, "head": chain.head_number},
        )


def _finding(
    kind: str,
    session: LedgerSession,
    evidence: dict[str, Any],
    source: Registration | Ending | Lowering | None = None,
) -> Finding:
    told = {
        "token_id": _hex(session.token_id),
        "state": session.state,
        **evidence,
        "place": None if source is None else source.place.to_json(),
    }
    return Finding(kind, session.id, told, session, session.workspace_id)


def _told(anchor: LedgerAnchor) -> dict[str, Any]:
    return {
        "root": _hex(anchor.root),
        "state": anchor.state,
        "tx_hashes": [_hex(tx_hash) for tx_hash in anchor.tx_hashes],
        "block_number": anchor.block_number,
        "block_hash": _hex(anchor.block_hash),
        "sent_ms": anchor.sent_ms,
    }


def _hex(value: object) -> str | None:
    """A row may hold what are no bytes: that is shown as it is."""
    if value is None:
        return None
    return "0x" + value.hex() if isinstance(value, bytes) else f"unreadable: {value!a}"


def _countable(*values: object) -> bool:
    """Whether what a row says of a size or a place are numbers; otherwise it says nothing, and what
    the chain has there is missing here."""
    return all(isinstance(value, int) for value in values)
