"""What the ledger says of signed payments against the events of the chain, by a table."""

from types import SimpleNamespace
from typing import Any

import pytest

from engine.chain.gateway import Log
from engine.reconcile.settlements import OVERDUE_MS, compare

TOKEN, PAYER, NONCE = "0x" + "70" * 20, "0x" + "a1" * 20, b"\x11" * 32
HERE, THERE = b"\xb1" * 32, b"\xb2" * 32
USED = Log(TOKEN, (), b"", 20, HERE, b"\x7a" * 32, 3)
OVER_S = 1_000


def row(**changes: Any) -> SimpleNamespace:
    fields = {
        "session_id": "sess_" + "0" * 26,
        "number": 1,
        "network": "eip155:1",
        "asset": f"eip155:1/erc20:{TOKEN}",
        "payer": PAYER,
        "nonce": NONCE,
        "state": "final",
        "valid_before_s": OVER_S,
        "tx_hash": USED.tx_hash,
        "block_number": 20,
        "block_hash": HERE,
    }
    return SimpleNamespace(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "used", "now_ms", "kinds"),
    [
        ({}, True, 0, []),
        ({}, False, 0, ["settlement_missing"]),
        ({"block_hash": THERE}, True, 0, ["settlement_missing"]),
        ({"block_number": 31}, False, 0, []),  # above what is final by now
        ({"state": "expired"}, False, 0, []),
        ({"state": "expired"}, True, 0, ["settlement_not_captured"]),
        ({"state": "confirmed"}, True, 0, ["settlement_not_captured"]),
        ({"state": "accepted"}, True, OVER_S * 1000 + OVERDUE_MS + 1, []),
        ({"state": "unknown"}, False, OVER_S * 1000 + OVERDUE_MS, []),
        ({"state": "unknown"}, False, OVER_S * 1000 + OVERDUE_MS + 1, ["settlement_overdue"]),
        ({"state": "expired"}, False, OVER_S * 1000 + OVERDUE_MS + 1, []),
    ],
)
def test_what_is_found(changes: dict[str, Any], used: bool, now_ms: int, kinds: list[str]) -> None:
    events = {(TOKEN, PAYER, NONCE): USED} if used else {}
    found = compare([row(**changes)], events, 30, now_ms)
    assert [each.kind for each in found] == kinds
