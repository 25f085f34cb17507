"""The hash of a record as `docs/evidence.md` describes it. It shares no code with the package."""

import hashlib
import hmac
import json
from typing import Any

GROUPS = {
    "session.created": {"label": ["label"], "user_wallet": ["user_wallet"]},
    "payment.decided": {
        "merchant": [
            "request.merchant",
            "request.terms.resource",
            "request.terms.body_sha256",
            "request_digest",
            "idempotency_key",
            "decision.reason",
            "decision.evidence",
            "decision.remaining.merchant",
        ]
    },
    "payment.refused": {
        "merchant": ["resource", "body_sha256", "reasons", "idempotency_key"],
    },
    "approval.requested": {"merchant": ["digest"]},
    "approval.granted": {"merchant": ["digest"]},
    "approval.denied": {"merchant": ["digest", "reason"]},
    "approval.expired": {"merchant": ["digest"]},
    "approval.refused": {"merchant": ["digest"]},
}


def canonical(value: Any) -> bytes:
    """RFC 8785 of what has only ASCII keys and whole numbers."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def commitment(salt: bytes, value: Any) -> str:
    """What stands for a group, in hexadecimal."""
    hashed = hashlib.sha256(b"tallystick/commitment/1\n" + salt)
    hashed.update(canonical(value))
    return hashed.hexdigest()


def committed(raw: bytes) -> bytes:
    """The committed form of a whole record."""
    record = json.loads(raw)
    groups = GROUPS.get(record["kind"])
    if groups is None:
        return raw
    salt = bytes.fromhex(record.pop("salt"))
    record["commitments"] = {}
    for name, paths in groups.items():
        group: dict[str, Any] = {}
        for path in paths:
            *within, last = path.split(".")
            if "terms" in within and "terms" not in record["body"]["request"]:
                continue
            source, target = record["body"], group
            for step in within:
                source, target = source[step], target.setdefault(step, {})
            target[last] = source.pop(last)
        field_salt = hmac.new(salt, name.encode(), hashlib.sha256).digest()
        record["commitments"][name] = commitment(field_salt, group)
    return canonical(record)


def leaf(raw: bytes) -> bytes:
    """The leaf hash of a whole record (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\0" + committed(raw)).digest()
