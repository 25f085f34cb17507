"""What is made under an idempotency key is made once, with its secret; and kept for a day."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest

from engine.ledger.once import KEPT_MS, forget_answers
from tests.rest.served import SESSIONS, Served, refused

INTENTS = "/api/v1/payment-intents"
SESSION = {"agent_id": "bot", "user_wallet": "wallet", "limits": {"max_per_day": 100}}
MADE: dict[str, tuple[dict[str, Any], str, str]] = {
    SESSIONS: (SESSION, "session_token", "agent_name"),
    INTENTS: ({"amount": "12.50"}, "client_secret", "description"),
    "/api/v1/agent-keys": ({"name": "crawler", "agent_id": "bot"}, "full_key", "agent_name"),
    "/api/v1/api-keys": ({"name": "Ada"}, "full_key", "name"),
    "/api/v1/webhooks": ({"url": "https://hooks.test/", "events": ["*"]}, "secret", "description"),
}
"""What is made at a path: from which body, what its secret is called, and one more field."""


def ask(api: Served, path: str, body: Any, under: str, **how: Any) -> httpx.Response:
    return api.post(path, body, headers={"Idempotency-Key": under}, **how)


def kept(api: Served) -> int:
    with closing(sqlite3.connect(api.world.store)) as raw:
        found: int = raw.execute("SELECT count(*) FROM idempotency_keys").fetchone()[0]
        return found


@pytest.mark.parametrize("path", MADE)
def test_the_same_request_is_answered_again_with_its_secret(api: Served, path: str) -> None:
    body, secret, _ = MADE[path]
    first = ask(api, path, body, f"first{path}")
    before = api.records()
    again = ask(api, path, body, f"first{path}")
    assert (first.status_code, again.status_code) == (201, 201)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    told, found = first.json(), again.json()
    assert found[secret] == told[secret]
    assert found == told
    assert api.records() == before
    other = ask(api, path, body, f"second{path}").json()
    assert other["id"] != told["id"]
    assert other[secret] != told[secret]
    assert api.post(path, body).json()["id"] not in (told["id"], other["id"])


@pytest.mark.parametrize("path", MADE)
def test_another_request_under_the_key_hears_which_field_differs(api: Served, path: str) -> None:
    body, _, field = MADE[path]
    ask(api, path, body, f"mine{path}")
    before = api.records()
    refused(
        ask(api, path, body | {field: "other"}, f"mine{path}"), 409, "idempotency_key_reused", field
    )
    elsewhere = next(each for each in MADE if each != path)
    answer = ask(api, elsewhere, MADE[elsewhere][0], f"mine{path}")
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")
    assert api.records() == before


def test_the_same_in_other_words_is_the_same_request(api: Served) -> None:
    limits = {"max_per_day": "100.00", "max_per_transaction": 1000}
    first = ask(api, SESSIONS, SESSION, "words").json()
    again = ask(api, SESSIONS, SESSION | {"limits": limits, "duration_hours": "24.0"}, "words")
    assert again.json()["session_token"] == first["session_token"]
    under = {"X-Idempotency-Key": "words"}
    assert api.post("/api/v1/sessions", SESSION, headers=under).json()["id"] == first["id"]


def test_the_answer_is_of_what_it_is_by_now(api: Served) -> None:
    first = ask(api, SESSIONS, SESSION, "paid").json()
    api.hold(first["session_token"], 30)
    assert ask(api, SESSIONS, SESSION, "paid").json()["remaining_today"] == 70
    api.post(f"{SESSIONS}/{first['id']}/revoke")
    again = ask(api, SESSIONS, SESSION, "paid").json()
    assert (again["id"], again["status"]) == (first["id"], "revoked")


def test_a_key_belongs_to_its_caller(api: Served, tenant: Served) -> None:
    parent = tenant.session()
    child = {"agent_id": "bot", "duration_hours": 1}
    path = f"{SESSIONS}/{parent['id']}/children"
    by_holder = ask(tenant, path, child, "shared", key=None, token=parent["session_token"])
    made = {
        ask(api, SESSIONS, SESSION, "shared").json()["id"],
        ask(tenant, SESSIONS, SESSION, "shared").json()["id"],
        by_holder.json()["id"],
    }
    assert len(made) == 3
    again = ask(tenant, path, child, "shared", key=None, token=parent["session_token"])
    assert again.json()["session_token"] == by_holder.json()["session_token"]
    sibling = f"{SESSIONS}/{tenant.session()['id']}/children"
    refused(ask(tenant, sibling, child, "shared"), 409, "idempotency_key_reused", "path")


def test_a_secret_is_rotated_once_under_a_key(tenant: Served) -> None:
    webhook = tenant.post("/api/v1/webhooks", {"url": "https://hooks.test/", "events": ["*"]})
    path = f"/api/v1/webhooks/{webhook.json()['id']}/rotate-secret"
    headers = {"Idempotency-Key": "rotated"}
    first, again = (tenant.post(path, headers=headers) for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert tenant.post(path).json()["secret"] != first.json()["secret"]


def test_what_was_refused_is_not_kept(tenant: Served) -> None:
    wrong = SESSION | {"allowed_tokens": ["NONE"]}
    assert ask(tenant, SESSIONS, wrong, "again").status_code == 422
    assert ask(tenant, SESSIONS, SESSION, "again").status_code == 201


def test_many_at_once_make_one(tenant: Served) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = [*pool.map(lambda _: ask(tenant, SESSIONS, SESSION, "one"), range(16))]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["session_token"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 15
    assert tenant.get(SESSIONS).headers["X-Total-Count"] == "1"


def test_no_key_is_no_key_and_a_bad_one_is_refused(api: Served) -> None:
    before = kept(api)
    assert api.post(SESSIONS, SESSION).status_code == 201
    assert kept(api) == before
    refused(ask(api, SESSIONS, SESSION, "x" * 256), 422, "invalid_parameter", "Idempotency-Key")


def test_what_is_kept_is_sealed_restarts_remember_and_a_day_forgets(own_api: Served) -> None:
    first = ask(own_api, SESSIONS, SESSION, "kept").json()["session_token"]
    world = own_api.world
    with closing(sqlite3.connect(world.store)) as raw:
        [row] = raw.execute("SELECT * FROM idempotency_keys")
        assert first.encode() not in repr(row).encode()
        assert bytes.fromhex(first.removeprefix("zai_session_")) not in row[4]
    other = ask(own_api, SESSIONS, SESSION, "other").json()
    with closing(sqlite3.connect(world.store)) as raw, raw:
        raw.execute(
            "UPDATE idempotency_keys SET (made, sealed) = (SELECT made, sealed FROM "
            "idempotency_keys WHERE key = 'kept') WHERE key = 'other'"
        )
    refused(ask(own_api, SESSIONS, SESSION, "other"), 503, "service_unavailable")
    world.engine.writer.call(lambda batch: None)
    clock = world.engine.clock
    forget_answers(world.engine.writer)
    assert kept(own_api) == 2
    world.engine.writer._clock = lambda: clock() + KEPT_MS
    forget_answers(world.engine.writer)
    assert kept(own_api) == 0
    again = ask(own_api, SESSIONS, SESSION, "kept").json()
    assert again["session_token"] not in (first, other["session_token"])
