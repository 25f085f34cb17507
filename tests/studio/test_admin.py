"""Agents, keys, webhooks and people, as those who administer them do it in pages."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_network
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from api.studio import passkeys
from api.studio.challenges import Challenge
from engine.errors import Conflict, NotFound, Unauthenticated
from engine.workspaces.people import MAY, Person
from tests.studio.conftest import Opened
from tests.studio.visitor import Visitor
from tests.world import WORKSPACE


def csrf(visitor: Visitor) -> dict[str, str]:
    return {"csrf": visitor.form("/studio/", "/studio/sign-out").fields["csrf"]}


def acts(studio: Opened, kind: str) -> list[Any]:
    """What is on the record of that kind, the newest first."""
    found, _ = studio.world.engine.acts.page(
        WORKSPACE, actor=None, kinds=[kind], from_ms=None, until_ms=None, offset=0, limit=50
    )
    return found


def test_an_agent_is_registered_and_its_key_made_by_passkey_shown_once_and_revoked(
    studio: Opened,
) -> None:
    visitor, mine = studio.visitor("operator"), studio.passkeys["operator"]
    named = {**csrf(visitor), "agent_id": "crawler-7", "name": "The crawler"}
    assert visitor.ask("POST", "/studio/agents", data=named).status_code == 303
    page = "/studio/agents/new-key?name=night&agent_id=crawler-7&days=7&networks=192.0.2.0/24"
    page += "&scope:read_only=on&rate_limit_per_hour=50"
    form = visitor.form(page, "/studio/agents/new-key")
    answer = json.dumps(mine.get(form.options["challenge"]))
    assert visitor.send(form, scopes="full", answer=answer).status_code == 401  # it was for less
    done = visitor.answer(form, mine)
    secret = re.search(r"zai_test_[0-9a-f]{64}", done.text)
    assert (done.status_code, secret is None) == (200, False)
    told = visitor.get("/studio/agents.json").json()
    key = told["agent_keys"][0]
    assert (key["name"], key["scopes"], key["rate_limit_per_hour"], key["ip_allowlist"]) == (
        *("night", ["read_only"], 50),
        ["192.0.2.0/24"],
    )
    assert secret is not None
    assert secret[0] not in visitor.get("/studio/agents").text
    path = f"/studio/agents/keys/{key['id']}/revoke"
    assert visitor.ask("POST", path, data=csrf(visitor)).status_code == 303
    assert visitor.get("/studio/agents.json").json()["agent_keys"][0]["is_active"] is False


def test_an_admin_revokes_the_keys_of_operators_but_no_admin_s_and_no_person(
    studio: Opened,
) -> None:
    engine, visitor = studio.world.engine, studio.visitor("admin")
    admin = engine.access.operator(str(studio.world.operator_key))
    key, secret = engine.keys.operators.create(admin, "Ada", live=False)
    for key_id, status in (
        (key.id, 303),
        (admin.key_id, 409),
        (studio.persons["viewer"].key_id, 404),
        ("key_nobody", 404),
    ):
        path = f"/studio/operators/{key_id}/revoke"
        assert visitor.ask("POST", path, data=csrf(visitor)).status_code == status, key_id
    with pytest.raises(Unauthenticated):
        engine.access.operator(secret)


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Take it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_a_webhook_is_made_by_passkey_tried_stopped_and_deleted(
    studio: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, visitor, mine = (
        studio.world.engine,
        studio.visitor("operator"),
        studio.passkeys["operator"],
    )
    monkeypatch.setattr(engine.webhooks.egress, "allowed", (ip_network("127.0.0.0/8"),))
    with HTTPServer(("127.0.0.1", 0), _Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/in"
        form = visitor.form(
            f"/studio/webhooks/new?url={url}&description=Ops&event:payment.created=on",
            "/studio/webhooks/new",
        )
        signed = json.dumps(mine.get(form.options["challenge"]))
        elsewhere = visitor.send(form, answer=signed, url="https://evil.test/")
        assert elsewhere.status_code == 401
        done = visitor.answer(form, mine)
        assert re.search(r"whsec_[A-Za-z0-9+/=]+", done.text)
        told = visitor.get("/studio/webhooks.json").json()["webhooks"]
        made = next(each for each in told if each["description"] == "Ops")
        assert (made["url"], made["events"], made["active"]) == (url, ["payment.created"], True)
        place = f"/studio/webhooks/{made['id']}"

        def send(what: str, **fields: str) -> Any:
            return visitor.ask("POST", f"{place}/{what}", data={**csrf(visitor), **fields})

        assert "It arrived" in send("test", event="payment.created").text
        server.shutdown()
    assert "It did not arrive" in send("test", event="payment.created").text
    attempts = visitor.get(f"{place}.json").json()["attempts"]
    assert [each["success"] for each in attempts] == [False, True]
    assert send("test", event="nothing").status_code == 422
    assert send("replay", since="yesterday").status_code == 422
    assert send("replay", since="2026-01-31T09:00").status_code == 303
    assert engine.webhooks.get(WORKSPACE, made["id"]).next_place == 0
    send("switch", active="no")
    assert visitor.get(f"{place}.json").json()["webhook"]["active"] is False
    rotated = visitor.answer(visitor.form(place, f"{place}/rotate"), mine)
    assert re.search(r"whsec_[A-Za-z0-9+/=]+", rotated.text)
    assert send("delete").status_code == 303
    assert visitor.get(place).status_code == 404


def test_people_are_revoked_at_once_and_the_last_admin_never_is(studio: Opened) -> None:
    people, first = studio.people, studio.persons["admin"]
    visitor = studio.visitor("admin")
    studio.join("admin", people.invite(first, "admin", "Second"), "second")
    second, other = studio.persons["second"], studio.visitor("second")
    assert other.get("/studio/people").status_code == 200
    invited = people.in_setup(people.invite(first, "admin", "Third"), studio.clock())

    def revoke(key_id: str) -> int:
        path = f"/studio/people/{key_id}/revoke"
        return visitor.ask("POST", path, data=csrf(visitor)).status_code

    for _ in range(2):
        assert revoke(second.key_id) == 303
    assert other.get("/studio/people").status_code == 303  # signed out
    form = other.form("/studio/sign-in", "/studio/sign-in")
    assert other.answer(form, studio.passkeys["second"]).status_code == 401
    assert revoke(first.key_id) == 409  # the third has no passkey yet
    assert visitor.get("/studio/people").status_code == 200
    assert revoke(invited.key_id) == 303
    assert revoke("key_nobody") == 404
    foreign = Person("elsewhere", "key_x", "admin", "Foreign")
    with pytest.raises(NotFound):
        people.revoke(foreign, first.key_id)
    with pytest.raises(Conflict):
        people.revoke(second, first.key_id)


def test_who_is_invited_is_what_may_least_unless_more_is_chosen(studio: Opened) -> None:
    page = studio.visitor("admin").get("/studio/people").text
    assert re.findall(r"<option selected>(\w+)</option>", page) == ["viewer"]
    assert all(MAY["viewer"] < may for role, may in MAY.items() if role != "viewer")


def test_what_a_passkey_consented_to_is_on_the_record_and_can_be_checked(studio: Opened) -> None:
    visitor, mine = studio.visitor("admin"), studio.passkeys["admin"]
    form = visitor.form("/studio/people?name=Hal&role=viewer", "/studio/people")
    assert visitor.answer(form, mine).status_code == 200
    told = acts(studio, "passkey.answered")[0].told
    assert told["asked"]["act"] == {"act": "invite", "role": "viewer", "name": "Hal"}
    assert told["by"] == studio.persons["admin"].key_id
    challenge = Challenge(**told["asked"]).raw
    client = json.loads(told["client_data"])
    assert client["challenge"] == passkeys.encoded(challenge)
    x, y = passkeys.point(bytes.fromhex(told["public_key"]))
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
    signed = bytes.fromhex(told["authenticator_data"])
    signed += hashlib.sha256(told["client_data"].encode()).digest()
    numbers.public_key().verify(bytes.fromhex(told["signature"]), signed, ec.ECDSA(SHA256()))
