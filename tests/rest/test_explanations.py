"""Decisions explained and drafts tried over HTTP."""

import sqlite3
from contextlib import closing
from typing import Any

import httpx
import pytest

from engine.policy.rules import RULES
from tests.rest.served import NO_LIMITS, PAYMENTS, SESSIONS, Served, refused

DAY = NO_LIMITS | {"max_per_day": 100}


def explanation(api: Served, payment: dict[str, Any], **how: Any) -> dict[str, Any]:
    answer = api.get(f"{PAYMENTS}/{payment['id']}/explanation", **how)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def backtest(api: Served, session: dict[str, Any], draft: Any) -> httpx.Response:
    return api.post(f"{SESSIONS}/{session['id']}/backtest", draft)


def test_a_denied_payment_is_explained_with_every_rule_and_every_limit(api: Served) -> None:
    limits = DAY | {"require_approval_above": 50}
    session = api.session(limits=limits, conditions=["at most 2 payments per hour"])
    token = session["session_token"]
    api.hold(token, 40.5)
    denied = api.pay(token, "60").json()
    api.hold(token, 1)
    found = explanation(api, denied)
    assert found == explanation(api, denied, key=None, token=token)
    rules, limits = found.pop("rules"), found.pop("limits")
    assert found == {
        "payment_id": denied["id"],
        "session_id": session["id"],
        "created_at": denied["created_at"],
        "amount_usd": 60,
        "merchant_id": "books",
        "payment_token": denied["payment_token"],
        "matches": True,
        "differs": None,
        "recorded": denied["decision"],
        "decision": denied["decision"],
        "allowed_at": None,
    }
    assert [rule["rule"] for rule in rules] == [rule.name for rule in RULES]
    against = [rule["rule"] for rule in rules if not rule["passes"]]
    assert against == ["per_day", "approval_above"]
    left = [(each["name"], each["unit"], each["used"], each["remaining"]) for each in limits]
    assert left == [
        ("per_day", "USD", 40.5, 59.5),
        ("at most 2 payments per hour", "payments", 1, 1),
    ]


def test_an_allowed_payment_is_explained_and_what_became_of_it_does_not_matter(
    api: Served,
) -> None:
    held = api.hold(api.session(limits=DAY)["session_token"], 40)
    before = explanation(api, held)
    assert (before["matches"], before["allowed_at"]) == (True, held["created_at"])
    assert all(rule["passes"] for rule in before["rules"])
    assert api.post(f"{PAYMENTS}/{held['id']}/void").status_code == 200
    assert explanation(api, held) == before


def test_a_record_that_was_changed_is_told_and_loudly(own_api: Served) -> None:
    session = own_api.session(limits=DAY)
    denied = own_api.pay(session["session_token"], 101).json()
    path = own_api.world.settings.data_dir / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as database, database:
        changed = database.execute(
            "UPDATE records SET body = CAST(replace(CAST(body AS TEXT), ?, ?) AS BLOB) "
            "WHERE stream = ? AND seq = 1",
            ('"rule":"per_day"', '"rule":"all"', session["id"]),
        ).rowcount
    assert changed == 1
    found = explanation(own_api, denied)
    assert (found["matches"], found["recorded"]["rule"]) == (False, "all")
    assert found["decision"] == denied["decision"]
    assert "record 1 (payment.decided)" in found["differs"]
    answer = backtest(own_api, session, {})
    refused(answer, 503, "session_damaged")


def test_what_is_anothers_is_not_explained(api: Served) -> None:
    held = api.hold(api.session()["session_token"])
    other = api.session()["session_token"]
    path = f"{PAYMENTS}/{held['id']}/explanation"
    refused(api.get(path, key=None, token=other), 404, "payment_not_found")
    refused(api.get(f"{PAYMENTS}/{held['id']}9/explanation"), 404, "payment_not_found")
    refused(backtest(api, {"id": "default"}, {}), 404, "session_not_found")


@pytest.fixture(scope="module")
def told(api: Served) -> dict[str, Any]:
    """$100 a day: 40 spent, 30 of 50 captured, 35 denied, 10 to a casino."""
    session = api.session(limits=DAY)
    token = session["session_token"]
    at_once = {"capture_method": "automatic"}
    api.hold(token, 40, **at_once)
    held = api.hold(token, 50)
    body = {"amount": 30}
    assert api.post(f"{PAYMENTS}/{held['id']}/capture", body).status_code == 200
    denied = api.pay(token, 35).json()
    casino = api.hold(token, 10, merchant_id="casino", **at_once)
    return session | {"held": held, "denied": denied, "casino": casino}


def test_the_policy_in_force_differs_nowhere_however_it_is_drafted(
    api: Served, told: dict[str, Any]
) -> None:
    shown = api.get(f"{SESSIONS}/{told['id']}").json()
    names = ("limits", "allowed_merchants", "allowed_tokens", "allowed_chains", "permissions")
    whole = {name: shown[name] for name in (*names, "conditions", "restrictions")}
    for draft in ({}, {"limits": {}}, {"limits": {"max_per_day": "100.00"}}, whole):
        total = {"allowed": 3, "amount_usd": 80}
        assert backtest(api, told, draft).json() == {
            "session_id": told["id"],
            "decisions": 4,
            "recorded": total,
            "drafted": total,
            "budgets_above_unknown": False,
            "first_difference": None,
            "differences": [],
        }


def test_every_difference_is_named_and_the_first(api: Served, told: dict[str, Any]) -> None:
    found = backtest(api, told, {"limits": {"max_per_day": 80}}).json()
    over = {"code": "LIMIT_EXCEEDED", "rule": "per_day"}
    allowed = {"code": "ALLOWED", "rule": "all"}
    differences = [
        {
            "payment_id": payment["id"],
            "created_at": payment["created_at"],
            "amount_usd": payment["amount_usd"],
            "recorded": recorded,
            "drafted": drafted,
        }
        for payment, recorded, drafted in (
            (told["held"], allowed, over),
            (told["denied"], over, allowed),
            (told["casino"], allowed, over),
        )
    ]
    assert found["differences"] == differences
    assert found["first_difference"] == differences[0]
    assert found["recorded"] == {"allowed": 3, "amount_usd": 80}
    assert found["drafted"] == {"allowed": 2, "amount_usd": 75}
    assert found["budgets_above_unknown"]


def changed(rule: str) -> list[str]:
    """All four payments come out by this rule."""
    return [f"{recorded} {rule}" for recorded in ("all", "all", "per_day", "all")]


@pytest.mark.parametrize(
    ("draft", "rules"),
    [
        ({"limits": {"max_per_day": None}}, ["per_day all"]),
        ({"limits": {"max_per_transaction": 45}}, ["all per_transaction", "per_day all"]),
        ({"allowed_merchants": ["books"]}, ["all merchants"]),
        ({"conditions": ["never merchant casino"]}, ["all never_merchant"]),
        ({"restrictions": ["never merchant casino"]}, ["all never_merchant"]),
        ({"permissions": ["trade"]}, changed("permissions")),
        ({"allowed_tokens": ["USDC"], "allowed_merchants": None}, []),
        ({"allowed_chains": ["eip155:1"]}, changed("chains")),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_planted_edits_differ_where_they_were_planted(
    api: Served, told: dict[str, Any], draft: dict[str, Any], rules: list[str]
) -> None:
    found = backtest(api, told, draft).json()
    said = [
        f"{each['recorded']['rule']} {each['drafted']['rule']}" for each in found["differences"]
    ]
    assert said == rules


def test_a_draft_that_is_none_is_refused_by_its_field(api: Served, told: dict[str, Any]) -> None:
    for draft, field in (
        ({"limits": {"max_per_day": -1}}, "limits.max_per_day"),
        ({"limits": None}, "limits"),
        ({"allowed_tokens": ["DOGE"]}, "allowed_tokens"),
        ({"allowed_merchants": []}, "allowed_merchants"),
        ({"conditions": ["never merchant casino", "sometimes"]}, "conditions[1]"),
        ({"restrictions": ["sometimes"]}, "restrictions[0]"),
        ({"restrictions": ["never merchant API.shop.test"]}, "restrictions[0]"),
        ({"allowed_merchants": ["books", "API.shop.test"]}, "allowed_merchants[1]"),
        ({"conditions": None}, "conditions"),
        ({"duration_hours": 1}, "duration_hours"),
    ):
        refused(backtest(api, told, draft), 422, "invalid_parameter", field)
