"""Events over a connection that stays open (server-sent events)."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import api.listening
from api.server import Server
from engine.webhooks.feed import LISTENERS_OF_KEY_MAX
from tests.rest.operations import EVENTS
from tests.rest.served import Served, refused
from tests.world import World

OTHERS = range(LISTENERS_OF_KEY_MAX - 1)
Said = Iterator[dict[str, str]]


@contextlib.contextmanager
def listening(served: Served, query: str = "", **headers: str) -> Iterator[Said]:
    """What a listener is told, as the fields of one block after the other."""
    sent = {"Authorization": f"Bearer {served.key}"} | headers
    with (
        httpx.Client(base_url=served.url, timeout=10, trust_env=False) as http,
        http.stream("GET", EVENTS + query, headers=sent) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield blocks(answer.iter_lines())


def blocks(lines: Iterator[str]) -> Said:
    block: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            block[name] = value
        elif block:
            yield block
            block = {}


def told(said: Said) -> dict[str, Any]:
    """The next event."""
    found: dict[str, Any] = json.loads(next(block["data"] for block in said if "data" in block))
    return found


def test_events_come_as_they_happen_and_go_on_after_the_last_one(tenant: Served) -> None:
    token = tenant.session()["session_token"]
    tenant.world.engine.lead.sequence()
    with listening(tenant) as said:
        first = next(said)
        assert first["retry"] == "2000"
        held = tenant.hold(token)
        tenant.world.engine.lead.sequence()
        block = next(said)
    event = json.loads(block["data"])
    assert (event["event"], event["data"]["payment_id"]) == ("payment.created", held["id"])
    assert (event["merchant_id"], int(block["id"]) > int(first["id"])) == (
        tenant.workspace_id,
        True,
    )
    again = tenant.hold(token)
    tenant.world.engine.lead.sequence()
    with listening(tenant, **{"Last-Event-ID": block["id"]}) as said:
        assert told(said)["data"]["payment_id"] == again["id"]
    with listening(tenant, "?since=2020-01-01&events=payment.created") as said:
        assert [told(said)["data"]["payment_id"] for _ in range(2)] == [held["id"], again["id"]]


def test_it_ends_when_the_key_is_revoked_before_anything_else_is_told(tenant: Served) -> None:
    token = tenant.session()["session_token"]
    key = tenant.get("/api/v1/api-keys").json()[0]["id"]
    tenant.world.engine.lead.sequence()
    with listening(tenant) as said:
        next(said)
        assert tenant.post(f"/api/v1/api-keys/{key}/revoke").status_code == 200
        tenant.hold(token)
        tenant.world.engine.lead.sequence()
        assert list(said) == []


def test_a_silent_stream_says_that_it_is_there(
    tenant: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.listening, "HEARTBEAT_S", 0)
    tenant.world.engine.lead.sequence()
    with listening(tenant, "?events=webhook.disabled") as said:
        first = next(said)
        tenant.session()
        tenant.world.engine.lead.sequence()
        beats = [next(said) for _ in range(3)]
    assert all("data" not in beat for beat in beats)
    assert int(beats[-1]["id"]) > int(first["id"])  # though what happened is not wanted


def test_a_caller_listens_so_many_times_and_may_again_once_one_has_left(tenant: Served) -> None:
    with contextlib.ExitStack() as all_of_them:
        others = [all_of_them.enter_context(listening(tenant)) for _ in OTHERS]
        for said in others:
            next(said)
        with listening(tenant) as said:
            next(said)
            answer = tenant.get(EVENTS)
            refused(answer, 429, "rate_limit_exceeded")
            assert int(answer.headers["Retry-After"]) == answer.json()["retry_after"]
        while asked(tenant) == 429:  # until the server has seen that one has left
            time.sleep(0.01)


def asked(served: Served) -> int:
    """The status with which a stream begins."""
    key = {"Authorization": f"Bearer {served.key}"}
    with httpx.stream("GET", served.url + EVENTS, headers=key, trust_env=False) as answer:
        return answer.status_code


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("", {"Last-Event-ID": ""}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "-1"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "1.0"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "9" * 15}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "9" * 5_000}, "Last-Event-ID"),
        ("?events=nothing", {}, "events.0"),
        ("?since=yesterday", {}, "since"),
        ("?since=0000-01-01", {}, "since"),
        ("?workspace_id=other", {}, "workspace_id"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tenant: Served, query: str, headers: dict[str, str], field: str
) -> None:
    refused(tenant.get(EVENTS + query, headers=headers), 422, "invalid_parameter", field)


def test_a_server_that_stops_ends_its_streams_first(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    server = Server(world.engine, "127.0.0.1", 0)
    server.__enter__()
    with httpx.Client(base_url=server.url, timeout=10, trust_env=False) as http:
        key = {"Authorization": f"Bearer {world.operator_key}"}
        with http.stream("GET", EVENTS, headers=key) as answer:
            said = blocks(answer.iter_lines())
            next(said)
            server.__exit__(None, None, None)
            assert list(said) == []  # ended, and not cut off
    world.engine.close()
