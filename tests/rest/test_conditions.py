"""Conditions and restrictions over HTTP."""

from typing import Any

import pytest

from tests.rest.served import NO_LIMITS, SESSIONS, Served, refused

CAP = "merchant books at most 20 USD per day"


def restrict(api: Served, session: dict[str, Any], *sentences: str) -> Any:
    return api.post(f"{SESSIONS}/{session['id']}/restrict", {"restrictions": sentences})


def test_conditions_are_answered_in_their_order_with_what_they_leave(api: Served) -> None:
    session = api.session(conditions=[CAP, "at most 3 payments per hour", "never merchant casino"])
    assert session["conditions"] == ["at most 3 payments per hour", CAP, "never merchant casino"]
    assert (session["restrictions"], session["policy_version"]) == ([], 1)
    assert api.pay(session["session_token"], 7.5).status_code == 201
    shown = api.get(f"{SESSIONS}/{session['id']}").json()
    assert shown["remaining_by_condition"] == [
        {"condition": CAP, "remaining": 12.5, "unit": "USD"},
        {"condition": "at most 3 payments per hour", "remaining": 2, "unit": "payments"},
    ]
    assert [s for s in api.get(SESSIONS).json() if s["id"] == session["id"]] == [shown]


def test_a_session_without_conditions_has_none(api: Served) -> None:
    for session in (api.session(), api.session(conditions=[])):
        assert (session["conditions"], session["remaining_by_condition"]) == ([], [])


def test_the_typed_data_to_sign_holds_them(api: Served) -> None:
    session = api.session(
        user_wallet=api.world.owner.address, await_consent=True, conditions=["never chain eip155:1"]
    )
    assert session["typed_data"]["message"]["scope"]["conditions"] == ["never chain eip155:1"]
    assert session["typed_data"]["message"]["parent"] == "0x" + "00" * 32


@pytest.mark.parametrize(
    ("sentences", "field", "reason"),
    [
        ([CAP, "at most 1 payment per hour", "spend"], "conditions[2]", "is none of the sentences"),
        ([CAP, "at most 01 payments per hour"], "conditions[1]", "write 'at most 1 payment per"),
        ([CAP, CAP], "conditions[1]", "the same"),
        (['never merchant "x'], "conditions[0]", "is none"),
        ([CAP, "never merchant API.x.test"], "conditions[1]", "write 'never merchant api.x.test'"),
        (["never merchant \u202ebooks"], "conditions[0]", "U+202E"),
        ([f"never chain eip155:{n}" for n in range(1, 66)], "conditions", "64"),
        ("never chain eip155:1", "conditions", "list"),
        (None, "conditions", "list"),
        ([1], "conditions.0", "string"),
    ],
)
def test_a_condition_that_is_none_is_named_with_the_reason(
    api: Served, sentences: Any, field: str, reason: str
) -> None:
    before = api.records()
    body = {"agent_id": "bot", "user_wallet": "wallet", "conditions": sentences}
    answer = api.post(SESSIONS, body)
    refused(answer, 422, "invalid_parameter", field)
    assert reason in answer.json()["message"]
    assert api.records() == before


def test_restrictions_take_the_place_of_earlier_ones(api: Served) -> None:
    session = api.session(limits=NO_LIMITS)
    token = session["session_token"]
    shown = restrict(api, session, "never merchant books", "at most 9 payments per day").json()
    assert shown["restrictions"] == ["at most 9 payments per day", "never merchant books"]
    assert (shown["conditions"], shown["policy_version"]) == ([], 2)
    denied = api.pay(token).json()
    assert (denied["code"], denied["decision"]["rule"]) == (
        "MERCHANT_NOT_ALLOWED",
        "never_merchant",
    )
    assert restrict(api, session).json()["restrictions"] == []
    assert api.pay(token).status_code == 201
    assert api.get(f"{SESSIONS}/{session['id']}").json()["policy_version"] == 3


def test_a_restriction_that_is_none_is_named_and_changes_nothing(api: Served) -> None:
    session = api.session()
    restrict(api, session, "never merchant casino")
    answer = restrict(api, session, "never merchant casino", "never")
    refused(answer, 422, "invalid_parameter", "restrictions[1]")
    refused(
        api.post(f"{SESSIONS}/{session['id']}/restrict", {}),
        422,
        "missing_required_field",
        "restrictions",
    )
    shown = api.get(f"{SESSIONS}/{session['id']}").json()
    assert (shown["restrictions"], shown["policy_version"]) == (["never merchant casino"], 2)


def test_a_session_that_is_over_is_not_restricted(api: Served) -> None:
    session = api.session()
    api.post(f"{SESSIONS}/{session['id']}/revoke")
    refused(restrict(api, session, "never merchant casino"), 409, "session_not_live")
