"""A policy and a request that pass every rule, and changes to them."""

from typing import Any

from engine.policy.conditions import Condition, parse_condition
from engine.policy.decision import PaymentRequest, Policy
from engine.policy.limits import Limits

NOW_MS = 1_800_000_000_000  # Friday 15 January 2027, 08:00 UTC
CHAIN = "eip155:8453"
USDC = f"{CHAIN}/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913"
USD = 1_000_000

UNLIMITED: dict[str, int | None] = {
    "per_transaction": None,
    "per_day": None,
    "per_week": None,
    "per_month": None,
    "approval_above": None,
}


def limits(**changes: int | None) -> Limits:
    return Limits(**{**UNLIMITED, **changes})


def conditions(*sentences: str) -> tuple[Condition, ...]:
    return tuple(parse_condition(sentence) for sentence in sentences)


def policy(**changes: Any) -> Policy:
    fields: dict[str, Any] = {
        "limits": limits(),
        "permissions": frozenset({"pay"}),
        "merchants": frozenset({"books.example"}),
        "tokens": frozenset({USDC}),
        "chains": frozenset({CHAIN}),
        "valid_from_ms": NOW_MS - 1000,
        "valid_until_ms": NOW_MS + 1000,
    }
    return Policy(**{**fields, **changes})


def request(**changes: Any) -> PaymentRequest:
    fields: dict[str, Any] = {
        "amount": 10 * USD,
        "merchant": "books.example",
        "token": USDC,
        "chain": CHAIN,
        "token_priced": True,
    }
    return PaymentRequest(**{**fields, **changes})
