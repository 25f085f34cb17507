"""What is left can be read from every answer about a payment, as of that answer."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.clock import ManualClock, system_clock
from tests.rest.served import NO_LIMITS, PAYMENTS, SESSIONS, SMART, Served
from tests.rest.twins import WAYS, Twins

KEYS = "/api/v1/ai/session-keys"
PREFIX = "tallystick-remaining-"
DAY = NO_LIMITS | {"max_per_day": 100}


def told(answer: httpx.Response) -> dict[str, str]:
    """What the headers say is left."""
    return {
        name.removeprefix(PREFIX): value
        for name, value in answer.headers.items()
        if name.startswith(PREFIX)
    }


def nothing_but(**amounts: Any) -> dict[str, Any]:
    names = ("today", "this_week", "this_month", "lifetime")
    return dict.fromkeys((*names, "payments", "with_token", "to_merchant")) | amounts


@pytest.fixture
def session(api: Served) -> dict[str, Any]:
    return api.session(limits=DAY)


def test_a_payment_a_denial_and_a_smart_payment_say_what_they_leave(
    api: Served, session: dict[str, Any]
) -> None:
    token = session["session_token"]
    assert told(api.pay(token, "40.5")) == {"today": "59.5"}
    assert told(api.pay(token, 60)) == {"today": "59.5"}
    paid = api.call("POST", SMART, {"amount_usd": "0.000001"}, token=token)
    assert told(paid) == {"today": "59.499999"}


def test_every_limit_that_there_is_is_told(api: Served) -> None:
    limits = dict.fromkeys(NO_LIMITS, 1000)
    usdc = api.world.request(1).token
    session = api.session(
        limits=limits,
        conditions=[
            "lifetime at most 500 USD",
            "at most 9 payments per hour",
            f"token {usdc} at most 400 USD per day",
            "merchant books at most 300 USD per day",
        ],
    )
    token = session["session_token"]
    paid = api.pay(token, 10)
    assert told(paid) == {
        "today": "990",
        "this-week": "990",
        "this-month": "990",
        "lifetime": "490",
        "payments": "8",
        "with-token": "390",
        "to-merchant": "290",
    }
    shown = api.get(f"{PAYMENTS}/{paid.json()['id']}")
    assert told(shown) == told(paid)
    assert shown.json()["remaining_now"] == {
        "today": 990,
        "this_week": 990,
        "this_month": 990,
        "lifetime": 490,
        "payments": 8,
        "with_token": 390,
        "to_merchant": 290,
    }
    other = api.pay(token, 10, merchant_id="shoes")
    assert "to-merchant" not in told(other)
    assert told(api.get(f"{PAYMENTS}/{paid.json()['id']}"))["to-merchant"] == "290"


def test_without_limits_nothing_is_told(api: Served) -> None:
    held = api.pay(api.session()["session_token"], 1)
    shown = api.get(f"{PAYMENTS}/{held.json()['id']}")
    assert (told(held), told(shown)) == ({}, {})
    assert shown.json()["remaining_now"] == nothing_but()


def test_a_replay_is_the_same_answer_and_its_headers_are_of_now(
    api: Served, session: dict[str, Any]
) -> None:
    token, key = session["session_token"], {"headers": {"Idempotency-Key": "one"}}
    first = api.pay(token, 40, **key)
    denied = api.pay(token, 90, headers={"Idempotency-Key": "two"})
    api.hold(token, 25)
    again = api.pay(token, 40, **key)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
    assert again.json()["remaining_today"] == 60
    assert (told(first), told(again)) == ({"today": "60"}, {"today": "35"})
    denied_again = api.pay(token, 90, headers={"Idempotency-Key": "two"})
    assert denied_again.json() == denied.json()
    assert (denied_again.status_code, told(denied_again)) == (402, {"today": "35"})


def test_a_capture_a_void_and_their_replays_are_as_of_now(
    api: Served, session: dict[str, Any]
) -> None:
    token = session["session_token"]
    held, other = (api.hold(token, 40)["id"] for _ in range(2))

    def end(payment: str, how: str, body: Any = None) -> tuple[Any, dict[str, str]]:
        answer = api.call("POST", f"{PAYMENTS}/{payment}/{how}", body, token=token)
        assert answer.status_code == 200
        return answer.json()["remaining_today"], told(answer)

    assert end(held, "capture", {"amount": 10}) == (50, {"today": "50"})
    assert end(other, "void") == (90, {"today": "90"})
    assert end(held, "capture", {"amount": 10}) == (90, {"today": "90"})
    api.hold(token, 1)
    assert end(other, "void") == (89, {"today": "89"})


def test_one_payment_is_shown_with_what_is_left_now_beside_what_was_left_then(
    api: Served, session: dict[str, Any]
) -> None:
    token = session["session_token"]
    first = api.hold(token, 40)
    api.hold(token, 25)
    for who in ({}, {"key": None, "token": token}):
        shown = api.get(f"{PAYMENTS}/{first['id']}", **who)
        assert told(shown) == {"today": "35"}
        assert shown.json() == first | {"remaining_now": nothing_but(today=35)}


@pytest.mark.parametrize("path", sorted(WAYS))
def test_a_session_that_delegates_is_told_what_those_beneath_it_leave(
    own_twins: Twins, path: str
) -> None:
    def paid(token: str, amount: int) -> tuple[dict[str, str], Any]:
        answer = own_twins.post(path, {WAYS[path]: amount}, token=token)
        head, _, content = answer.partition(b"\r\n\r\n")
        lines = (line.partition(b": ") for line in head.lower().split(b"\r\n"))
        found = {a.decode(): b.decode() for a, _, b in lines if a.startswith(PREFIX.encode())}
        return {a.removeprefix(PREFIX): b for a, b in found.items()}, json.loads(content)

    paid("beneath", 90)
    for amount, left, more in ((11, 10, 8), (4, 6, 7)):  # a denial, and what fits
        headers, body = paid("delegating", amount)
        assert headers == {"today": str(left), "payments": str(more)}
        assert body["remaining_today"] == left


def test_what_those_beneath_a_session_spent_is_not_left_wherever_it_is_told(api: Served) -> None:
    conditions = ["lifetime at most 95 USD"]
    parent = api.session(limits=DAY, conditions=conditions)
    token, asked = parent["session_token"], {"limits": DAY, "agent_id": parent["agent_id"]}
    path = f"{SESSIONS}/{parent['id']}"
    child = api.call("POST", f"{path}/children", asked | {"conditions": conditions}, token=token)
    held = api.hold(token, 2)
    api.hold(child.json()["session_token"], 90)
    shown = api.get(path).json()
    assert shown["remaining_today"] == 8
    assert [each["remaining"] for each in shown["remaining_by_condition"]] == [3]
    one = api.get(f"{PAYMENTS}/{held['id']}")
    assert told(one) == {"today": "8", "lifetime": "3"}
    assert one.json()["remaining_now"] == nothing_but(today=8, lifetime=3)
    status = api.post(f"{KEYS}/status", {"session_key_id": parent["id"]}).json()
    assert status["linked_session"]["effective_limit"] == 3
    voided = api.call("POST", f"{PAYMENTS}/{held['id']}/void", token=token)
    assert (voided.json()["remaining_today"], told(voided)["lifetime"]) == (10, "5")
    listed = {each["id"]: each["remaining_today"] for each in api.get(SESSIONS).json()}
    assert listed[parent["id"]] == listed[child.json()["id"]] == 10


def test_what_goes_to_one_merchant_is_not_taken_for_the_day_of_a_session_that_delegates(
    api: Served,
) -> None:
    conditions = ["merchant books at most 100 USD per day"]
    parent = api.session(limits=DAY, conditions=conditions)
    path, token = f"{SESSIONS}/{parent['id']}", parent["session_token"]
    asked = {"limits": DAY, "agent_id": parent["agent_id"], "conditions": conditions}
    child = api.call("POST", f"{path}/children", asked, token=token).json()["session_token"]
    api.pay(child, 10, merchant_id="books")
    api.pay(child, 5, merchant_id="shoes")
    body = {"amount": 1, "merchant_id": "books"}
    checked = api.post(f"{KEYS}/{parent['id']}/check-payment", body).json()
    assert checked["session_remaining_today"] == checked["effective_limit"] == 85
    assert checked["session_key_remaining"] == 90
    tried = api.post(f"{path}/simulate", body).json()
    left = [(limit["name"], limit["remaining"]) for limit in tried["limits"] if limit["budget"]]
    assert left == [("per_day", 85), (conditions[0], 90)]


def test_the_record_has_what_the_payments_of_the_session_alone_leave(api: Served) -> None:
    parent = api.session(limits=DAY)
    token, asked = parent["session_token"], {"limits": DAY, "agent_id": parent["agent_id"]}
    child = api.call("POST", f"{SESSIONS}/{parent['id']}/children", asked, token=token).json()
    api.hold(child["session_token"], 90)
    key = {"headers": {"Idempotency-Key": "one"}}
    first, again = (api.pay(token, 4, **key) for _ in range(2))
    assert (first.json()["remaining_today"], again.json()["remaining_today"]) == (6, 96)
    assert told(first) == told(again) == {"today": "6"}
    explained = api.get(f"{PAYMENTS}/{first.json()['id']}/explanation").json()
    assert explained["matches"]


def test_a_hold_that_is_over_is_left_again_also_in_a_replay(tmp_path: Path) -> None:
    clock = ManualClock(system_clock())
    with Served(tmp_path / "data", clock=clock, hold_ttl_s=60) as api:
        token = api.session(limits=DAY)["session_token"]
        key = {"headers": {"Idempotency-Key": "one"}}
        first = api.pay(token, 40, **key)
        clock.advance(60_000)
        before = api.records()
        assert told(api.pay(token, 40, **key)) == {"today": "100"}
        assert api.records() == before
        shown = api.get(f"{PAYMENTS}/{first.json()['id']}").json()
        assert (shown["state"], shown["remaining_now"]) == ("expired", nothing_but(today=100))
