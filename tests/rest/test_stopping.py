"""A server that is asked to stop while somebody waits longer than it waits for them."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import api.server
from api.rest.lean_payments import LeanPayments
from tests.rest.served import PAYMENTS, Served


@contextmanager
def stopping(directory: Path) -> Iterator[tuple[Served, "Future[httpx.Response]", threading.Event]]:
    """A server that is asked to stop; somebody waits for it until the event is set, at least."""
    held, go_on = threading.Event(), threading.Event()

    def hold(_batch: object) -> None:
        held.set()
        go_on.wait(60)

    with ThreadPoolExecutor(2) as threads, Served(directory / "data") as served:
        token = served.session()["session_token"]
        payment = served.hold(token)
        stalled = served.world.engine.ledger._writer.submit(hold)
        assert held.wait(30)
        path = f"{served.url}{PAYMENTS}/{payment['id']}/void"
        asked = threads.submit(
            httpx.post, path, json={}, headers={"X-Session-Token": token}, timeout=60
        )
        while not served._server._server.server_state.tasks:
            assert not asked.done()
        stopped = threads.submit(served._server.__exit__, None, None, None)
        while served._server._server.servers[0].is_serving():
            assert not stopped.done()
        try:
            yield served, asked, go_on
        finally:
            go_on.set()
            stalled.result(60)
            stopped.result(60)


def test_who_still_waits_is_told_to_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.server, "STOPPED_AFTER_S", 1)
    with stopping(tmp_path) as (served, waiting, go_on):
        answer = waiting.result(60)
        go_on.set()
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["code"] == "service_unavailable"
    assert not served._server._server.server_state.tasks


def test_who_connected_at_the_last_moment_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio has accepted such a connection, and makes it when all others were told to close."""
    monkeypatch.setattr(api.server, "STOPPED_AFTER_S", 60)
    ours, theirs = socket.socketpair()
    with stopping(tmp_path) as (served, waiting, go_on), ours:
        server = served._server._server

        def made() -> LeanPayments:
            return LeanPayments(
                config=server.config, server_state=server.server_state, app_state={}
            )

        loop = server.servers[0].get_loop()
        asyncio.run_coroutine_threadsafe(loop.connect_accepted_socket(made, theirs), loop).result(9)
        ours.settimeout(30)
        assert ours.recv(1) == b"", "it is closed, though another is still waited for"
        assert not waiting.done()
        go_on.set()
        assert waiting.result(60).status_code == 200
