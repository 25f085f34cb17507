"""When something is broken: no decision, no exception text, and a way to ask again."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from engine.clock import ManualClock, system_clock
from engine.ledger.chain_watch import CHAIN_SILENCE_MAX_MS
from tests.rest.served import PAYMENTS, SESSIONS, SMART, Served, assert_error, refused

SIGNATURE = {"owner_signature": "0x" + "11" * 65}


def break_database(api: Served, statement: str) -> None:
    """Change the data file behind the engine's back."""
    with sqlite3.connect(api.world.settings.data_dir / "ledger.sqlite3") as database:
        database.execute(statement)
    database.close()


def unavailable(response: httpx.Response, code: str = "service_unavailable") -> None:
    refused(response, 503, code)
    assert int(response.headers["Retry-After"]) > 0


@dataclass
class Broken:
    """An installation with a session and a hold of it, of which one write has failed."""

    api: Served
    session_id: str
    token: str
    held: str


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """Shared: it answers nothing but reads any more."""
    with Served(tmp_path_factory.mktemp("broken") / "data") as api:
        session = api.session()
        held = api.hold(session["session_token"])
        break_database(api, "ALTER TABLE outbox RENAME TO gone")
        assert api.call("GET", "/readyz").json()["ready"] is True
        before = api.records()
        unavailable(api.pay(session["session_token"]))  # the one that finds out
        assert api.records() == before
        yield Broken(api, session["id"], session["session_token"], held["id"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("damage", "path"),
    [
        ("ALTER TABLE agents RENAME TO gone", "/api/v1/agents"),
        ("UPDATE decisions SET memo_json = '{secret'", PAYMENTS),
    ],
    ids=("no table", "a payment that cannot be read"),
)
def test_what_nobody_foresaw_is_a_500_that_says_nothing_and_a_log_entry_that_says_it_all(
    own_api: Served, capfd: pytest.CaptureFixture[str], damage: str, path: str
) -> None:
    own_api.hold(own_api.session()["session_token"])
    break_database(own_api, damage)
    headers = {"Authorization": f"Bearer {own_api.key}"}
    answer = httpx.get(own_api.url + path, headers=headers)
    assert_error(answer)
    wrong = {"code": "internal_error", "message": "something went wrong"}
    assert (answer.status_code, answer.json()) == (500, {"error": wrong, **wrong})
    logged = "".join(capfd.readouterr())
    assert "unexpected_error" in logged
    assert "Traceback" in logged
    assert "Error: " in logged
    assert own_api.call("GET", "/healthz").status_code == 200


NEEDS_THE_WRITER: dict[str, Callable[[Broken], httpx.Response]] = {
    "smart payment": lambda b: b.api.call("POST", SMART, {"amount_usd": 1}, token=b.token),
    "payment": lambda b: b.api.pay(b.token),
    "capture": lambda b: b.api.post(f"{PAYMENTS}/{b.held}/capture"),
    "void": lambda b: b.api.post(f"{PAYMENTS}/{b.held}/void"),
    "create": lambda b: b.api.post(SESSIONS, {"agent_id": "new", "user_wallet": "w"}),
    "consent": lambda b: b.api.post(f"{SESSIONS}/{b.session_id}/consent", SIGNATURE),
    "revoke": lambda b: b.api.post(f"{SESSIONS}/{b.session_id}/revoke"),
    "session": lambda b: b.api.get(f"{SESSIONS}/{b.session_id}"),
    "sessions": lambda b: b.api.get(SESSIONS),
    "agent": lambda b: b.api.post("/api/v1/agents", {"agent_id": "new"}),
    "workspace": lambda b: b.api.post("/api/v1/workspaces", {"id": "new", "name": "New"}),
    "anchor": lambda b: b.api.post("/api/v1/log/anchor"),
}


def test_after_a_failed_write_everything_that_decides_answers_503_and_nothing_is_done(
    broken: Broken,
) -> None:
    before = broken.api.records()
    for ask in NEEDS_THE_WRITER.values():
        unavailable(ask(broken))
    assert broken.api.records() == before
    assert [agent["agent_id"] for agent in broken.api.get("/api/v1/agents").json()] == ["bot"]


def test_what_is_known_can_still_be_read(broken: Broken) -> None:
    assert broken.api.get(f"{PAYMENTS}/{broken.held}").json()["state"] == "held"
    assert broken.api.get(PAYMENTS).json()["pagination"]["total"] == 1


def test_a_failed_write_is_told_by_readiness_and_not_by_health(broken: Broken) -> None:
    answer = broken.api.call("GET", "/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert len(answer.json()["faults"]) == 1
    assert "outbox" not in answer.text
    assert broken.api.call("GET", "/healthz").json() == {"status": "ok"}


def test_a_full_disk_denies_until_there_is_space_and_the_key_finds_out_what_happened(
    own_api: Served,
) -> None:
    def allow_pages(count: int) -> None:
        own_api.world.engine.writer.call(
            lambda batch: batch._connection.exec_driver_sql(f"PRAGMA max_page_count = {count}")
        )

    token = own_api.session()["session_token"]
    asked = {"metadata": {"text": "x" * 16_000}, "headers": {"Idempotency-Key": "key"}}
    before = own_api.records()
    allow_pages(1)  # no fewer than there are
    unavailable(own_api.pay(token, **asked))
    assert own_api.records() == before
    allow_pages(1_000_000)
    again = own_api.pay(token, **asked)
    assert again.status_code == 201
    assert "Idempotent-Replayed" not in again.headers
    assert own_api.pay(token, **asked).headers["Idempotent-Replayed"] == "true"


def on_chain(api: Served) -> str:
    """The token of an active session with an on-chain identity."""
    session = api.session(user_wallet=api.world.owner.address, mint_pkp=True, await_consent=True)
    signature = api.world.owner.sign_typed_data(full_message=session["typed_data"]).signature
    body = {"owner_signature": "0x" + bytes(signature).hex()}
    shown = api.post(f"{SESSIONS}/{session['id']}/consent", body).json()
    assert shown["is_active"]
    token: str = session["session_token"]
    return token


def test_a_chain_that_was_not_read_for_too_long_stops_the_sessions_that_live_on_it(
    tmp_path: Path,
) -> None:
    clock = ManualClock(system_clock())
    with Served(tmp_path / "data", clock=clock) as api:
        anchored, plain = on_chain(api), api.session()["session_token"]
        clock.advance(CHAIN_SILENCE_MAX_MS)
        assert api.pay(anchored, 1).status_code == 201
        clock.advance(1)
        before = api.records()
        unavailable(api.pay(anchored, 1), "chain_unavailable")
        assert api.records() == before
        assert api.pay(plain, 1).status_code == 201
        api.world.engine.tick()
        assert api.pay(anchored, 1).status_code == 201


def test_a_chain_that_is_gone_is_told_and_nothing_is_said_to_be_anchored(own_api: Served) -> None:
    own_api.world.engine.gateway.close()
    unavailable(own_api.post("/api/v1/log/anchor"), "chain_unavailable")
    ready = own_api.call("GET", "/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert own_api.pay(own_api.session()["session_token"]).status_code == 201


def test_an_engine_that_is_stopping_says_so_and_decides_nothing(tmp_path: Path) -> None:
    with Served(tmp_path / "data") as api:
        token = api.session()["session_token"]
        api.world.engine.writer.stop()
        unavailable(api.pay(token))
