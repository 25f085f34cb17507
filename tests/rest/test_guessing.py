"""Whoever guesses at keys and tokens finds none, leaves nothing behind and locks nobody out.

Guesses are not counted: a secret has 256 random bits, and to look for one costs a read by an index.
"""

import sqlite3

import pytest

from engine.identifiers import secret_hash
from tests.rest.served import PAYMENTS, SESSIONS, Served

GUESSES = 20
KINDS = {"zfi_test_": "api_keys", "zai_test_": "agent_keys", "zai_session_": "sessions"}


@pytest.mark.parametrize("table", KINDS.values())
def test_a_secret_is_found_by_an_index(api: Served, table: str) -> None:
    with sqlite3.connect(api.world.settings.data_dir / "ledger.sqlite3") as database:
        plan = database.execute(
            f"EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE secret_hash = ?", (secret_hash("x"),)
        ).fetchall()
    database.close()
    [step] = [row[3] for row in plan]
    assert step.startswith(f"SEARCH {table} USING INDEX")
    assert step.endswith("(secret_hash=?)")


def test_guesses_leave_nothing_behind_and_lock_nobody_out(api: Served) -> None:
    token = api.session()["session_token"]
    body = {"name": "a key", "agent_id": "bot"}
    agent = api.post("/api/v1/agent-keys", body).json()["full_key"]
    api.pay(token)
    tokens = api._server._server.config.app.state.tokens
    before = api.records(), len(tokens._holders)
    for number in range(GUESSES):
        for prefix in KINDS:
            guess = f"{prefix}{number:064x}"
            assert api.get(SESSIONS, key=guess).status_code == 401
            assert api.call("POST", PAYMENTS, {"amount": 1}, token=guess).status_code == 401
    assert (api.records(), len(tokens._holders)) == before
    assert api.get(SESSIONS).status_code == 200
    remaining = api.get(SESSIONS, key=agent).headers["X-RateLimit-Remaining"]
    assert (remaining, api.pay(token).status_code) == ("999", 201)
