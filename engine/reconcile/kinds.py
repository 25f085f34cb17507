"""Every kind of discrepancy: how bad it is, and what it means."""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.ledger.discrepancies import SETTLEMENT_CONTRADICTED, Severity


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of discrepancy. `means` is a sentence for people."""

    name: str
    severity: Severity
    means: str


_KINDS = (
    Kind(
        "session_missing_on_chain",
        "critical",
        "The session is active here, and the chain holds no registration of its key.",
    ),
    Kind(
        "session_unknown_here",
        "critical",
        "The chain holds a session whose records belong in this log, and no session here has its "
        "key.",
    ),
    Kind(
        "parameters_differ",
        "critical",
        "The parameters that are enforced, those of the ledger and those on the chain are not the "
        "same.",
    ),
    Kind(
        "revoked_on_chain_only",
        "critical",
        "The chain says that the session is over, and it was not over here.",
    ),
    Kind(
        "expired_on_chain_only",
        "critical",
        "By the chain's clock the registered validity has ended, and the session was not over "
        "here.",
    ),
    Kind(
        "lowered_on_chain_only",
        "critical",
        "The chain holds lower limits than those that are enforced.",
    ),
    Kind(
        "registered_on_chain_only",
        "warning",
        "The session is registered on the chain, and here it still waits for that or never asked.",
    ),
    Kind(
        "registration_overdue",
        "warning",
        "The session has waited long for its registration, and the chain does not hold it.",
    ),
    Kind(
        "revocation_overdue",
        "warning",
        "The session was revoked here long ago, and the chain does not hold the revocation.",
    ),
    Kind(
        "workspace_shared",
        "info",
        "Sessions of another log are registered under the name of a workspace of ours.",
    ),
    Kind(
        "anchor_differs",
        "critical",
        "The chain holds another root at this size than the log here has.",
    ),
    Kind(
        "anchor_missing",
        "critical",
        "The anchor was mined as far as the ledger knows, and the chain does not hold it.",
    ),
    Kind(
        "anchor_unknown_here",
        "warning",
        "The chain holds an anchor of this log that the ledger does not know.",
    ),
    Kind(
        "anchor_replaced",
        "warning",
        "The size is anchored with the right root, by a transaction that was not sent from here.",
    ),
    Kind(
        "anchor_reorged",
        "warning",
        "The anchor is in another block than the one that is written down here.",
    ),
    Kind(
        "anchor_stuck",
        "warning",
        "The anchor was sent long ago and is not mined.",
    ),
    Kind(
        "index_differs",
        "critical",
        "The index of the chain lacks an event, has one that the chain does not hold, or has it "
        "otherwise.",
    ),
    Kind(
        "index_behind",
        "warning",
        "The index of the chain is many blocks behind the chain.",
    ),
    Kind(
        "endpoints_disagree",
        "critical",
        "Two endpoints of the chain do not say the same of it, so nothing new of it is believed.",
    ),
    Kind(
        "session_damaged",
        "critical",
        "The session's rows in the database contradict its records.",
    ),
    Kind(
        "settlement_missing",
        "critical",
        "A payment is captured here, and the chain does not hold it where it was seen.",
    ),
    Kind(
        "settlement_not_captured",
        "critical",
        "The chain has settled a payment for good, and it is not captured here.",
    ),
    Kind(
        "settlement_overdue",
        "warning",
        "The signature of a payment ended long ago, and what became of it is not known.",
    ),
    Kind(
        SETTLEMENT_CONTRADICTED,
        "critical",
        "The chain shows of a signed payment what was not signed, or contradicts itself about it.",
    ),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}
"""By name. `session_damaged` is found by the ledger when it decides, `endpoints_disagree` when the
chain is read, `settlement_contradicted` when it is read for payments, the others on settlements in
`settlements.py`, all else by `compare`.
"""
