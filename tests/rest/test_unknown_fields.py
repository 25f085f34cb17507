"""A field that there is not is refused with the nearest that there is."""

import time
from typing import Any

import pytest
from pydantic import BaseModel

from api.rest.schemas import DraftPolicy, PayForResource
from api.unknown_fields import not_known
from tests.rest.served import PAYMENTS, SESSIONS, SMART, Served, refused

SESSION = {"agent_id": "a", "user_wallet": "0x" + "1" * 40}
ASKED: dict[str, tuple[str, Any, str, str]] = {
    "payment": (PAYMENTS, {"amount": 5, "merchant": "x"}, "merchant", " (is merchant_id meant?)"),
    "smart payment": (
        SMART,
        {"amount_usd": 5, "merchantid": "x"},
        "merchantid",
        " (is merchant_id meant?)",
    ),
    "far from all": (PAYMENTS, {"amount": 5, "zzz": "x"}, "zzz", ""),
    "within": (
        SESSIONS,
        SESSION | {"limits": {"max_per_dya": 1}},
        "limits.max_per_dya",
        " (is limits.max_per_day meant?)",
    ),
    "without what is around it": (
        SESSIONS,
        SESSION | {"max_per_day": 1},
        "max_per_day",
        " (is limits.max_per_day meant?)",
    ),
    "of a filter": (
        f"{SESSIONS}/revoke-many",
        {"filter": {"labels": "x"}, "preview": True},
        "filter.labels",
        " (is filter.label meant?)",
    ),
    "optional body": (f"{PAYMENTS}/x/capture", {"amuont": 1}, "amuont", " (is amount meant?)"),
}


@pytest.mark.parametrize(("path", "body", "field", "meant"), ASKED.values(), ids=ASKED.keys())
def test_of_a_body(api: Served, path: str, body: Any, field: str, meant: str) -> None:
    token = {"token": api.session()["session_token"]} if path == PAYMENTS else {}
    answer = api.post(path, body, **token)
    refused(answer, 422, "invalid_parameter", field)
    assert answer.json()["message"] == f"{field}: is not a known field{meant}"


@pytest.mark.parametrize(
    ("query", "meant"), [("from", " (is from_date meant?)"), ("zzz", "")], ids=str
)
def test_of_a_query(api: Served, query: str, meant: str) -> None:
    answer = api.get(f"{PAYMENTS}?{query}=2026-01-01")
    refused(answer, 422, "invalid_parameter", query)
    assert answer.json()["message"] == f"{query}: is not a known field{meant}"


def test_of_a_draft(api: Served) -> None:
    session = api.session()["id"]
    answer = api.post(f"{SESSIONS}/{session}/backtest", {"max_per_day": 20})
    assert answer.json()["message"] == (
        "max_per_day: is not a known field (is limits.max_per_day meant?)"
    )


class Listed(BaseModel):
    """Bodies have none of this yet."""

    parts: list[DraftPolicy] | None = None


def test_what_is_in_a_list_or_of_no_model_at_all_is_looked_for_as_well() -> None:
    said = "is not a known field (is parts.1.conditions meant?)"
    assert not_known(Listed, ("parts", 1, "condition")) == said
    assert not_known(dict, ("a",)) == "is not a known field"
    assert not_known(None, ()) == "is not a known field"


def test_a_name_of_any_length_costs_nothing() -> None:
    begun = time.monotonic()
    assert not_known(PayForResource, ("resource" * 1_000_000,)) == "is not a known field"
    assert time.monotonic() - begun < 0.5
