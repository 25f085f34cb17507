"""Where an anchor stands is a function of what the chain says now, and of nothing before."""

import pytest

from engine.chain.gateway import Receipt
from engine.evidence.anchor_state import State, is_slow, state_of


def mined(block_number: int, *, succeeded: bool = True) -> Receipt:
    return Receipt(b"\x01" * 32, block_number, b"\x02" * 32, succeeded, 50_000, None, ())


@pytest.mark.parametrize(
    ("receipt", "waits", "head", "confirmations", "expected"),
    [
        (None, True, 10, 0, "sent"),
        (None, False, 10, 0, None),
        (mined(10), False, 10, 0, "final"),
        (mined(10), True, 10, 1, "mined"),
        (mined(10), False, 11, 1, "final"),
        (mined(10), False, 73, 64, "mined"),
        (mined(10), False, 74, 64, "final"),
        (mined(10, succeeded=False), False, 74, 64, None),
        (mined(10, succeeded=False), True, 10, 0, None),
    ],
)
def test_every_state(
    receipt: Receipt | None, waits: bool, head: int, confirmations: int, expected: State | None
) -> None:
    assert state_of(receipt, waits=waits, head=head, confirmations=confirmations) == expected


@pytest.mark.parametrize(
    ("now_ms", "replaced", "expected"),
    [(1_099, 0, False), (1_100, 0, True), (1_199, 1, False), (1_200, 1, True), (900, 0, False)],
)
def test_a_higher_fee_is_due_after_each_further_wait(
    now_ms: int, replaced: int, expected: bool
) -> None:
    assert is_slow(1_000, now_ms, replaced=replaced, patience_ms=100) is expected
