"""Whole records of every kind in which something can be withheld, made by hand."""

from typing import Any

from engine.audit.record import Head, encode_record

SALT = bytes(range(16))
TERMS = {
    "scheme": "exact",
    "network": "eip155:1",
    "asset": "eip155:1/erc20:0x" + "11" * 20,
    "amount": "5000000",
    "pay_to": "0x" + "5b" * 20,
    "resource": "https://xn--bcher-kva.test/7",
    "method": "POST",
    "body_sha256": "5a" * 32,
    "timeout_s": 300,
}
DECIDED: dict[str, Any] = {
    "payment": "pay_1_3",
    "request": {
        "amount_micro_usd": 5_000_000,
        "merchant": "bücher",
        "token": "eip155:1/erc20:0x" + "11" * 20,
        "chain": "eip155:1",
        "permission": "pay",
        "token_priced": True,
    },
    "request_digest": "ab" * 32,
    "idempotency_key": "order-7-at-bücher",
    "grant_hash": "cd" * 32,
    "standing": "active",
    "chain_time_ms": 0,
    "decision": {
        "allowed": False,
        "code": "MERCHANT_NOT_ALLOWED",
        "rule": "merchants",
        "reason": "The session may not pay merchant bücher.",
        "evidence": {"merchant": "bücher", "allowed_count": 2},
        "remaining": {
            "per_day": None,
            "per_week": None,
            "per_month": None,
            "lifetime": None,
            "payments": 7,
            "token": None,
            "merchant": 3,
        },
    },
    "hold_expires_ms": None,
    "approval": None,
}
_APPROVAL = {"approval": "apr_1_3", "digest": "ab" * 32}
BODIES: dict[str, dict[str, Any]] = {
    "session.created": {
        "type": "agent",
        "label": "shopping ≤ 100 $",
        "user_wallet": "0x" + "22" * 20,
        "grant": {},
        "state": "active",
    },
    "payment.decided": DECIDED,
    "payment.refused": {
        "resource": "https://bücher.test/7",
        "method": "GET",
        "body_sha256": None,
        "offers": 1,
        "reasons": [{"position": 0, "reason": "bücher is not configured"}],
        "idempotency_key": "order-8-at-bücher",
    },
    "approval.requested": {**_APPROVAL, "policy_version": 1, "expires_ms": 9},
    "approval.granted": {**_APPROVAL, "key": "key_1"},
    "approval.denied": {**_APPROVAL, "key": "key_1", "reason": "not at bücher"},
    "approval.expired": _APPROVAL,
    "approval.refused": {**_APPROVAL, "code": "POLICY_CHANGED", "payment": None},
}


def encoded(kind: str, body: Any, **changes: Any) -> tuple[bytes, bytes]:
    """A whole record and its hash."""
    fields: dict[str, Any] = {
        "log": "tallystick/1",
        "workspace": "default",
        "stream": "sess_1",
        "head": Head(3, b"\xab" * 32),
        "time_ms": 1_800_000_000_000,
        "salt": SALT,
    }
    return encode_record(**{**fields, **changes}, kind=kind, body=body)
