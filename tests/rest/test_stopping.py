"""A server that is asked to stop while somebody waits longer than it waits for them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import api.server
from tests.rest.served import PAYMENTS, Served


def test_who_still_waits_is_told_to_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.server, "STOPPED_AFTER_S", 1)
    held, may_go_on = threading.Event(), threading.Event()

    def hold(_batch: object) -> None:
        held.set()
        may_go_on.wait(30)

    with ThreadPoolExecutor(2) as threads, Served(tmp_path / "data") as served:
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
        stopping = threads.submit(served._server.__exit__, None, None, None)
        answer = asked.result(60)
        may_go_on.set()
        stalled.result(30)
        stopping.result(60)
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["code"] == "service_unavailable"
