"""A payment that settled was decided by then, for as many dollars as its tokens are."""

import pytest

from engine.audit.report import Verdict
from tests.evidence.signing import LIFE_S, USDC, SignedRecords, Told, row, settling
from tests.evidence.story import replaced


@pytest.mark.parametrize(
    ("block_s", "verdict"),
    [
        (-15 * 60 - 1, Verdict.TAMPERED),
        (-15 * 60, Verdict.VERIFIED),
        (LIFE_S, Verdict.VERIFIED),
        (LIFE_S + 1, Verdict.TAMPERED),
    ],
    ids=["long before", "before", "in time", "too late"],
)
def test_a_payment_settles_after_it_was_decided_and_before_its_signature_is_over(
    block_s: int, verdict: Verdict
) -> None:
    """Else its date was made up, and with it the limits that it was held against."""
    records = SignedRecords()
    payment = records.sign(1_000)
    decided_s = payment.body["valid_before_s"] - LIFE_S - 1  # signed a second later
    told = Told(records, settling(payment, block=4), times_s={4: decided_s + block_s})
    check = told.check()
    assert check.verdict is verdict, check.reason
    if verdict is Verdict.TAMPERED:
        assert check.reason == f"settled when its records do not allow it (1): {payment.id}"


@pytest.mark.parametrize(
    ("units", "decimals", "counted", "verdict"),
    [
        (1_000, 6, 999, Verdict.TAMPERED),
        (1_000, 6, 1_001, Verdict.VERIFIED),
        (10**18 + 1, 18, 10**6, Verdict.TAMPERED),
        (10**18 + 1, 18, 10**6 + 1, Verdict.VERIFIED),
        (7, 0, 7 * 10**6, Verdict.VERIFIED),
        (7, 0, 7, Verdict.TAMPERED),
        (10**15, 6, 10**6, Verdict.TAMPERED),
    ],
)
def test_a_payment_counts_no_less_against_limits_than_its_tokens_are(
    units: int, decimals: int, counted: int, verdict: Verdict
) -> None:
    records = SignedRecords()
    payment = records.sign(units, counted=counted)
    chain = replaced(Told(records, settling(payment)).chain, decimals_of={USDC: decimals})
    check = row(Told(records).examine(chain))
    assert check.verdict is verdict, check.reason
    if verdict is Verdict.TAMPERED:
        assert check.reason == f"counted as less than its tokens are (1): {payment.id}"
