"""Several sessions in one program, and a wallet that always has one."""

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tallystick import ApiError, Client, SessionManager, SessionNotActive, Wallet
from tallystick.configurations import ConfigurationError, fields_of
from tests.client.conftest import WALLET
from tests.rest.served import Served


def opened(sessions: SessionManager, **fields: Any) -> str:
    created = sessions.create(**({"agent_id": "bot", "user_wallet": WALLET} | fields))
    return created["id"]


def test_the_selected_one_pays_unless_another_is_named(client: Client) -> None:
    sessions = SessionManager(client)
    with pytest.raises(SessionNotActive):
        sessions.pay(1)
    first, second = opened(sessions, label="a"), opened(sessions, label="b")
    assert sessions.held == [first, second]
    assert sessions.pay(1)["session_id"] == first
    assert sessions.pay(1, session=second)["session_id"] == second
    sessions.select(second)
    assert sessions.pay(1)["session_id"] == second
    with pytest.raises(SessionNotActive):
        sessions.select("sess_unknown")
    assert [each["id"] for each in sessions.list(label="b")] == [second]
    sessions.revoke(second)
    assert sessions.statuses() == {first: "active", second: "revoked"}
    with pytest.raises(ApiError) as ended:
        sessions.pay(1)
    assert ended.value.code == "SESSION_REVOKED"
    assert sessions.pay(1, session=first)["session_id"] == first


def test_a_restart_restores_what_was_kept_and_nothing_else(client: Client) -> None:
    before = SessionManager(client)
    first, second = opened(before, label="a"), opened(before, label="b")
    kept = json.loads(json.dumps(before.export(second)))
    after = SessionManager(client)
    assert after.load(kept)["label"] == "b"
    assert after.pay(1)["session_id"] == second
    with pytest.raises(ValueError, match=f"is that of {second}, not of {first}"):
        after.restore(first, kept["session_token"])
    with pytest.raises(ApiError) as unknown:
        after.restore(second, "zai_session_" + "0" * 64)
    assert unknown.value.status == 401
    assert after.held == [second]
    for wrong in ({}, kept | {"version": 2}, kept | {"session_token": 1}, kept | {"session": []}):
        with pytest.raises(ConfigurationError):
            after.load(wrong)


def test_a_successor_is_like_its_predecessor(client: Client) -> None:
    sessions = SessionManager(client)
    fields: dict[str, Any] = {
        "agent_name": "Bot",
        "label": "checkout",
        "limits": {"max_per_day": "12.5", "max_per_week": None, "require_approval_above": 0},
        "allowed_merchants": ["books"],
        "allowed_tokens": ["USDC"],
        "permissions": ["pay"],
        "conditions": ["at most 10 payments per hour"],
        "duration_hours": "1.5",
        "approvals_required": 2,
        "metadata": {"a": [1]},
    }
    old = client.session(opened(sessions, **fields))
    client.restrict_session(old["id"], ["never merchant casino"])
    new = client.session(sessions.rotate()["id"])
    assert fields_of(new) == fields_of(old)
    assert new["restrictions"] == ["never merchant casino"]
    assert client.session(old["id"])["status"] == "revoked"
    changed = sessions.rotate(label="other", limits={"max_per_day": 1})
    assert (changed["label"], changed["limits"]["max_per_day"]) == ("other", 1)
    assert sessions.selected == changed["id"]


def test_no_payment_fails_while_sessions_are_rotated(client: Client) -> None:
    sessions = SessionManager(client)
    rotated, paid, stop = [opened(sessions)], list[str](), threading.Event()
    each_pays = 6

    def shop() -> int:
        made = 0
        while not stop.is_set():
            paid.append(sessions.pay(1, merchant="books")["session_id"])
            made += 1
        return made

    def some_are_paid() -> None:
        while paid.count(rotated[-1]) < each_pays and not any(s.done() for s in shoppers):
            time.sleep(0.005)

    with ThreadPoolExecutor(3) as pool:
        shoppers = [pool.submit(shop) for _ in range(3)]
        try:
            for _ in range(3):
                some_are_paid()
                rotated.append(sessions.rotate()["id"])
            some_are_paid()
        finally:
            stop.set()
        made = sum(shopper.result() for shopper in shoppers)  # raises what any of them was refused
    captured = Counter(
        each["session_id"] for each in client.each_payment() if each["state"] == "captured"
    )
    assert captured == Counter(paid)
    assert captured.total() == made
    assert all(captured[each] >= each_pays for each in rotated)
    assert sessions.statuses() == {
        **dict.fromkeys(rotated[:-1], "revoked"),
        rotated[-1]: "active",
    }


def test_a_child_is_rotated_beneath_its_parent(client: Client) -> None:
    parent = client.create_session(agent_id="bot", user_wallet=WALLET, duration_hours=24)
    child = client.create_child(
        parent["id"], agent_id="bot", limits={"max_per_day": 5}, duration_hours=1
    )
    sessions = SessionManager(client)
    sessions.restore(child["id"], child["session_token"])
    new = sessions.rotate()
    assert (new["parent_id"], new["limits"]["max_per_day"]) == (parent["id"], 5)


def test_a_successor_that_is_not_active_does_not_take_over(client: Client) -> None:
    sessions = SessionManager(client)
    old = opened(sessions)
    owner = "0x" + "22" * 20
    with pytest.raises(SessionNotActive, match="awaiting_consent"):
        sessions.rotate(user_wallet=owner, await_consent=True, wait_s=0)
    assert sessions.selected == old
    assert sessions.pay(1)["session_id"] == old


def test_a_key_whose_answer_was_lost_stays_with_its_session(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = SessionManager(client)
    old = opened(sessions)
    real = client.pay

    def lost(*amount: Any, **how: Any) -> Any:
        real(*amount, **how)
        raise ApiError(0, "no_answer", "lost", {})

    monkeypatch.setattr(client, "pay", lost)
    with pytest.raises(ApiError):
        sessions.pay(5, idempotency_key="one")
    monkeypatch.undo()
    sessions.rotate()
    again = sessions.pay(5, idempotency_key="one")
    assert (again["session_id"], again["state"]) == (old, "captured")
    assert len([*client.each_payment()]) == 1


def test_many_are_revoked_by_what_they_have_in_common(client: Client) -> None:
    sessions = SessionManager(client)
    daily = [opened(sessions, label="daily") for _ in range(3)]
    other = opened(sessions, label="weekly")
    assert sorted(sessions.revoke_many(label="daily")) == sorted(daily)
    assert sessions.revoke_many(label="daily") == []
    assert sessions.statuses(status="active") == {other: "active"}


def test_a_wallet_has_an_active_session_and_opens_a_fresh_one_after_a_revocation(
    tenant: Served, client: Client
) -> None:
    wallet = Wallet(client, agent_id="shopper", user_wallet=WALLET, limits={"max_per_day": 10})
    first = wallet.init()
    assert wallet.init()["id"] == first["id"]
    assert wallet.pay(4)["remaining_today"] == 6
    wallet.revoke_session()
    second = wallet.init()
    assert second["id"] != first["id"]
    assert wallet.pay(4)["remaining_today"] == 6
    client.create_session(agent_id="another", user_wallet=WALLET)
    assert [each["id"] for each in wallet.list_sessions()] == [second["id"], first["id"]]
    assert wallet.get_session_statuses() == {first["id"]: "revoked", second["id"]: "active"}
    with wallet.open_client() as agent:
        assert agent.session("self")["id"] == second["id"]
    moved = Wallet.from_configuration(client, json.loads(json.dumps(wallet.export())))
    assert moved.init()["id"] == second["id"]
    assert moved.pay(1)["remaining_today"] == 5
    moved.revoke_session()
    third = moved.init()
    assert third["id"] not in (first["id"], second["id"])
    assert fields_of(client.session(third["id"])) == fields_of(client.session(second["id"]))
