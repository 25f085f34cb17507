"""Secrets are shown once, in the answer that makes them, and are nowhere else."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.rest.bodies import INTENTS
from tests.rest.served import PAYMENTS, SESSIONS, SMART, Served

AGENT_KEYS, API_KEYS = "/api/v1/agent-keys", "/api/v1/api-keys"


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Served]:
    """An installation whose key-encryption key is a file that we can read."""
    with Served(tmp_path / "data") as served:
        yield served


def session_keys(directory: Path) -> list[bytes]:
    """The private keys of all sessions, opened with the key that lies beside them."""
    cipher = AESGCM(bytes.fromhex((directory / "kek").read_text()))
    with sqlite3.connect(directory / "ledger.sqlite3") as database:
        rows = database.execute("SELECT session_id, sealed FROM session_keys").fetchall()
    database.close()
    return [cipher.decrypt(row[1][:12], row[1][12:], row[0].encode()) for row in rows]


def use(api: Served) -> dict[str, str]:
    """Do a bit of everything, wrongly too; returns each secret with the path that showed it."""
    acme = api.workspace("acme")
    owner = api.world.owner
    session = api.session(
        key=acme, user_wallet=owner.address, mint_pkp=True, await_consent=True, metadata={"a": 1}
    )
    path, token = f"{SESSIONS}/{session['id']}", session["session_token"]
    signature = owner.sign_typed_data(full_message=session["typed_data"]).signature
    api.post(f"{path}/consent", {"owner_signature": "0x" + bytes(signature).hex()}, key=acme)
    held = api.hold(token)
    api.call("POST", f"{PAYMENTS}/{held['id']}/capture", token=token)
    api.post(SMART, {"session_token": token, "amount_usd": 1}, key=acme)
    api.post(SMART, {"session_token": token, "amount_usd": "1e3"}, key=acme)
    api.post(SMART, {"session_token": token * 9, "amount_usd": 1}, key=acme)
    api.post(SMART, {"session_token": token, "amount_usd": 1, token: acme}, key=None)
    api.pay(token, 1, unknown=token)
    api.pay(token, 10**9)
    api.pay(token, 1, headers={"Idempotency-Key": "k"})
    api.pay(token, 2, headers={"Idempotency-Key": "k"})
    api.get(f"{PAYMENTS}?page={token}", key=acme)
    for one in (SESSIONS, path, PAYMENTS, f"{PAYMENTS}/{held['id']}", "/api/v1/agents"):
        api.get(one, key=acme)
    intent = api.post(INTENTS, {"amount": 1}, key=acme).json()
    secret, asked = intent["client_secret"], f"{INTENTS}/{intent['id']}"
    confirming = {"client_secret": secret, "customer_wallet": ""}
    for body in (confirming | {secret: secret}, confirming | {"client_secret": secret * 9}):
        api.call("POST", f"{asked}/confirm", body, token=token)
    api.call("POST", f"{asked}/confirm", confirming, token=token)
    for one in (INTENTS, asked, f"{asked}/events", f"{asked}?status={secret}"):
        api.get(one, key=acme)
    agent_key = api.post(AGENT_KEYS, {"name": "n", "agent_id": "bot"}, key=acme).json()["full_key"]
    for one in (SESSIONS, "/api/v1/audit", f"{PAYMENTS}?session_id={agent_key}"):
        api.get(one, key=agent_key)
    another = api.post(API_KEYS, {"name": "Ada", "workspace_id": "acme"}).json()
    rotate = f"{API_KEYS}/{another['id']}/rotate"
    rotated = api.post(rotate, key=another["full_key"]).json()["full_key"]
    api.get(API_KEYS, key=rotated)
    api.post("/api/v1/log/anchor", key=acme)
    api.get(f"{path}/evidence", key=acme)
    api.post(f"{path}/revoke", key=acme)
    api.pay(token)
    for public in ("/api/v1/deployment", "/healthz", "/readyz", "/openapi.json", "/docs"):
        api.call("GET", public)
    unused = api.session(key=acme)["session_token"]
    return {
        api.key: "",
        acme: "/api/v1/workspaces",
        token: SESSIONS,
        unused: SESSIONS,
        secret: INTENTS,
        agent_key: AGENT_KEYS,
        another["full_key"]: API_KEYS,
        rotated: rotate,
    }


def fail(api: Served, token: str) -> None:
    """Make the server log what it did not foresee, while it handles a secret.

    `token` was not presented before: one that was would not be looked up again.
    """
    database = sqlite3.connect(api.world.settings.data_dir / "ledger.sqlite3")
    database.execute("ALTER TABLE api_keys RENAME TO gone")
    database.commit()
    database.execute("ALTER TABLE sessions RENAME TO gone_too")
    database.commit()
    database.close()
    api.http.event_hooks = {}
    statuses = [
        api.get(SESSIONS).status_code,
        api.pay(token).status_code,
        api.post(SMART, {"session_token": token, "amount_usd": 1}, key=None).status_code,
    ]
    assert statuses == [500] * 3


def spellings(secret: str) -> list[bytes]:
    """The first half of a secret's random part, as text and as bytes: half a secret is a leak."""
    part = secret.rpartition("_")[2]
    return [part[:32].encode(), bytes.fromhex(part)[:16]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_secret_is_in_the_answer_that_makes_it_and_nowhere_else(
    busy: Served, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    directory = busy.world.settings.data_dir
    secrets = use(busy)
    keys = session_keys(directory)
    assert keys
    fail(busy, [s for s in secrets if s.startswith("zai_session_")][-1])
    logged = ("".join(capfd.readouterr()) + caplog.text).encode()
    assert b"unexpected_error" in logged
    logged += re.sub(rb"\W", b"", logged)  # a secret may be broken over two lines of a frame

    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert {"ledger.sqlite3", "chain.sqlite3"} <= files.keys()
    for secret, made_by in secrets.items():
        for spelling in spellings(secret):
            assert spelling not in logged
            assert [name for name, content in files.items() if spelling in content] == []
        shown = [
            answer.request.url.path
            for answer in busy.answers
            if any(spelling in answer.content for spelling in spellings(secret))
            # A field that does not exist is named as it was sent.
            and not (answer.status_code == 422 and secret.encode() in answer.request.content)
        ]
        assert shown == ([made_by] if made_by else [])
        assert secret not in "".join(str(answer.headers) for answer in busy.answers)
    for key in keys:
        for spelling in (key, key.hex().encode()):
            assert spelling not in logged
            assert [name for name, content in files.items() if spelling in content] == []
            assert not any(spelling in answer.content for answer in busy.answers)


def test_a_passphrase_is_not_kept(tmp_path: Path) -> None:
    passphrase = "correct horse battery staple"
    with Served(tmp_path / "data", kek=passphrase) as api:
        api.session()
    files = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert "kek" not in files
    assert [name for name, content in files.items() if passphrase.encode() in content] == []


def test_only_hashes_of_secrets_are_stored_and_each_has_256_bits(api: Served) -> None:
    token, key = api.session()["session_token"], api.workspace("hashed")
    assert (len(token), len(key)) == (len("zai_session_") + 64, len("zfi_test_") + 64)
    with sqlite3.connect(api.world.settings.data_dir / "ledger.sqlite3") as database:
        hashes = [
            row[0]
            for table in ("api_keys", "sessions")
            for row in database.execute(f"SELECT secret_hash FROM {table}")
        ]
    database.close()
    assert {len(stored) for stored in hashes} == {32}
    assert len(set(hashes)) == len(hashes)
