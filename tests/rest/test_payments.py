"""Payments over HTTP: the shapes clients send and read, holds, lists, and every denial."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.clock import ManualClock, system_clock
from tests.rest.served import NO_LIMITS, PAYMENTS, SESSIONS, SMART, Served, refused

SMART_PAYMENT = {
    "payment_id",
    "status",
    "amount_usd",
    "gasless_used",
    "settlement_complete",
    "confirmed_in_ms",
    "requires_signature",
    "next_steps",
    "created_at",
}
PAYMENT = {
    "id",
    "merchant_id",
    "amount_usd",
    "currency",
    "payment_token",
    "status",
    "description",
    "expires_at",
    "metadata",
    "created_at",
}


def as_the_sdk_pays(token: str, amount: Any, **changes: Any) -> dict[str, Any]:
    """The body of the public client's `agent.pay`: two literals say "take it from the session"."""
    return {
        "session_token": token,
        "agent_id": "session",
        "user_wallet": "",
        "amount_usd": amount,
        "merchant_id": "books",
        "token": "USDC",
        "auto_detect_gasless": True,
        "description": "Purchase",
        "metadata": {"order": "17"},
    } | changes


def as_the_sdk_executes(token: str, amount: Any, **changes: Any) -> dict[str, Any]:
    """The body of the public client's `smart.execute`, with everything that may be left out."""
    return (
        as_the_sdk_pays(token, amount)
        | {
            "agent_id": "bot",
            "user_wallet": "wallet",
            "instant_settlement": True,
            "enable_escrow": False,
            "product_details": {"name": "Book", "quantity": 1},
        }
        | changes
    )


NULLS = (
    "merchant_id",
    "token",
    "auto_detect_gasless",
    "description",
    "metadata",
    "instant_settlement",
    "enable_escrow",
    "product_details",
    "agent_id",
    "user_wallet",
)


@pytest.fixture(scope="module")
def token(api: Served) -> str:
    """The token of a session without limits."""
    text: str = api.session()["session_token"]
    return text


def smart(api: Served, body: dict[str, Any]) -> dict[str, Any]:
    """A smart payment that is allowed, with the operator's key as the bearer."""
    answer = api.post(SMART, body)
    assert answer.status_code == 200, answer.text
    paid: dict[str, Any] = answer.json()
    return paid


def test_the_public_client_pays_with_the_token_in_the_body_and_its_key_as_bearer(
    api: Served,
) -> None:
    session = api.session(limits=NO_LIMITS | {"max_per_day": 200})
    paid = smart(api, as_the_sdk_pays(session["session_token"], 50))
    assert paid.keys() >= SMART_PAYMENT
    expected = {
        "status": "confirmed",
        "amount_usd": 50,
        "gasless_used": False,
        "settlement_complete": False,
        "requires_signature": False,
        "session_id": session["id"],
        "merchant_id": "books",
        "description": "Purchase",
        "metadata": {"order": "17"},
        "remaining_today": 150,
    }
    assert {name: paid[name] for name in expected} == expected
    assert isinstance(paid["confirmed_in_ms"], int)
    assert api.get(f"{SESSIONS}/{session['id']}").json()["remaining_today"] == 150


def test_the_longer_form_of_the_public_client_is_taken_too(api: Served, token: str) -> None:
    paid = smart(api, as_the_sdk_executes(token, "1.5"))
    assert paid["product_details"] == {"name": "Book", "quantity": 1}
    again = api.get(f"{PAYMENTS}/{paid['payment_id']}").json()
    assert again["product_details"] == {"name": "Book", "quantity": 1}


def test_a_smart_payment_needs_no_more_than_a_token_and_an_amount(api: Served, token: str) -> None:
    paid = smart(api, {"session_token": token, "amount_usd": 1})
    assert (paid["merchant_id"], paid["description"], paid["metadata"]) == (None, None, {})
    assert "product_details" not in paid


@pytest.mark.parametrize("field", NULLS)
def test_null_is_like_leaving_out(api: Served, token: str, field: str) -> None:
    body = as_the_sdk_executes(token, 1)
    del body[field]
    left_out, null = (smart(api, sent) for sent in (body, body | {field: None}))
    same = PAYMENT - {"id", "created_at", "expires_at"}
    assert {name: left_out[name] for name in same} == {name: null[name] for name in same}


def test_escrow_is_refused_because_there_is_none(api: Served, token: str) -> None:
    answer = api.post(SMART, as_the_sdk_executes(token, 1, enable_escrow=True))
    refused(answer, 422, "invalid_parameter", "enable_escrow")


def test_the_token_may_come_in_the_body_in_its_header_or_as_the_bearer(
    api: Served, token: str
) -> None:
    body = {"amount_usd": 1}
    ways: list[dict[str, Any]] = [
        {"body": body | {"session_token": token}},
        {"body": body, "token": token},
        {"body": body, "key": token},
        {"body": body | {"session_token": ""}, "token": token, "key": api.key},
    ]
    assert [api.call("POST", SMART, **way).status_code for way in ways] == [200] * len(ways)


def test_a_hold_has_every_field_that_payment_clients_read(api: Served, token: str) -> None:
    held = api.hold(token, "12.50", description="Paper", metadata={"sku": 7})
    assert held.keys() >= PAYMENT
    expected = {
        "merchant_id": "books",
        "amount_usd": 12.5,
        "captured_usd": 0,
        "currency": "USD",
        "status": "pending",
        "state": "held",
        "description": "Paper",
        "metadata": {"sku": 7},
        "closed_at": None,
    }
    assert {name: held[name] for name in expected} == expected
    assert held["payment_token"] == api.world.request(1).token
    assert held["decision"]["code"] == "ALLOWED"
    shown = api.get(f"{PAYMENTS}/{held['id']}").json()
    assert shown == held | {"remaining_now": shown["remaining_now"]}


def test_a_payment_may_be_captured_at_once(api: Served, token: str) -> None:
    paid = api.hold(token, 3, capture_method="automatic", recipient_wallet="books")
    assert (paid["status"], paid["captured_usd"]) == ("confirmed", 3)


def test_two_names_of_the_payee_must_agree(api: Served, token: str) -> None:
    assert api.hold(token, recipient_wallet="books", merchant_id=None)["merchant_id"] == "books"
    answer = api.pay(token, merchant_id="books", recipient_wallet="casino")
    refused(answer, 422, "invalid_parameter", "recipient_wallet")


def test_an_address_is_one_payee_however_it_is_spelt(api: Served, token: str) -> None:
    address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    held = api.hold(token, merchant_id=address, recipient_wallet=address.lower())
    assert held["merchant_id"] == address.lower()


@pytest.fixture
def day(api: Served) -> dict[str, Any]:
    """A session with $100 a day, of which $40 are held."""
    session = api.session(limits=NO_LIMITS | {"max_per_day": 100})
    return session | {"held": api.hold(session["session_token"], 40)["id"]}


def end(api: Served, session: dict[str, Any], how: str, body: Any = None) -> httpx.Response:
    path = f"{PAYMENTS}/{session['held']}/{how}"
    return api.call("POST", path, body, token=session["session_token"])


def left(api: Served, session: dict[str, Any]) -> Any:
    return api.get(f"{SESSIONS}/{session['id']}").json()["remaining_today"]


@pytest.mark.parametrize(
    ("body", "captured"),
    [
        (None, 40),
        ({}, 40),
        ({"amount": 40}, 40),
        ({"amount": "15.000001"}, 15.000001),
    ],
    ids=("no body", "empty", "all", "part"),
)
def test_a_capture_spends_what_it_says_and_frees_the_rest(
    api: Served, day: dict[str, Any], body: Any, captured: float
) -> None:
    answer = end(api, day, "capture", body)
    assert answer.status_code == 200
    assert answer.json()["captured_usd"] == captured
    assert (answer.json()["status"], answer.json()["amount_usd"]) == ("confirmed", 40)
    assert left(api, day) == 100 - captured


def test_a_capture_above_the_hold_is_refused_and_the_hold_stands(
    api: Served, day: dict[str, Any]
) -> None:
    refused(end(api, day, "capture", {"amount": "40.000001"}), 422, "invalid_amount", "amount")
    assert left(api, day) == 60
    assert end(api, day, "capture", {"amount": 40}).status_code == 200


def test_the_same_capture_again_is_a_replay_and_another_is_a_conflict(
    api: Served, day: dict[str, Any]
) -> None:
    first, again = (end(api, day, "capture", {"amount": 15}) for _ in range(2))
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    refused(end(api, day, "capture", {"amount": 16}), 409, "payment_captured")
    refused(end(api, day, "void"), 409, "payment_captured")
    assert left(api, day) == 85


def test_a_void_gives_all_back_once(api: Served, day: dict[str, Any]) -> None:
    first, again = (end(api, day, "void") for _ in range(2))
    assert (first.status_code, first.json()["status"]) == (200, "failed")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    refused(end(api, day, "capture"), 409, "payment_voided")
    assert left(api, day) == 100


def test_a_hold_that_is_over_can_be_neither_captured_nor_voided(tmp_path: Path) -> None:
    clock = ManualClock(system_clock())
    with Served(tmp_path / "data", clock=clock, hold_ttl_s=60) as api:
        session = api.session(limits=NO_LIMITS | {"max_per_day": 100})
        session["held"] = api.hold(session["session_token"], 40)["id"]
        clock.advance(60_000)
        refused(end(api, session, "capture"), 409, "payment_expired")
        refused(end(api, session, "void"), 409, "payment_expired")
        assert left(api, session) == 100
        shown = api.get(f"{PAYMENTS}/{session['held']}").json()
        assert (shown["status"], shown["state"]) == ("expired", "expired")


def test_a_denied_payment_can_be_neither_captured_nor_voided(api: Served) -> None:
    session = api.session(limits=NO_LIMITS | {"max_per_day": 1})
    session["held"] = api.pay(session["session_token"], 2).json()["id"]
    refused(end(api, session, "capture"), 409, "payment_denied")
    refused(end(api, session, "void"), 409, "payment_denied")


def test_the_list_comes_in_pages_with_the_newest_first(tenant: Served) -> None:
    token = tenant.session()["session_token"]
    ids = [tenant.hold(token, n)["id"] for n in range(1, 6)]
    pages = [tenant.get(f"{PAYMENTS}?page={n}&limit=2").json() for n in (1, 2, 3, 4)]
    assert [p["id"] for page in pages for p in page["data"]] == ids[::-1]
    assert [len(page["data"]) for page in pages] == [2, 2, 1, 0]
    for number, page in enumerate(pages, 1):
        expected = {"page": number, "limit": 2, "total": 5, "total_pages": 3}
        assert page["pagination"] == expected
    default = tenant.get(PAYMENTS).json()
    assert default["pagination"] == {"page": 1, "limit": 20, "total": 5, "total_pages": 1}
    shown = [tenant.get(f"{PAYMENTS}/{i}").json() for i in ids[::-1]]
    assert shown == [
        each | {"remaining_now": shown[0]["remaining_now"]} for each in default["data"]
    ]


def test_an_empty_list_has_no_pages(tenant: Served) -> None:
    empty = {"page": 1, "limit": 20, "total": 0, "total_pages": 0}
    assert tenant.get(PAYMENTS).json() == {"data": [], "pagination": empty}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=1000001", "page"),
        ("page=x", "page"),
        ("page=1.5", "page"),
        ("page=", "page"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=1000000000000000000000000", "limit"),
        ("limit=NaN", "limit"),
        ("start_date=2026-01-01", "start_date"),
        ("offset=1", "offset"),
    ],
)
def test_a_page_or_filter_that_does_not_exist_is_refused_not_ignored(
    api: Served, query: str, field: str
) -> None:
    refused(api.get(f"{PAYMENTS}?{query}"), 422, "invalid_parameter", field)


def test_the_list_can_be_of_one_session(tenant: Served) -> None:
    one, other = tenant.session(), tenant.session()
    for session in (one, other, one):
        tenant.hold(session["session_token"])
    path = f"{PAYMENTS}?session_id={one['id']}"
    for who in ({}, {"key": None, "token": one["session_token"]}):
        answer = tenant.get(path, **who).json()
        assert [payment["session_id"] for payment in answer["data"]] == [one["id"]] * 2
        assert answer["pagination"]["total"] == 2
    foreign = tenant.get(path, key=None, token=other["session_token"])
    refused(foreign, 404, "session_not_found")
    refused(tenant.get(f"{PAYMENTS}?session_id=sess_none"), 404, "session_not_found")


def test_what_clients_send_along_is_kept_and_shown(api: Served) -> None:
    token = api.session()["session_token"]
    along = {"customer_email": "buyer@example.org", "redirect_url": "https://shop.example/done"}
    held = api.hold(token, **along)
    shown = api.get(f"{PAYMENTS}/{held['id']}").json()
    assert along.items() <= held.items()
    assert along.items() <= shown.items()
    assert not along.keys() & api.hold(token).keys()
