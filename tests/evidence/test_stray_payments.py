"""On a real chain: exactly what nobody allowed is an incident, however much was allowed."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine.audit.report import Verdict
from tests.evidence.signing import SHOP, Payment, SignedRecords, row
from tests.evidence.stray_payments import STRAYS, Payer, payer, signed_on
from tests.evidence.test_lying_chain import Endpoint

PAYMENTS = 100


@pytest.fixture(scope="module")
def chain() -> Iterator[Payer]:
    with payer() as opened:
        yield opened


@pytest.fixture(scope="module")
def paid(chain: Payer) -> tuple[SignedRecords, list[Payment]]:
    """Many payments that settled; the last of them is signed and did not."""
    records, payments = signed_on(chain, PAYMENTS)
    chain.settle(payments)
    return records, payments


def test_payments_that_settled_are_verified_with_one_question_for_all(
    chain: Payer, paid: tuple[SignedRecords, list[Payment]]
) -> None:
    endpoint = Endpoint(chain.gateway, lambda _name, _arguments, answer: answer)
    found = chain.judge(paid[0], endpoint)
    check = row(found)
    assert check.verdict is Verdict.VERIFIED, check.reason
    assert check.reason.startswith(f"{PAYMENTS} payments on ")
    assert (endpoint.asked.count("logs"), endpoint.asked.count("receipt")) == (1, 0)
    assert len(endpoint.asked) < 10


def test_endpoints_that_disagree_on_one_payment_are_named(
    chain: Payer, paid: tuple[SignedRecords, list[Payment]]
) -> None:
    def forget(name: str, _arguments: tuple[Any, ...], answer: Any) -> Any:
        return answer[:-1] if name == "logs" else answer

    check = row(chain.judge(paid[0], chain.gateway, Endpoint(chain.gateway, forget)))
    assert check.verdict is Verdict.UNAVAILABLE
    assert "the endpoints disagree on what the key moved, number 200: " in check.reason


def test_money_that_went_elsewhere_than_signed_and_a_payment_that_waits_are_told(
    chain: Payer, paid: tuple[SignedRecords, list[Payment]]
) -> None:
    settled = len(paid[1])
    records, payments = signed_on(chain, settled + 1)
    check = row(chain.judge(records))
    assert check.verdict is Verdict.PENDING
    assert check.reason == f"signed and not settled yet (1): {payments[-1].id}"


def test_each_stray_is_one_incident_and_nothing_else_is(
    chain: Payer, paid: tuple[SignedRecords, list[Payment]]
) -> None:
    records, payments = paid
    chain.stray(payments[0])
    late = records.sign(2_000, asset=chain.asset)
    chain.send([chain.authorization(chain.usdc, SHOP, 1_999, late.nonce)])
    examined = chain.judge(records)
    found = examined.found.spends
    assert sorted(each.kind for each in found.incidents) == sorted((*STRAYS, "other_amount"))
    assert [each.state for each in found.settlements] == ["settled"] * PAYMENTS + ["differs"]
    assert {(each.kind, each.spend.amount) for each in found.incidents} >= {
        ("transfer", 3),
        ("orphan", 5),
        ("transfer", 7),
        ("transfer", 11),
        ("other_amount", 1_999),
    }
    assert row(examined).verdict is Verdict.TAMPERED
