"""Whoever waits for a chain or a receiver that does not answer keeps nobody else from ending a
session: what waits is not on the threads that all routes share."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI

from api.rest import exact_json
from api.rest.app import create_app
from engine.chain.gateway import ChainUnavailable
from engine.errors import RateLimited
from engine.webhooks.endpoints import TESTS_MAX, TESTS_OF_WORKSPACE_MAX
from tests.rest.bodies import EMBEDDED
from tests.rest.served import SESSIONS
from tests.webhooks.receiver import Received, Receiver
from tests.world import World

PATIENCE_S = 20
SHARED_THREADS_MIN = 40
"""Of anyio's, on which FastAPI runs routes."""


class Silent:
    """A chain that does not answer until it is `released`."""

    def __init__(self) -> None:
        self.asked, self.released = threading.Event(), threading.Event()

    def __call__(self, *_: Any) -> Any:
        self.asked.set()
        assert self.released.wait(PATIENCE_S)
        raise ChainUnavailable("it does not answer")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    opened = World(tmp_path_factory.mktemp("waiting") / "data", webhook_networks="127.0.0.0/8")
    yield opened
    opened.engine.close()


@pytest.fixture(scope="module")
def app(world: World) -> FastAPI:
    return create_app(world.engine, larger_bodies={"/api/v1/evidence": 2**20})


def asking_the_chain(world: World, session_id: str) -> dict[str, tuple[str, Any]]:
    """Path and body of what asks a chain."""
    usdc = world.engine.token("USDC", None)
    assert usdc is not None
    accepted = {
        "scheme": "exact", "network": EMBEDDED, "asset": usdc.asset.rpartition(":")[2],
        "amount": "1", "payTo": "0x" + "22" * 20, "maxTimeoutSeconds": 60,
    }  # fmt: skip
    required = {"x402Version": 2, "accepts": [accepted]}
    return {
        "x402": (
            f"{SESSIONS}/{session_id}/x402",
            {"payment_required": required, "resource": "https://shop.test/"},
        ),
        "execute": (f"{SESSIONS}/{session_id}/execute", {"to": "0x" + "5b" * 20, "amount": 1}),
        "anchor": ("/api/v1/log/anchor", None),
        "reconcile": ("/api/v1/reconciliation", None),
        "resume": ("/api/v1/chain/resume", None),
    }


@pytest.mark.parametrize("what", ["x402", "execute", "anchor", "reconcile", "resume"])
def test_a_session_is_ended_while_somebody_waits_for_the_chain(
    world: World, app: FastAPI, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    session, silent = world.session(), Silent()
    path, body = asking_the_chain(world, session.id)[what]
    for name in ("head", "headers", "block", "code"):
        monkeypatch.setattr(world.engine.gateway, name, silent)

    async def scene() -> tuple[int, int]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {world.operator_key}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=headers
        ) as http:
            asking = asyncio.create_task(http.post(path, json=body))
            await asyncio.to_thread(silent.asked.wait, PATIENCE_S)
            revoking = http.post(f"{SESSIONS}/{session.id}/revoke")
            try:
                revoked = await asyncio.wait_for(revoking, PATIENCE_S / 4)
            finally:
                silent.released.set()
            return revoked.status_code, (await asking).status_code

    assert asyncio.run(scene()) == (200, 503)


def test_others_are_answered_while_a_long_body_is_parsed(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of anybody: a body is parsed before it is known who sent it."""
    parsing, released, loads = threading.Event(), threading.Event(), exact_json.loads

    def slowly(body: bytes) -> Any:
        parsing.set()
        assert released.wait(PATIENCE_S)
        return loads(body)

    monkeypatch.setattr(exact_json, "loads", slowly)
    long = b'{"evidence":"' + b"x" * exact_json.AT_ONCE_BYTES_MAX + b'"}'

    async def scene() -> tuple[int, int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            json = {"Content-Type": "application/json"}
            asking = http.post("/api/v1/evidence/verify", content=long, headers=json)
            sent = asyncio.create_task(asking)
            assert await asyncio.to_thread(parsing.wait, PATIENCE_S)
            healthy = await http.get("/healthz")
            released.set()
            return healthy.status_code, (await sent).status_code

    assert asyncio.run(scene()) == (200, 401)


def test_a_receiver_that_hangs_is_tried_by_few_at_a_time(world: World) -> None:
    """However many ask for that, of as many workspaces, there are threads for everybody else."""
    webhooks, released, under_way = world.engine.webhooks, threading.Event(), threading.Semaphore(0)

    def hang(_: Received) -> int:
        under_way.release()
        assert released.wait(PATIENCE_S)
        return 200

    def attempt(workspace: str) -> bool:
        [made] = webhooks.list(workspace)
        return webhooks.test(workspace, made.id, "payment.created")[1].success

    names = [f"tenant-{number}" for number in range(TESTS_MAX // TESTS_OF_WORKSPACE_MAX + 1)]
    with Receiver() as receiver, ThreadPoolExecutor(TESTS_MAX) as threads:
        receiver.answer = hang
        for name in names:
            world.engine.access.create_workspace(name, "One of many")
            webhooks.create(name, receiver.url, ("*",), by="test")
        trying = [
            threads.submit(attempt, name)
            for name in names[:-1]
            for _ in range(TESTS_OF_WORKSPACE_MAX)
        ]
        for _ in trying:
            assert under_way.acquire(timeout=PATIENCE_S)
        with pytest.raises(RateLimited, match="2 tests of this workspace"):
            attempt(names[0])
        with pytest.raises(RateLimited, match="16 tests at a time"):
            attempt(names[-1])
        released.set()
        assert all(each.result() for each in trying)
        assert attempt(names[0]), "and free again"
    assert len(trying) == TESTS_MAX < SHARED_THREADS_MIN
