"""What an operator accepted of a payment is told as their word, and excuses nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from engine.audit.chain import Spend
from engine.audit.report import Verdict
from tests.evidence.signing import OTHER_SHOP, USDC, Told, events, settling
from tests.evidence.test_spends import STRANGER, signed

ODD: dict[str, tuple[dict[str, Any] | None, bool]] = {
    "other_amount": ({"amount": 999}, True),
    "other_payee": ({"to": OTHER_SHOP}, True),
    "no_transfer": (None, True),
    "another transaction": ({"amount": 999}, False),
}


@pytest.mark.parametrize("how", ODD)
def test_what_an_operator_accepted_is_unbindable_in_the_transactions_that_are_named(
    how: str,
) -> None:
    changes, named = ODD[how]
    records, [honest, odd] = signed(2)
    spends = settling(odd, place=1, **changes) if changes else settling(odd, place=1)[:1]
    fee = replace(events(USDC, None, STRANGER, 1, place=1)[0], log_index=9)
    transaction = "0x" + ((spends[0].tx_hash or b"").hex() if named else "0a" * 32)
    records.accept(odd, [transaction])
    told = Told(records, [*settling(honest), *spends, fee])
    found = told.examine().found.spends
    assert [each.state for each in found.settlements] == ["settled", "accepted"]
    assert {each.verdict for each in found.incidents} == {told.check().verdict}
    assert told.check().verdict is (Verdict.UNBINDABLE if named else Verdict.TAMPERED)


OTHERS: dict[str, list[Spend]] = {
    "the nonce of no payment": events(USDC, b"\x77" * 32, STRANGER, 10**12, place=5),
    "what the key itself sent": events(USDC, None, STRANGER, 10**12, place=6, sent_by_key=True),
    "an allowance that was used": events(USDC, None, STRANGER, 10**12, place=7),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_word_is_about_the_nonce_of_its_payment_alone(what: str) -> None:
    records, [honest, small] = signed(2)
    records.accept(small, ["0x" + (spend.tx_hash or b"").hex() for spend in OTHERS[what]][:1])
    assert Told(records, [*settling(honest), *OTHERS[what]]).check().verdict is Verdict.TAMPERED


@pytest.mark.parametrize("what", OTHERS)
def test_a_transaction_that_used_the_nonce_excuses_a_fee_and_no_more(what: str) -> None:
    records, [honest, odd] = signed(2)
    used = settling(odd, place=1, amount=999)
    records.accept(odd, ["0x" + (used[0].tx_hash or b"").hex()])
    beside = [
        replace(spend, tx_hash=used[0].tx_hash, block_number=used[0].block_number, log_index=at)
        for at, spend in enumerate(OTHERS[what], start=7)
    ]
    verdict = Told(records, [*settling(honest), *used, *beside]).check().verdict
    fee = what == "an allowance that was used"
    assert verdict is (Verdict.UNBINDABLE if fee else Verdict.TAMPERED)


def test_what_an_operator_counts_as_spent_need_not_be_on_the_chain() -> None:
    records, [honest, silent] = signed(2)
    records.accept(silent, [])
    check = Told(records, settling(honest)).check()
    assert check.verdict is Verdict.VERIFIED
    assert check.reason.endswith("; 1 spent by an operator's word")
    # It excuses nothing that moved.
    taken = events(USDC, None, STRANGER, 1_000, place=3)
    check = Told(records, [*settling(honest), *taken]).check()
    assert check.verdict is Verdict.TAMPERED
