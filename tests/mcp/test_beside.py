"""What the tools beside the agent do with calls that are cancelled, and with what is no input."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import structlog

from api.mcp.rest import NO_TALLYSTICK, Rest
from api.mcp.tool import Tool
from engine.audit.pieces import Source
from engine.audit.report import Report, Verdict, make_check
from tallystick.async_client import AsyncClient
from tallystick.mcp.fetching import pay_x402
from tallystick.mcp.verifying import Verifier, verify_evidence
from tests.cli.processes import called as called_command
from tests.ledger.paying import CENT, offer, required
from tests.mcp.hands import Hands
from tests.paying.hostile import Hostile, Say, asks
from tests.paying.shop import Agent
from tests.rest.served import Served

TOKEN = "zai_session_" + "5ec7" * 16
NOBODY = Rest(httpx.AsyncClient())


def called(tool: Tool, **arguments: Any) -> Any:
    """The structure of a result."""
    return asyncio.run(tool.call(NOBODY, arguments)).structured_content


def test_what_was_cancelled_and_is_asked_for_again_is_one_purchase(
    served: Served, agent: Agent
) -> None:
    cent = asks(required(offer(served.world, CENT)))
    hang, arrived = True, threading.Event()

    def answer(heard: Any, _count: int) -> Say:
        if heard.signature is None:
            return cent
        arrived.set()
        return Say(hang=hang)

    async def use(server: Hostile) -> list[Any]:
        nonlocal hang
        async with AsyncClient(served.url, session_token=agent.token) as client:
            tool = pay_x402(client)
            first = asyncio.create_task(tool.call(NOBODY, {"url": server.url}))
            await asyncio.to_thread(arrived.wait)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            hang = False
            asked = [{"url": server.url, "max_amount": most} for most in (None, "0.02", None)]
            return [(await tool.call(NOBODY, each)).structured_content for each in asked]

    before = len(agent.payments())
    with Hostile(answer) as server:
        again, other, later = asyncio.run(use(server))
        one, two, three, four = server.signatures
    assert (again["body"], one) == ("goods", two)
    assert len({one, three, four}) == 3
    paid = {found["payment"]["payment_id"] for found in (again, other, later)}
    assert paid == {payment["id"] for payment in agent.payments()[: -before or None]}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"headers": {"X": "é"}}, "headers"),
        ({"headers": {"X": "a\r\nY: b"}}, "headers"),
        ({"headers": {"X Y": "a"}}, "headers"),
        ({"headers": {"": "a"}}, "headers"),
        ({"headers": {"content-length": "5"}, "body": "a"}, "headers"),
        ({"headers": {"Transfer-Encoding": "chunked"}, "body": "a"}, "headers"),
        ({"url": "http://127.0.0.1:99999/"}, "url"),
        ({"url": "http://[::1"}, "url"),
        ({"url": "http://" + "x" * 70_000}, "url"),
        ({"url": "x" * 70_000}, "url"),
        ({"method": "GET /"}, "method"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_by_its_field(
    wrong: Mapping[str, Any], field: str
) -> None:
    asked = {"url": "http://127.0.0.1:1/"} | wrong
    heard = called(pay_x402(AsyncClient(session_token=TOKEN)), **asked)
    assert (heard["code"], heard["field"]) == ("invalid_parameter", field)
    assert len(json.dumps(heard)) < 1_000


def test_only_a_regular_file_is_read_and_none_is_waited_for(tmp_path: Path) -> None:
    def verifier(content: Source) -> Mapping[str, Any]:
        assert content[:] == b"{}"
        facts = {"verdict": "tampered", "reason": "", "checks": [], "registry": "0x"}
        return facts | {"not_proven": []}

    os.mkfifo(tmp_path / "pipe")
    file = tmp_path / "evidence.json"
    file.write_bytes(b"{}")
    (tmp_path / "link").symlink_to(file)
    tool = verify_evidence(verifier)
    for name in ("pipe", "", "/dev/zero"):
        heard = called(tool, file=str(tmp_path / name))
        assert heard["message"] == "file: is no regular file", name
    assert called(tool, file=str(tmp_path / "no"))["field"] == "file"
    assert called(tool, file="\0")["field"] == "file"
    for name in ("evidence.json", "link"):
        assert called(tool, file=str(tmp_path / name))["verdict"] == "tampered"
    assert called(verify_evidence(None), file=str(file))["code"] == "not_configured"


def test_an_answer_of_another_web_server_is_told_from_a_tallystick_s() -> None:
    with Hostile(lambda *_: Say(200, b"<html>")) as server:
        heard = Hands(server.url, TOKEN).refusal("check_budget")
    assert (heard["code"], heard["message"]) == ("http_error", NO_TALLYSTICK)


def test_the_chains_that_a_person_named_are_those_that_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verifiers: list[Verifier] = []
    asked: dict[str, Any] = {}

    def verified(_content: Source, chain: Any, **how: Any) -> Report:
        asked.update(how, rpc=chain.name)
        asked["networks"] = {name: view.name for name, view in how["networks"].items()}
        return Report((make_check(1, "format", Verdict.TAMPERED, "nothing"),))

    monkeypatch.setattr(anyio, "run", lambda *given: verifiers.append(given[-1]))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("tallystick.cli.mcp.log_as_json", lambda: None)
    monkeypatch.setattr("engine.audit.verify.verify", verified)
    registry = "0x" + "11" * 20
    told = ("--rpc", "http://home.test", "--registry", registry)
    told += ("--network", "eip155:8453=http://base.test")
    assert called_command("mcp", *told, session_token=TOKEN).returncode == 0
    [verifier] = verifiers
    assert verifier(b"{}")["registry"] == registry
    assert asked == {
        "rpc": "http://home.test",
        "registry": registry,
        "networks": {"eip155:8453": "http://base.test"},
    }


def test_no_value_of_a_variable_is_on_standard_error_which_clients_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*given: Any) -> None:
        assert TOKEN in given
        try:
            int("somewhere")
        except ValueError:
            structlog.get_logger().exception("tool_failed")

    monkeypatch.setattr(anyio, "run", failing)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    before = structlog.get_config()
    try:
        done = called_command("mcp", session_token=TOKEN)
    finally:
        structlog.configure(**before)
    [line] = done.stderr.splitlines()
    assert json.loads(line)["event"] == "tool_failed"
    assert "ValueError: invalid literal" in line
    assert (done.stdout, TOKEN in line) == ("", False)
