"""Payments are found by their status and their day, in lists and in exports."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from engine.clock import ManualClock
from engine.policy.limits import DAY_MS
from tests.rest.served import PAYMENTS, Served, refused

FIRST_DAY_MS = 1_800_057_600_000
"""2027-01-16T00:00:00Z"""
WAYS = ("held", "captured", "voided", "denied", "expired")


class Paid(NamedTuple):
    """A payment in each state on one day, and one at the first moment of the next."""

    api: Served
    token: str
    made: dict[str, str]
    next_day: str

    def found(self, query: str, **how: Any) -> list[str]:
        """What is listed, the oldest first; the export has the same."""
        answer = self.api.get(f"{PAYMENTS}?{query}", **how).json()
        listed = [payment["id"] for payment in answer["data"][::-1]]
        exported = self.api.get(f"{PAYMENTS}/export?{query}", **how).json()
        assert [payment["id"] for payment in exported] == listed
        assert answer["pagination"]["total"] == len(listed)
        return listed


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paid]:
    clock = ManualClock(FIRST_DAY_MS + 1)
    with Served(tmp_path_factory.mktemp("found") / "data", clock=clock) as api:
        token = api.session(limits={"max_per_transaction": 100}, duration_hours=168)[
            "session_token"
        ]
        made = {"expired": api.hold(token, 1)["id"]}
        clock.now_ms += DAY_MS - 3
        assert api.get(f"{PAYMENTS}/{made['expired']}").json()["status"] == "expired"
        made |= {
            way: api.pay(token, 500 if way == "denied" else 5).json()["id"] for way in WAYS[:4]
        }
        for way, how in (("captured", "capture"), ("voided", "void")):
            assert api.post(f"{PAYMENTS}/{made[way]}/{how}").status_code == 200
        clock.now_ms = FIRST_DAY_MS + DAY_MS
        yield Paid(api, token, made, api.hold(token, 2)["id"])


def test_each_status_and_its_other_names(paid: Paid) -> None:
    held, captured, voided, denied, expired = (paid.made[way] for way in WAYS)
    assert paid.found("") == [expired, held, captured, voided, denied, paid.next_day]
    for status, wanted in (
        *((name, [held, paid.next_day]) for name in ("pending", "confirming", "processing")),
        *((name, [captured]) for name in ("confirmed", "completed", "succeeded")),
        ("failed", [voided, denied]),
        ("expired", [expired]),
        ("refunded", []),
    ):
        assert paid.found(f"status={status}") == wanted, status
        assert paid.found(f"status={status}", key=None, token=paid.token) == wanted, status
    answered = {payment["status"] for payment in paid.api.get(PAYMENTS).json()["data"]}
    assert answered == {"pending", "confirmed", "failed", "expired"}


@pytest.mark.parametrize(
    ("query", "first", "second"),
    [
        ("from_date=2027-01-16&to_date=2027-01-16", True, False),
        ("from_date=2027-01-17", False, True),
        ("to_date=2027-01-16", True, False),
        ("to_date=2027-01-15", False, False),
        ("from_date=2027-01-16&to_date=2027-01-17", True, True),
        ("to_date=2027-01-17T00:00:00Z", True, False),
        ("to_date=2027-01-17T00:00:00.001Z", True, True),
        ("from_date=2027-01-17T00:00:00.000Z", False, True),
        ("from_date=2027-01-17T02:00:00%2B02:00", False, True),
        ("from_date=2027-01-17T00:00:00.001Z", False, False),
    ],
)
def test_only_what_was_asked_for_in_the_range(
    paid: Paid, query: str, first: bool, second: bool
) -> None:
    wanted = [paid.made["captured"]] * first
    assert paid.found(f"{query}&status=confirmed") == wanted
    assert (paid.next_day in paid.found(query)) == second


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=paid", "status"),
        ("status=", "status"),
        ("status=PENDING", "status"),
        ("from_date=yesterday", "from_date"),
        ("from_date=1800000000000", "from_date"),
        ("from_date=2027-02-30", "from_date"),
        ("to_date=2027-01-16T00:00:00", "to_date"),
        ("to_date=", "to_date"),
        ("from_date=2027-01-17&to_date=2027-01-15", "to_date"),
    ],
)
def test_what_is_no_status_or_time_is_refused(paid: Paid, query: str, field: str) -> None:
    for path in (PAYMENTS, f"{PAYMENTS}/export"):
        refused(paid.api.get(f"{path}?{query}"), 422, "invalid_parameter", field)


def test_what_was_spent_says_when(paid: Paid) -> None:
    shown = paid.api.get(f"{PAYMENTS}/{paid.made['captured']}").json()
    assert shown["confirmed_at"] == shown["closed_at"]
    for way in ("held", "voided", "denied", "expired"):
        other = paid.api.get(f"{PAYMENTS}/{paid.made[way]}").json()
        assert not other.keys() & {"confirmed_at", "transaction_signature"}
