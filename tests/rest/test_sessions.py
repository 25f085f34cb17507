"""Sessions over HTTP: what clients read, defaults, lifetimes, consent, revocation, evidence."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

from engine.audit.consent import SIGNATURE_BYTES_MAX, passkey_owner
from engine.clock import ManualClock, system_clock
from engine.policy.limits import DAY_MS
from tests.contracts.passkey import Passkey
from tests.rest.hostile import NOT_AMOUNTS, ZEROS
from tests.rest.served import NO_LIMITS, SESSIONS, Served, refused

HOUR = timedelta(hours=1)
DEFAULTS = {
    "max_per_transaction": 1000,
    "max_per_day": 5000,
    "max_per_week": 20000,
    "max_per_month": 50000,
    "require_approval_above": 500,
}
AGENT_SESSION = {
    "id",
    "agent_id",
    "agent_name",
    "user_wallet",
    "limits",
    "is_active",
    "created_at",
    "expires_at",
    "remaining_today",
    "remaining_this_week",
    "remaining_this_month",
    "mint_pkp",
}
WALLET = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # the first example of EIP-55


def create(api: Served, **fields: Any) -> dict[str, Any]:
    """A session with nothing but what is required, and these fields."""
    answer = api.post(SESSIONS, {"agent_id": "bot", "user_wallet": "wallet"} | fields)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def time_of(session: dict[str, Any], name: str) -> datetime:
    """A time as the answer has it: ISO 8601, in UTC, to the millisecond."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", session[name])
    return datetime.fromisoformat(session[name])


def test_a_session_has_every_field_that_agent_session_clients_read(api: Served) -> None:
    before = system_clock()
    session = create(api, agent_name="Bot", metadata={"a": [1, 0.5, None, "é"]}, label="daily")
    assert session.keys() >= AGENT_SESSION | {"session_token", "token"}
    expected = {
        "agent_id": "bot",
        "agent_name": "Bot",
        "user_wallet": "wallet",
        "limits": DEFAULTS,
        "is_active": True,
        "remaining_today": 5000,
        "remaining_this_week": 20000,
        "remaining_this_month": 50000,
        "mint_pkp": False,
        "metadata": {"a": [1, 0.5, None, "é"]},
        "label": "daily",
    }
    assert {name: session[name] for name in expected} == expected
    assert re.fullmatch("zai_session_[0-9a-f]{64}", session["session_token"])
    assert session["token"] == session["session_token"]
    assert "pkp_address" not in session
    created_ms = time_of(session, "created_at").timestamp() * 1000
    assert before - 1 <= created_ms <= system_clock() + 1
    time_of(session, "expires_at")


def test_the_token_is_in_the_creating_answer_and_in_no_other(api: Served) -> None:
    session = create(api)
    shown = {name: session[name] for name in session if name not in ("session_token", "token")}
    one = api.get(f"{SESSIONS}/{session['id']}").json()
    listed = [s for s in api.get(SESSIONS).json() if s["id"] == session["id"]]
    assert one == shown
    assert listed == [shown]


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ({}, DEFAULTS),
        ({"limits": {}}, DEFAULTS),
        ({"limits": {"max_per_day": 200}}, DEFAULTS | {"max_per_day": 200}),
        ({"limits": {"max_per_week": "19.999999"}}, DEFAULTS | {"max_per_week": 19.999999}),
        ({"limits": {"max_per_month": None}}, DEFAULTS | {"max_per_month": None}),
        ({"limits": NO_LIMITS}, NO_LIMITS),
        ({"limits": dict.fromkeys(DEFAULTS, 0)}, dict.fromkeys(DEFAULTS, 0)),
        ({"limits": dict.fromkeys(DEFAULTS, "0.00")}, dict.fromkeys(DEFAULTS, 0)),
        ({"limits": dict.fromkeys(DEFAULTS, 0.0)}, dict.fromkeys(DEFAULTS, 0)),
    ],
    ids=("absent", "empty", "one", "text", "one null", "nulls", "zeros", "zero text", "0.0"),
)
def test_a_limit_left_out_is_the_default_and_null_is_unlimited(
    api: Served, sent: dict[str, Any], got: dict[str, Any]
) -> None:
    session = create(api, **sent)
    assert session["limits"] == got
    assert session["remaining_today"] == got["max_per_day"]
    assert session["remaining_this_week"] == got["max_per_week"]
    assert session["remaining_this_month"] == got["max_per_month"]


def test_the_defaults_are_what_is_enforced(api: Served) -> None:
    token = create(api)["session_token"]
    assert api.pay(token, 500).status_code == 201
    assert api.pay(token, 500.000001).json()["code"] == "APPROVAL_REQUIRED"
    assert api.pay(token, 1000.000001).json()["decision"]["rule"] == "per_transaction"


@pytest.mark.parametrize(
    ("sent", "lasts"),
    [
        ({}, 24 * HOUR),
        ({"duration_hours": 1}, HOUR),
        ({"duration_hours": 168}, 168 * HOUR),
        ({"duration_hours": "168"}, 168 * HOUR),
        ({"duration_hours": 0.5}, HOUR / 2),
        ({"duration_hours": 168.0}, 168 * HOUR),
    ],
    ids=("default", "hour", "most", "text", "half", "fraction of zero"),
)
def test_a_session_lasts_as_long_as_was_asked(
    api: Served, sent: dict[str, Any], lasts: timedelta
) -> None:
    session = create(api, **sent)
    over = time_of(session, "expires_at") - time_of(session, "created_at") - lasts
    assert timedelta(0) <= over < timedelta(seconds=1)  # up to a whole second, as the chain has it


NOT_HOURS = {
    **{name: raw for name, raw in NOT_AMOUNTS.items() if "seven decimals" not in name},
    **ZEROS,
    "null": "null",
    "one more": "169",
    "a bit more": "168.000001",
    "no whole millisecond": "0.0000001",
}


@pytest.mark.parametrize("spelling", NOT_HOURS)
def test_any_other_duration_is_refused_by_name(api: Served, spelling: str) -> None:
    before = api.records()
    raw = f'{{"agent_id":"bot","user_wallet":"wallet","duration_hours":{NOT_HOURS[spelling]}}}'
    refused(api.post(SESSIONS, raw=raw), 422, "invalid_parameter", "duration_hours")
    assert api.records() == before


@pytest.mark.parametrize(
    "wallet",
    [WALLET, WALLET.lower(), "0x" + WALLET[2:].upper(), "0X" + WALLET[2:].upper(), "Hx7...sol"],
)
def test_a_wallet_is_kept_as_it_was_written(api: Served, wallet: str) -> None:
    assert create(api, user_wallet=wallet)["user_wallet"] == wallet


@pytest.mark.parametrize(
    "wallet",
    ["", "0x", WALLET[:-1], WALLET + "0", "0x" + "g" * 40, WALLET.swapcase(), "0x" + "\uff10" * 40],
    ids=("empty", "prefix", "short", "long", "not hex", "checksum", "full width"),
)
def test_a_wallet_that_only_looks_like_an_address_is_refused(api: Served, wallet: str) -> None:
    answer = api.post(SESSIONS, {"agent_id": "bot", "user_wallet": wallet})
    refused(answer, 422, "invalid_parameter", "user_wallet")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agent_id", ""),
        ("agent_id", "two words"),
        ("agent_id", "ágent"),
        ("agent_id", "a" * 129),
        ("agent_id", ".."),
        ("allowed_merchants", []),
        ("allowed_merchants", ["books", " books"]),
        ("allowed_merchants", ["bo\u200boks"]),
        ("allowed_merchants", ["m"] * 101),
        ("allowed_tokens", ["DOGE"]),
        ("allowed_tokens", ["eip155:1/erc20:0x12"]),
        ("allowed_chains", ["eip155:01"]),
        ("allowed_chains", ["base"]),
        ("permissions", ["Pay"]),
        ("type", "human"),
        ("limits", None),
        ("metadata", {"text": "é" * 8192}),
        ("metadata", ["a"]),
    ],
)
def test_a_field_that_means_nothing_is_refused_by_name(api: Served, field: str, value: Any) -> None:
    answer = api.post(SESSIONS, {"agent_id": "bot", "user_wallet": "wallet", field: value})
    assert answer.status_code == 422
    assert answer.json()["details"]["field"].split(".")[0] == field


def test_metadata_may_be_as_large_as_it_says(api: Served) -> None:
    metadata = {"text": "é" * ((16_384 - len('{"text": ""}')) // 2)}
    assert create(api, metadata=metadata)["metadata"] == metadata


def test_the_list_has_the_newest_first_and_those_that_ended(tenant: Served) -> None:
    first, second = create(tenant), create(tenant)
    tenant.post(f"{SESSIONS}/{first['id']}/revoke")
    listed = tenant.get(SESSIONS).json()
    assert [s["id"] for s in listed] == [second["id"], first["id"]]
    assert [s["is_active"] for s in listed] == [True, False]
    assert [s["status"] for s in listed] == ["active", "revoked"]


def test_both_roots_serve_the_same_sessions(api: Served) -> None:
    session = create(api)["id"]
    paths = [f"{root}/{session}" for root in (SESSIONS, "/api/v1/sessions")]
    one, other = (api.get(path).json() for path in paths)
    assert one == other


@pytest.mark.parametrize("how", [{}, {"body": {}}, {"raw": ""}, {"raw": "not json"}])
def test_revoking_answers_success_is_at_once_and_for_good(api: Served, how: dict[str, Any]) -> None:
    session = create(api)
    path = f"{SESSIONS}/{session['id']}"
    for _ in range(2):
        answer = api.post(f"{path}/revoke", **how)
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert api.pay(session["session_token"]).json()["code"] == "SESSION_REVOKED"
    shown = api.get(path).json()
    assert (shown["is_active"], shown["status"]) == (False, "revoked")
    assert time_of(shown, "ended_at") >= time_of(shown, "created_at")


def test_a_session_is_not_active_from_the_instant_it_expires(tmp_path: Any) -> None:
    clock = ManualClock(system_clock() // 1000 * 1000)
    with Served(tmp_path / "data", clock=clock) as api:
        session = create(api, duration_hours=24)
        clock.advance(DAY_MS - 1)
        assert api.get(f"{SESSIONS}/{session['id']}").json()["is_active"] is True
        clock.advance(1)
        assert api.get(f"{SESSIONS}/{session['id']}").json()["is_active"] is False


def awaiting(api: Served, **fields: Any) -> dict[str, Any]:
    """A session that waits for the world's owner to sign."""
    wallet = api.world.owner.address
    return create(api, user_wallet=wallet, mint_pkp=True, await_consent=True, **fields)


def sign(owner: Any, session: dict[str, Any]) -> dict[str, str]:
    """What a wallet returns for the session's typed data."""
    signature = owner.sign_typed_data(full_message=session["typed_data"]).signature
    return {"owner_signature": "0x" + bytes(signature).hex()}


def test_the_owner_signs_what_the_answer_holds_and_the_session_gets_its_address(
    api: Served,
) -> None:
    session = awaiting(api, limits=NO_LIMITS)
    assert (session["is_active"], session["status"]) == (False, "awaiting_consent")
    path = f"{SESSIONS}/{session['id']}"
    assert api.get(path).json()["typed_data"] == session["typed_data"]
    signature = sign(api.world.owner, session)
    for _ in range(2):  # a client that did not hear the first answer asks again
        consented = api.post(f"{path}/consent", signature)
        assert consented.status_code == 200
    shown = api.get(path).json()
    assert consented.json() == shown
    assert (shown["is_active"], shown["consent"]) == (True, "eip712")
    assert re.fullmatch("0x[0-9a-f]{40}", shown["pkp_address"])
    assert shown["mint_pkp"] is True
    assert "typed_data" not in shown


def test_typed_data_holds_no_number_that_javascript_would_round(api: Served) -> None:
    def numbers(value: Any) -> list[int | float]:
        if isinstance(value, dict):
            return [n for item in value.values() for n in numbers(item)]
        if isinstance(value, list):
            return [n for item in value for n in numbers(item)]
        return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []

    session = awaiting(api, limits=NO_LIMITS)
    found = numbers(session["typed_data"])
    assert found
    assert [n for n in found if abs(n) >= 2**53] == []
    unlimited = session["typed_data"]["message"]["limits"]
    assert set(unlimited.values()) == {str(2**64 - 1)}


def test_only_the_owners_signature_is_consent(api: Served) -> None:
    session, other = awaiting(api), awaiting(api)
    path = f"{SESSIONS}/{session['id']}/consent"
    stranger = sign(Account.create(), session)
    for body in (stranger, sign(api.world.owner, other), {"owner_signature": "0x" + "00" * 65}):
        refused(api.post(path, body), 422, "invalid_parameter", "owner_signature")
    for malformed in ("0x", "0x" + "1" * 129, "1" * 130, "0x" + "g" * 130):
        answer = api.post(path, {"owner_signature": malformed})
        refused(answer, 422, "invalid_parameter", "owner_signature")
    assert api.get(path.removesuffix("/consent")).json()["status"] == "awaiting_consent"


def test_an_owner_without_a_wallet_consents_with_a_passkey(api: Served) -> None:
    passkey = Passkey(0x9A55)
    owner = passkey_owner(passkey.x.to_bytes(32), passkey.y.to_bytes(32))
    session = create(api, user_wallet=owner, mint_pkp=True, await_consent=True)
    message = encode_typed_data(full_message=session["typed_data"])
    digest = keccak(b"\x19" + message.version + message.header + message.body)
    body = {"consent": "passkey", "owner_signature": "0x" + passkey.sign(digest).hex()}
    path = f"{SESSIONS}/{session['id']}/consent"
    other = body | {"owner_signature": "0x" + passkey.sign(bytes(32)).hex()}
    refused(api.post(path, other), 422, "invalid_parameter", "owner_signature")
    by_wallet = body | {"consent": "eip712"}
    refused(api.post(path, by_wallet), 422, "invalid_parameter", "owner_signature")
    for _ in range(2):
        assert api.post(path, body).json()["consent"] == "passkey"
    assert api.get(path.removesuffix("/consent")).json()["is_active"] is True


def test_a_kind_of_consent_that_is_none_is_refused(api: Served) -> None:
    session = awaiting(api)
    path = f"{SESSIONS}/{session['id']}/consent"
    for kind in ("none", "delegated", "EIP712", None, 1):
        body = sign(api.world.owner, session) | {"consent": kind}
        refused(api.post(path, body), 422, "invalid_parameter", "consent")
    too_long = {"consent": "erc1271", "owner_signature": "0x" + "00" * (SIGNATURE_BYTES_MAX + 1)}
    refused(api.post(path, too_long), 422, "invalid_parameter", "owner_signature")


def test_consent_that_nobody_waits_for_is_a_conflict(api: Served) -> None:
    session = awaiting(api)
    api.post(f"{SESSIONS}/{session['id']}/revoke")
    answer = api.post(f"{SESSIONS}/{session['id']}/consent", sign(api.world.owner, session))
    refused(answer, 409, "consent_not_awaited")


def test_consent_needs_an_owner_who_can_sign(api: Served) -> None:
    body = {"agent_id": "bot", "user_wallet": "wallet", "await_consent": True}
    refused(api.post(SESSIONS, body), 422, "invalid_parameter", "user_wallet")


def test_evidence_is_the_engines_bytes_as_a_download(own_api: Served) -> None:
    session = awaiting(own_api)
    own_api.post(f"{SESSIONS}/{session['id']}/consent", sign(own_api.world.owner, session))
    own_api.pay(session["session_token"])
    assert own_api.post("/api/v1/log/anchor").json()["anchor"]["state"] == "final"
    clock = ManualClock(system_clock())
    own_api.world.engine.clock = clock  # the time of making is inside the signed bytes
    answer = own_api.get(f"{SESSIONS}/{session['id']}/evidence")
    assert answer.content == own_api.world.engine.evidence("default", session["id"])
    assert answer.headers["Content-Type"] == "application/json"
    name = f"evidence-{session['id']}.json"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'


def test_evidence_without_what_is_withheld(own_api: Served) -> None:
    session = awaiting(own_api)
    own_api.post(f"{SESSIONS}/{session['id']}/consent", sign(own_api.world.owner, session))
    own_api.world.engine.clock = ManualClock(system_clock())
    path = f"{SESSIONS}/{session['id']}/evidence"
    withheld = ("label", "merchant")
    answer = own_api.get(f"{path}?withhold=merchant&withhold=label")
    made = own_api.world.engine.evidence("default", session["id"], withhold=withheld)
    assert answer.content == made
    assert answer.json()["withheld"] == list(withheld)
    for wrong in ("amount", "", "merchant,label"):
        refused(own_api.get(f"{path}?withhold={wrong}"), 422, "invalid_parameter", "withhold.0")


def test_a_session_without_an_on_chain_identity_has_no_evidence(api: Served) -> None:
    for session in (create(api), awaiting(api)):
        answer = api.get(f"{SESSIONS}/{session['id']}/evidence")
        refused(answer, 409, "session_not_registered")


def test_the_list_comes_in_pages_and_says_how_many_there_are(tenant: Served) -> None:
    ids = [create(tenant)["id"] for _ in range(5)][::-1]
    whole = tenant.get(SESSIONS)
    assert [session["id"] for session in whole.json()] == ids
    assert whole.headers["X-Total-Count"] == "5"
    pages = [tenant.get(f"{SESSIONS}?page={page}&limit=2") for page in (1, 2, 3, 4)]
    assert [[session["id"] for session in page.json()] for page in pages] == [
        ids[:2],
        ids[2:4],
        ids[4:],
        [],
    ]
    assert {page.headers["X-Total-Count"] for page in pages} == {"5"}
    for query, field in (("page=0", "page"), ("limit=1001", "limit"), ("colour=x", "colour")):
        refused(tenant.get(f"{SESSIONS}?{query}"), 422, "invalid_parameter", field)


def test_a_payment_says_of_which_type_and_label_its_session_is(tenant: Served) -> None:
    session = create(tenant, type="app", label="groceries")
    held = tenant.hold(session["session_token"])
    listed = tenant.get("/api/v1/payments").json()["data"]
    for payment in (held, *listed, tenant.get(f"/api/v1/payments/{held['id']}").json()):
        assert (payment["session_type"], payment["session_label"]) == ("app", "groceries")


def test_to_revoke_never_waits_behind_those_who_wait_for_the_chain(
    own_api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More creates than any pool has threads wait for a registration that does not come."""
    victim = create(own_api)
    chain = own_api.world.engine.gateway
    monkeypatch.setattr(chain, "send_raw", lambda raw: bytes(32))
    own_api.world.engine.start()
    waiting = 60
    with ThreadPoolExecutor(waiting) as pool:
        body = {"agent_id": "bot", "user_wallet": "wallet", "mint_pkp": True}
        asked = [
            pool.submit(httpx.post, own_api.url + SESSIONS, json=body, timeout=60, headers=bearer)
            for bearer in [{"Authorization": f"Bearer {own_api.key}"}] * waiting
        ]
        while len(own_api.get(SESSIONS).json()) < 50:
            time.sleep(0.05)
        answer = own_api.post(f"{SESSIONS}/{victim['id']}/revoke")
        assert answer.json() == {"success": True}
        assert sum(future.done() for future in asked) < waiting, "they still wait"
        monkeypatch.undo()
    assert {future.result().status_code for future in asked} == {201}
