"""Settings come from TALLYSTICK_ variables; what is wrong is named, and no secret is repeated."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.errors import CannotStart
from engine.settings import Settings, load_settings

KEY = "0x" + "4c" * 32
ORDER = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
ADDRESS = "0x" + "Ab" * 20
ASSET = f"eip155:1/erc20:{ADDRESS.lower()}"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that the tests run on."""
    import os

    for name in [name for name in os.environ if name.upper().startswith("TALLYSTICK_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST_", "127.0.0.1"),
        ("PORTS", "8402"),
        ("PORT", "http"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", ""),
        ("RPC_PORT", "70000"),
        ("CHAIN", "ws://127.0.0.1:8545"),
        ("CHAIN", "Embedded"),
        ("CHAIN", ""),
        ("CONFIRMATIONS", "-1"),
        ("CONFIRMATIONS", "1.5"),
        ("CONFIRMATIONS", "1025"),
        ("POLL_INTERVAL_MS", "0"),
        ("ANCHOR_INTERVAL_S", "-60"),
        ("HOLD_TTL_S", "0"),
        ("HOLD_TTL_S", "604801"),
        ("REGISTRY", "0x1234"),
        ("REGISTRY", ADDRESS[2:]),
        ("REGISTRY", "vitalik.eth"),
        ("TOKENS", "USDC"),
        ("TOKENS", "{}"),
        ("TOKENS", '[{"symbol": "USDC"}]'),
        ("TOKENS", '[{"symbol": "usdc", "asset": "eip155:1/erc20:0x1", "decimals": 6}]'),
        ("TOKENS", f'[{{"symbol": "A", "asset": "{ASSET}", "decimals": -1}}]'),
        ("TOKENS", f'[{{"symbol": "A", "asset": "{ASSET}", "decimals": 6, "usd_price": "1.01"}}]'),
        ("ADMIN_KEY", "too-short"),
        ("ADMIN_KEY", ""),
        ("KEK", "secret"),
        ("OPERATOR_KEY", ""),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"TALLYSTICK_{name}", value)
    with pytest.raises(CannotStart) as refused:
        load_settings()
    assert f"TALLYSTICK_{name}" in refused.value.message
    assert "\n" not in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTICK_PORT", "x")
    monkeypatch.setenv("TALLYSTICK_HOLD_TTL_S", "y")
    with pytest.raises(CannotStart, match=r"TALLYSTICK_PORT: .*; TALLYSTICK_HOLD_TTL_S: "):
        load_settings()


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("OPERATOR_KEY", "correct horse battery staple"),
        ("OPERATOR_KEY", KEY[:-1]),
        ("OPERATOR_KEY", KEY + "4c"),
        ("OPERATOR_KEY", "0x" + "zz" * 32),
        ("OPERATOR_KEY", "0x" + "00" * 32),
        ("OPERATOR_KEY", ORDER),
        ("OPERATOR_KEY", "4c" * 15 + " " + "4c" * 16 + "4"),
        ("OPERATOR_KEY", "٤" * 64),
        ("KEK", "hunter2"),
        ("ADMIN_KEY", "hunter2"),
    ],
)
def test_a_secret_that_is_refused_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, secret: str
) -> None:
    monkeypatch.setenv(f"TALLYSTICK_{name}", secret)
    with pytest.raises(CannotStart) as refused:
        load_settings()
    assert f"TALLYSTICK_{name}" in refused.value.message
    assert secret not in repr(refused.value)
    assert refused.value.__cause__ is None
    with pytest.raises(ValidationError) as invalid:
        Settings(**{name.lower(): secret})
    assert secret not in str(invalid.value)


@pytest.mark.parametrize(
    "key", [KEY, KEY[2:], KEY.upper().replace("X", "x"), "0x" + "0" * 63 + "1"]
)
def test_a_private_key_may_be_written_in_the_usual_ways(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("TALLYSTICK_OPERATOR_KEY", key)
    settings = load_settings()
    assert settings.operator_key is not None
    assert settings.operator_key.get_secret_value() == key
    assert key not in repr(settings)


def test_addresses_are_kept_in_one_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTICK_REGISTRY", "0x" + "AB" * 20)
    assert load_settings().registry == "0x" + "ab" * 20


def test_what_is_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTICK_PORT", "1")
    monkeypatch.setenv("TALLYSTICK_RPC_PORT", "2")
    settings = load_settings(port=3)
    assert (settings.port, settings.rpc_port) == (3, 2)


@pytest.mark.parametrize("name", ["URL", "API_KEY", "SESSION_TOKEN", "OWNER_KEY_FILE"])
def test_what_a_client_reads_does_not_disturb_the_server(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"TALLYSTICK_{name}", "anything")
    assert load_settings() == Settings()


def test_a_misspelt_argument_is_refused() -> None:
    with pytest.raises(ValidationError, match="prot"):
        Settings(prot=8402)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:{}@host:PORT/name",
        "postgresql://user:{}@host:70000/name",
        "postgresql://user:{}@one:5432,other:5432/name",
        "postgresql://user:{}@host/name?nothing=1",
        "postgresql://user:s3@{}@host:5432/name",
        "postgresql://me@{}:s3@host:5432/name",
        "postgresql://user:s3/{}@host:5432/name",
        "postgresql://user:53/{}@host:5432/name",
        "postgresql://user:s3%{}@host/name",
        "postgresql://user:s3 {}@host/name",
        "postgresql://user:{}",
    ],
)
def test_a_database_that_is_read_in_two_ways_is_refused_without_a_word_of_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("TALLYSTICK_DATABASE", url.format("cr3t"))
    with pytest.raises(CannotStart, match=r"^TALLYSTICK_DATABASE: takes ") as refused:
        load_settings()
    assert not re.search("cr3t|s3|53|PORT|nothing", repr(refused.value).replace("5432", ""))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s%40cret%2F@host:5432/name",
        "postgres://user:s:c#r?t@host/name?sslmode=require",
        "postgresql://user:53?a=secret@host/name",
        "postgresql://user@/name?host=/tmp/socket",
        "postgresql://user@/name?host=@socket",
        "postgresql://user:secret@[::1]:5432/name",
        "postgresql://user:secret@one,other/name",
        "postgresql:///name",
        "postgresql://",
    ],
)
def test_a_database_that_is_read_in_one_way_is_taken(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("TALLYSTICK_DATABASE", url)
    database = load_settings().database
    assert database is not None
    assert database.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        "s3/cr3t@host:6379/0",
        "user:53/cr3t@host:6379/0",
        "user:53#cr3t@host:6379/0",
        "user:53?cr3t@host:6379/0",
        "user:s3@cr3t/s3@host:6379/0",
        "user:cr3t@host:PORT",
        "user:cr3t@host:70000",
        "user:[cr3t@host:6379",
    ],
)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STORE", "valkey://{}"),
        ("STORE", "rediss://{}"),
        ("STORE", "{}"),
        ("CHAIN", "http://{}"),
        ("CHAIN", "http://127.0.0.1:8545 https://{}"),
        ("FACILITATOR", "https://{}"),
        ("NETWORKS", '[{{"chain": "eip155:1", "rpc": ["https://{}"]}}]'),
    ],
)
def test_a_url_of_which_a_secret_would_be_told_is_refused_without_a_word_of_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, url: str
) -> None:
    monkeypatch.setenv(f"TALLYSTICK_{name}", value.format(url))
    with pytest.raises(CannotStart, match=f"^TALLYSTICK_{name}.*: takes ") as refused:
        load_settings()
    assert not re.search("cr3t|s3|53|PORT", repr(refused.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store", "valkey://host"),
        ("store", "redis://:se@c:ret%2F@host:6379/0?db=1"),
        ("store", "unix://user@/run/valkey.sock?db=1&password=s@cret"),
        ("store", "package_1.module:Shelves.make"),
        ("store", "my-store"),
        ("chain", "https://user:se@c:ret@host/v3/key?apikey=1 http://[::1]:8545"),
        ("facilitator", "https://host:8080/x402"),
    ],
)
def test_a_url_that_is_read_in_one_way_is_taken(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"TALLYSTICK_{name.upper()}", value)
    found = getattr(load_settings(), name)
    assert (found.get_secret_value() if name == "store" else found) == value
