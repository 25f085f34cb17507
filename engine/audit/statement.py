"""What an examined file says of one session, as plain facts: the JSON of `tallystick verify`.

Only what was verified is retold. What a failed check would have had to vouch for is null, so that a
forged file cannot put its story under the name of this command. Times are milliseconds, amounts
micro-USD, hashes and keys lower-case hexadecimal with 0x; a limit that is null is not there.
"""

from collections.abc import Mapping
from typing import Any

from engine.audit.chain import Revocation
from engine.audit.evidence import NOT_PROVEN, Evidence
from engine.audit.examination import Examination, Found, records_of
from engine.audit.replay import ENDS
from engine.audit.report import Verdict, summary
from engine.audit.spends import Spends
from engine.policy.limits import Limits
from engine.policy.windows import Entry, RollingWindows

WINDOWS = ("per_day", "per_week", "per_month")
_LIMITS = ("per_transaction", *WINDOWS, "approval_above")
_GRANTED = ("format", "seal", "chain", "registration", "consent", "log")
_RECORDED = (*_GRANTED, "anchor", "inclusion", "sequence", "replay", "life")
_VOUCHES = (Verdict.VERIFIED, Verdict.PENDING)


def statement(found: Examination) -> dict[str, Any]:
    """The verdict, its checks, and the facts that they vouch for, as JSON."""
    good = {check.name for check in found.report.checks if check.verdict in _VOUCHES}
    evidence = found.evidence
    said: dict[str, Any] = {
        **summary(found.report),
        "session": None,
        "chain": None,
        "networks": None,
        "incidents": None,
        "settlements": None,
        "history": None,
        "not_proven": list(NOT_PROVEN),
    }
    if evidence is not None and good.issuperset(_GRANTED):
        said["session"] = _session(evidence, found.found)
        said["chain"] = _chain(evidence, found.found)
    looked = any(check.name == "spends" and check.made for check in found.report.checks)
    if evidence is not None and looked and good.issuperset(_GRANTED):
        said |= _spends(found.found.spends, retold=good.issuperset(_RECORDED))
    if evidence is not None and good.issuperset(_RECORDED):
        said["history"] = _history(evidence)
    return said


def _session(evidence: Evidence, found: Found) -> dict[str, Any]:
    """Who may do what; every word of it is under the grant hash that the chain holds."""
    grant = evidence.grant
    limits = _limits(grant.limits)
    return {
        "workspace": grant.workspace,
        "agent_id": grant.agent_id,
        "owner": grant.owner,
        "consent": evidence.consent,
        "session_key": grant.session_key,
        "token_id": _hex(evidence.token_id),
        "grant_hash": _hex(evidence.grant_hash),
        "delegated_from": [_hex(above.grant.hash()) for above in evidence.ancestors],
        "valid_from_ms": grant.valid_from_s * 1000,
        "valid_until_ms": grant.valid_until_s * 1000,
        "limits_micro_usd": limits,
        "permissions": list(grant.permissions),
        "merchants": list(grant.merchants),
        "tokens": list(grant.tokens),
        "chains": list(grant.chains),
        "conditions": list(grant.conditions),
        "limits_lowered": [
            {
                "block_number": lowering.block_number,
                "time_ms": lowering.block_time_s * 1000,
                "tx_hash": _hex(lowering.tx_hash),
                "limits_micro_usd": _limits(lowering.limits),
            }
            for lowering in found.lowerings
        ],
    }


def _chain(evidence: Evidence, found: Found) -> dict[str, Any]:
    registration = found.registration
    assert registration is not None, "the registration was verified"
    return {
        "chain_id": str(evidence.chain_id),
        "as_of_block": found.block_number,
        "registry": evidence.registry,
        "anchor_registry": evidence.anchors,
        "log_id": _hex(evidence.log_id),
        "log_origin": evidence.log_origin,
        "registered": {
            "block_number": registration.block_number,
            "log_index": registration.log_index,
            "tx_hash": _hex(registration.tx_hash),
        },
        "revoked": _end(found.revocation),
        "workspace_closed": _end(found.closing),
        "anchors": [
            {
                "size": anchoring.size,
                "root": _hex(anchoring.root),
                "block_number": anchoring.block_number,
                "tx_hash": None if anchoring.tx_hash is None else _hex(anchoring.tx_hash),
            }
            for anchoring in found.anchorings
        ],
    }


def _spends(spends: Spends, *, retold: bool) -> dict[str, Any]:
    """What the key moved: of each network that was asked, what no record allows, and what is paid.

    Incidents are the chain's word and told though the records do not hold; settlements are null
    then. Amounts are decimal text in the token's smallest unit.
    """
    return {
        "networks": [
            {"network": network, "as_of_block": block} for network, block in spends.asked.items()
        ],
        "incidents": [
            {
                "kind": each.kind,
                "verdict": each.verdict.name.lower(),
                "network": each.network,
                "tx_hash": _hex_or_none(each.spend.tx_hash),
                "block_number": each.spend.block_number,
                "contract": each.spend.contract,
                "nonce": _hex_or_none(each.spend.nonce),
                "amount": None if each.spend.amount is None else str(each.spend.amount),
                "to": each.spend.to,
                "count": each.spend.count,
                "payment": each.payment,
            }
            for each in spends.incidents
        ],
        "settlements": [
            {
                "payment": each.payment.payment,
                "state": each.state,
                "network": each.payment.network,
                "contract": each.payment.contract,
                "amount": str(each.payment.amount),
                "to": each.payment.to,
                "nonce": _hex(each.payment.nonce),
                "tx_hash": _hex_or_none(each.tx_hash),
                "block_number": each.block_number,
                "log_index": each.log_index,
            }
            for each in spends.settlements
        ]
        if retold
        else None,
    }


def _end(end: Revocation | None) -> dict[str, Any] | None:
    if end is None:
        return None
    return {
        "block_number": end.block_number,
        "time_ms": end.block_time_s * 1000,
        "tx_hash": _hex(end.tx_hash),
    }


def _history(evidence: Evidence) -> dict[str, Any]:
    """What happened: the life of the session, its approvals, its payments and their sums."""
    life: list[dict[str, Any]] = []
    approvals: list[dict[str, Any]] = []
    payments: dict[str, dict[str, Any]] = {}
    peaks = dict.fromkeys(WINDOWS, 0)
    windows, holds = RollingWindows(), dict[str, Entry]()
    anchored = len(evidence.records)
    read = zip(records_of(evidence), evidence.entries(), strict=True)
    for place, (record, entry) in enumerate(read):
        body = record.body
        told = {
            "record": record.seq,
            "log_index": entry.index,
            "anchored": place < anchored,
            "time_ms": record.time_ms,
        }
        if record.kind == "payment.decided":
            payments[body["payment"]] = told | _decided(body)
            if body["decision"]["allowed"]:
                # Added up again: what the decision itself tells of the sums can be withheld.
                amount = body["request"]["amount_micro_usd"]
                holds[body["payment"]] = windows.add(record.time_ms, amount)
                for window, used in zip(WINDOWS, windows.used(record.time_ms), strict=True):
                    peaks[window] = max(peaks[window], used)
        elif record.kind == "payment.signed":
            payments[body["payment"]] |= {
                "signed_ms": record.time_ms,
                "signed_by_record": record.seq,
            }
        elif record.kind in ENDS:
            windows.advance(record.time_ms)
            windows.reduce(holds.pop(body["payment"]), body["captured_micro_usd"])
            payments[body["payment"]] |= {
                "state": record.kind.removeprefix("payment."),
                "captured_micro_usd": body["captured_micro_usd"],
                "ended_ms": record.time_ms,
                "ended_by_record": record.seq,
                "ended_anchored": place < anchored,
            }
        elif record.kind == "payment.refused":
            continue  # nothing was decided
        elif record.kind.startswith("approval."):
            named = {"what": record.kind, "approval": body["approval"], "key": body.get("key")}
            approvals.append(told | named)
        else:
            life.append(told | {"what": record.kind, "state": body.get("state")})
    listed = list(payments.values())
    allowed = [payment for payment in listed if payment["allowed"]]
    captured = sum(payment["captured_micro_usd"] for payment in allowed)
    held = sum(p["amount_micro_usd"] for p in allowed if p["state"] == "held")
    return {
        "session_id": evidence.session_id,
        "type": evidence.session_type,
        "label": evidence.label,
        "withheld": sorted(evidence.withheld),
        "discrepancies": [dict(noted) for noted in evidence.discrepancies],
        "records": {"anchored": anchored, "not_anchored": len(evidence.tail)},
        "totals": {
            "decisions": len(listed),
            "allowed": len(allowed),
            "denied": len(listed) - len(allowed),
            "captured_micro_usd": captured,
            "held_micro_usd": held,
        },
        "largest_sum_micro_usd": peaks,
        "life": life,
        "approvals": approvals,
        "payments": listed,
    }


def _decided(body: Mapping[str, Any]) -> dict[str, Any]:
    request, decision = body["request"], body["decision"]
    allowed: bool = decision["allowed"]
    return {
        "payment": body["payment"],
        "amount_micro_usd": request["amount_micro_usd"],
        "merchant": request.get("merchant"),
        "pay_to": request.get("terms", {}).get("pay_to"),
        "token": request["token"],
        "permission": request["permission"],
        "allowed": allowed,
        "code": decision["code"],
        "reason": decision.get("reason"),
        "approval": body["approval"],
        "state": "held" if allowed else "denied",
        "signed_ms": None,
        "captured_micro_usd": 0,
        "signed_by_record": None,
        "ended_ms": None,
        "ended_by_record": None,
        "ended_anchored": None,
    }


def _limits(limits: Limits) -> dict[str, int | None]:
    return {name: getattr(limits, name) for name in _LIMITS}


def _hex_or_none(value: bytes | None) -> str | None:
    return None if value is None else _hex(value)


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
