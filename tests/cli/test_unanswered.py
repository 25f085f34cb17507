"""A command that is ended while it waits for an answer says what may have been done, and the key
with which it is done once: in the words for an answer that is lost."""

import base64
import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tallystick.cli import payments
from tallystick.client import Client
from tests.cli.conftest import Shell
from tests.cli.losing import Losing
from tests.cli.processes import called, one_line
from tests.cli.test_interrupted import INTERRUPTED, STATUS, Silent, interrupted

WALLET = "0x" + "1" * 40
KEYED = {
    "pay": ("pay", "0.33", "--merchant", "x"),
    "execute": ("execute", "1", "--session", "sess_x", "--to", WALLET),
    "keys create": ("keys", "create", "--name", "ann"),
    "sessions create": ("sessions", "create", "--agent-id", "a", "--wallet", WALLET),
    "agent keys create": ("agent", "keys", "create", "--name", "n", "--agent-id", "a"),
    "intents create": ("intents", "create", "--amount", "1"),
    "webhooks create": ("webhooks", "create", "https://a.test"),
    "webhooks rotate-secret": ("webhooks", "rotate-secret", "wh_x"),
}
UNKEYED = {
    "capture": ("capture", "pay_x"),
    "revoke": ("sessions", "revoke", "sess_x", "--yes"),
    "rotate": ("keys", "rotate", "key_x", "--yes"),
    "budget": ("budgets", "set", "--max-per-day", "1"),
}
LOOKING = {
    "status": ("status", "pay_x"),
    "preview": ("sessions", "revoke-many", "--all", "--preview"),
}
TOKEN = "zai_" + "0" * 40


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


@pytest.mark.parametrize("how", STATUS)
@pytest.mark.parametrize("words", KEYED.values(), ids=KEYED.keys())
def test_who_is_interrupted_hears_the_key(
    silent: Silent, words: tuple[str, ...], how: signal.Signals
) -> None:
    status, out, said = interrupted(silent, (*words, "--key", "k 1"), how=how, session_token=TOKEN)
    assert (status, out) == (STATUS[how], "")
    assert said == (
        f"no_answer: {silent.url}: interrupted: it may have been done; to do it once, "
        "ask again with --key 'k 1'\n"
    )


def test_a_key_that_was_made_for_the_request_is_told_too(silent: Silent) -> None:
    _, _, said = interrupted(silent, KEYED["pay"], session_token=TOKEN)
    assert silent.asked().partition("idempotency-key: ")[2].split()[0] == said.split()[-1]


@pytest.mark.parametrize("words", UNKEYED.values(), ids=UNKEYED.keys())
def test_what_has_no_key_may_have_been_done(silent: Silent, words: tuple[str, ...]) -> None:
    ended = interrupted(silent, words)
    line = f"no_answer: {silent.url}: interrupted: it may have been done\n"
    assert ended == (INTERRUPTED, "", line)


@pytest.mark.parametrize("words", LOOKING.values(), ids=LOOKING.keys())
def test_of_what_only_looks_nothing_is_told(silent: Silent, words: tuple[str, ...]) -> None:
    assert interrupted(silent, words) == (INTERRUPTED, "", "")


def test_a_draft_that_is_tried_changes_nothing(silent: Silent, shell: Shell) -> None:
    draft = shell.directory / "interrupted.json"
    draft.write_text("{}")
    words = ("backtest", "--session", "sess_x", "--policy", draft)
    assert interrupted(silent, words) == (INTERRUPTED, "", "")


def interrupt(*_arguments: Any, **_named: Any) -> Any:
    """Be interrupted here."""
    raise KeyboardInterrupt


def test_before_anything_is_sent_nothing_was_done(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", interrupt)
    done = shell("pay", "1", session_token=TOKEN)
    assert (done.returncode, done.stderr) == (INTERRUPTED, "")


def test_who_has_heard_the_answer_is_not_told_that_there_is_none(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(shell.server.url, api_key=shell.key) as client:
        token = client.create_session(agent_id="a", user_wallet=WALLET)["session_token"]
    monkeypatch.setattr(payments, "_print", interrupt)
    done = shell("pay", "1", session_token=token)
    assert (done.returncode, done.stderr) == (INTERRUPTED, "")


def test_of_a_purchase_it_is_told_while_it_is_signed(silent: Silent) -> None:
    with Losing(payment_required()) as resource:
        ended = interrupted(
            silent, ("fetch", resource.url, "-d", "x", "--key", "mine"), session_token=TOKEN
        )
    line = f"no_answer: {silent.url}: interrupted: it may have been done; to do it once, "
    assert ended == (INTERRUPTED, "", line + "ask again with --key mine\n")


def test_of_a_purchase_it_is_told_once_it_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = {"amount": "1", "network": "n", "asset": "a", "pay_to": "p"}
    signed = {"payment_signature": "c2ln", "terms": terms, "id": "pay_1", "amount_usd": 1}
    body = json.dumps(signed).encode()
    head = f"HTTP/1.1 201 Created\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    monkeypatch.setattr("tallystick.paying.transports._with_payment", interrupt)
    with Losing(payment_required()) as resource, Losing(head + body) as server:
        words = ("fetch", resource.url, "-d", "x", "--key", "mine")
        done = called(*words, url=server.url, session_token=TOKEN)
    assert one_line(done, INTERRUPTED) == (
        f"payment_outcome_unknown: {resource.url}: interrupted; payment pay_1 may have been "
        "made; to pay once, ask again with --key mine"
    )


def payment_required() -> bytes:
    """A 402 of x402, as far as a client reads it."""
    required = base64.b64encode(json.dumps({"accepts": []}).encode()).decode()
    return f"HTTP/1.1 402 Payment Required\r\nPAYMENT-REQUIRED: {required}\r\n\r\n".encode()
