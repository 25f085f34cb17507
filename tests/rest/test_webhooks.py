"""Webhooks over REST: made, changed, tried, listed; their secrets are shown once."""

import base64
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.clock import system_clock
from engine.webhooks.endpoints import ENDPOINTS_MAX
from tests.rest.bodies import WEBHOOKS
from tests.rest.served import APPROVALS, NO_LIMITS, Served, refused
from tests.webhooks.receiver import Receiver
from tests.world import begin

URL = "https://localhost/tallystick"  # which is refused when it is connected to


@pytest.fixture(scope="module")
def sending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One that may send to this machine."""
    directory = tmp_path_factory.mktemp("sending") / "data"
    begin(directory, system_clock)
    with Served(directory, webhook_networks="127.0.0.0/8") as served:
        yield served


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as opened:
        yield opened


def made(api: Served, url: str = URL, *events: str, **fields: Any) -> dict[str, Any]:
    answer = api.post(WEBHOOKS, {"url": url, "events": list(events or ("*",)), **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def listed(api: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(WEBHOOKS).json()
    return found


def test_it_is_made_listed_changed_and_deleted(tenant: Served) -> None:
    first = made(tenant, URL, "payment.confirmed", "approval.requested", description="Chat")
    second = made(tenant, URL, "*", "payment.created")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", first["secret"])
    assert first["secret"] != second["secret"]
    assert first["events"] == ["approval.requested", "payment.confirmed"]
    assert second["events"] == ["*"]
    shown = {name: value for name, value in first.items() if name != "secret"}
    assert listed(tenant) == [shown, {n: v for n, v in second.items() if n != "secret"}]
    assert (shown["active"], shown["waiting"], shown["last_success_at"]) == (True, 0, None)
    path = f"{WEBHOOKS}/{first['id']}"
    changed = tenant.call("PATCH", path, {"active": False, "events": ["*"]}, key=tenant.key)
    assert changed.json() == shown | {"active": False, "events": ["*"]}
    again = tenant.call("PATCH", path, {"description": None, "url": URL + "/2"}, key=tenant.key)
    assert again.json() == changed.json() | {"description": None, "url": URL + "/2"}
    before = tenant.records()
    assert tenant.call("PATCH", path, {}, key=tenant.key).json() == again.json()
    assert tenant.records() == before, "nothing was changed, so nothing is recorded"
    assert tenant.call("DELETE", path, key=tenant.key).json() == {"success": True}
    assert [each["id"] for each in listed(tenant)] == [second["id"]]
    refused(tenant.call("DELETE", path, key=tenant.key), 404, "webhook_not_found")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://2130706433/",
        "https://user:secret@hooks.example.org/",
        "https://hooks.example.org/#x",
        "ftp://hooks.example.org/",
        "hooks.example.org",
    ],
)
def test_a_url_that_nothing_is_sent_to_is_refused_by_name(tenant: Served, url: str) -> None:
    answer = tenant.post(WEBHOOKS, {"url": url, "events": ["*"]})
    refused(answer, 422, "invalid_parameter", "url")
    path = f"{WEBHOOKS}/{made(tenant)['id']}"
    refused(
        tenant.call("PATCH", path, {"url": url}, key=tenant.key), 422, "invalid_parameter", "url"
    )
    assert "secret" not in answer.text.replace("user:secret", "")


def test_an_event_that_does_not_exist_is_refused_by_name(tenant: Served) -> None:
    for events in (["payment.lost"], ["payment.*"], ["*", ""]):
        answer = tenant.post(WEBHOOKS, {"url": URL, "events": events})
        assert (answer.status_code, answer.json()["details"]["field"][:6]) == (422, "events")
    refused(tenant.post(WEBHOOKS, {"url": URL, "events": []}), 422, "invalid_parameter", "events")


def test_a_workspace_has_so_many(tenant: Served) -> None:
    for _ in range(ENDPOINTS_MAX):
        made(tenant)
    refused(tenant.post(WEBHOOKS, {"url": URL, "events": ["*"]}), 409, "too_many_webhooks")


def test_a_test_tells_the_status_and_nothing_of_the_body(
    sending: Served, receiver: Receiver
) -> None:
    webhook = made(sending, receiver.url)
    path = f"{WEBHOOKS}/{webhook['id']}"
    tried = sending.post(path + "/test", {"event": "approval.requested"}).json()
    assert (tried["success"], tried["status_code"], tried["error"]) == (True, 200, None)
    [received] = receiver.received
    assert received.event["data"] == {"test": True}
    assert received.event["id"] == tried["event_id"]
    receiver.answer = lambda _: (418, {"X-Told": "a secret of the receiver"})
    tried = sending.post(path + "/test", {"event": "payment.created"})
    assert (tried.json()["success"], tried.json()["status_code"]) == (False, 418)
    assert "a secret" not in tried.text
    logs = sending.get(path + "/logs").json()
    assert [(each["event"], each["status_code"], each["success"]) for each in logs["logs"]] == [
        ("payment.created", 418, False),
        ("approval.requested", 200, True),
    ]
    assert logs["pagination"]["total"] == 2
    assert len(sending.get(path + "/logs?limit=1&page=2").json()["logs"]) == 1


def test_an_approval_reaches_a_human_and_is_granted(sending: Served, receiver: Receiver) -> None:
    """What webhooks are for: it is told who waits, and answers by the id that it was told."""
    made(sending, receiver.url, "approval.requested", "approval.granted")
    session = sending.session(limits=NO_LIMITS | {"require_approval_above": 10})
    denied = sending.pay(session["session_token"], 25)
    assert denied.json()["code"] == "APPROVAL_REQUIRED"
    sending.world.engine.tick()
    [asked] = [each.event for each in receiver.received]
    assert (asked["event"], asked["data"]["session_id"]) == ("approval.requested", session["id"])
    granted = sending.post(f"{APPROVALS}/{asked['data']['approval_id']}/grant").json()
    assert granted["state"] == "granted"
    sending.world.engine.tick()
    assert receiver.names() == ["approval.requested", "approval.granted"]


def test_everything_since_a_time_is_sent_again(sending: Served, receiver: Receiver) -> None:
    webhook = made(sending, receiver.url, "agent.session.created")
    sending.session()
    sending.world.engine.tick()
    path = f"{WEBHOOKS}/{webhook['id']}/replay"
    for since in ("2026-01-31", "yesterday", "2026-13-01T00:00:00Z", "2026-01-31T09:00:00"):
        refused(sending.post(path, {"since": since}), 422, "invalid_parameter", "since")
    count = len(receiver.received)
    assert sending.post(path, {"since": "2000-01-01T01:00:00+01:00"}).json() == {"success": True}
    sending.world.engine.tick()
    again = receiver.ids()[count:]
    assert receiver.ids()[0] in again
    assert sending.get(WEBHOOKS).status_code == 200


def test_secrets_are_shown_once_and_kept_sealed(
    own_api: Served, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    webhook = made(own_api)
    path = f"{WEBHOOKS}/{webhook['id']}"
    rotated = own_api.post(path + "/rotate-secret").json()
    assert rotated["secret"] != webhook["secret"]
    own_api.post(path + "/test", {"event": "payment.created"})
    own_api.session()
    own_api.world.engine.tick()
    secrets = [webhook["secret"], rotated["secret"]]
    assert not any(
        secret in own_api.get(one).text for secret in secrets for one in (WEBHOOKS, path + "/logs")
    )
    logged = "".join(capfd.readouterr()) + caplog.text
    directory: Path = own_api.world.settings.data_dir
    files = {each.name: each.read_bytes() for each in directory.iterdir() if each.is_file()}
    for secret in secrets:
        raw = base64.b64decode(secret.removeprefix("whsec_"))
        for spelling in (secret[6:40].encode(), raw[:16], raw.hex()[:32].encode()):
            assert spelling not in logged.encode()
            assert [name for name, content in files.items() if spelling in content] == []
    with sqlite3.connect(directory / "ledger.sqlite3") as database:
        [(sealed, previous)] = database.execute("SELECT sealed, previous FROM webhook_endpoints")
    database.close()
    assert len({bytes(sealed), bytes(previous)}) == 2
