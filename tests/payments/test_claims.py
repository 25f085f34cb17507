"""The file of claims: durable, for one process, and doubted rather than believed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.db.sqlite import SqliteDatabase
from engine.errors import CannotStart, Unavailable
from engine.payments.claims import Claim, Claims, Key

KEY = Key("eip155:31337", "0x" + "70" * 20, "0x" + "11" * 20, b"\x01" * 32)
CLAIM = Claim(
    key=KEY,
    digest=b"\x02" * 32,
    tx_hash=b"\x03" * 32,
    raw=b"\x04" * 200,
    sender="0x" + "55" * 20,
    sender_nonce=7,
    state="sent",
    opened_ms=1_700_000_000_000,
)


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[Claims]:
    opened = Claims(tmp_path / "claims.sqlite3")
    yield opened
    opened.dispose()


def pragma(claims: Claims, text: str) -> Any:
    """Ask the connection that writes."""
    with claims._connection.begin():
        return claims._connection.exec_driver_sql(f"PRAGMA {text}").scalar()


def test_a_claim_is_there_until_it_is_freed(claims: Claims, tmp_path: Path) -> None:
    assert claims.find(KEY) is None
    claims.open(CLAIM)
    assert claims.find(KEY) == CLAIM
    with closing(sqlite3.connect(f"file:{tmp_path}/claims.sqlite3?mode=ro", uri=True)) as other:
        assert other.execute("SELECT count(*) FROM facilitator_claims").fetchone() == (1,)
    claims.free(KEY)
    assert claims.find(KEY) is None


@pytest.mark.parametrize("state", ["settled", "refused"])
def test_the_end_of_a_claim_is_kept_without_its_transaction(tmp_path: Path, state: str) -> None:
    path = tmp_path / "claims.sqlite3"
    claims = Claims(path)
    claims.open(CLAIM)
    claims.close(KEY, state)  # type: ignore[arg-type]
    claims.dispose()
    reopened = Claims(path)
    assert reopened.find(KEY) == replace(CLAIM, state=state, raw=b"")
    reopened.dispose()


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, network="eip155:1"),
        replace(KEY, token="0x" + "71" * 20),
        replace(KEY, payer="0x" + "12" * 20),
        replace(KEY, nonce=b"\x02" * 32),
    ],
    ids=["network", "token", "payer", "nonce"],
)
def test_every_part_of_a_key_counts(claims: Claims, other: Key) -> None:
    claims.open(CLAIM)
    assert claims.find(other) is None
    claims.open(replace(CLAIM, key=other))
    claims.free(other)
    assert claims.find(KEY) == CLAIM


def test_a_key_is_claimed_once(claims: Claims) -> None:
    claims.open(CLAIM)
    with pytest.raises(Unavailable):
        claims.open(replace(CLAIM, digest=b"\x05" * 32))
    assert claims.find(KEY) == CLAIM


def test_what_is_known_of_one_transaction_ends_no_other(claims: Claims) -> None:
    claims.open(replace(CLAIM, state="settled"))
    claims.free(KEY, b"\x09" * 32)
    claims.forget(replace(CLAIM, tx_hash=b"\x09" * 32))
    assert claims.not_final(KEY.network) == [replace(CLAIM, state="settled")]
    claims.forget(CLAIM)
    assert claims.not_final(KEY.network) == []
    claims.free(KEY, CLAIM.tx_hash)
    assert claims.find(KEY) is None


def test_rivals_have_the_same_number_of_the_same_account_on_the_same_chain(claims: Claims) -> None:
    claims.open(CLAIM)
    others = [
        replace(CLAIM, tx_hash=b"\x06" * 32),
        replace(CLAIM, tx_hash=b"\x07" * 32, sender="0x" + "56" * 20),
        replace(CLAIM, tx_hash=b"\x08" * 32, sender_nonce=8),
        replace(CLAIM, tx_hash=b"\x09" * 32, key=replace(KEY, network="eip155:1")),
    ]
    for number, other in enumerate(others):
        nonce = number.to_bytes(32)
        claims.open(replace(other, key=replace(other.key, nonce=nonce)))
    assert claims.rivals(CLAIM) == [b"\x06" * 32]


def test_what_is_written_survives_a_power_cut(claims: Claims) -> None:
    assert pragma(claims, "journal_mode") == "wal"
    assert pragma(claims, "synchronous") == 2  # FULL


def test_a_full_disk_refuses_and_is_forgiven(claims: Claims) -> None:
    pragma(claims, f"max_page_count = {pragma(claims, 'page_count')}")
    with pytest.raises(Unavailable):
        claims.open(replace(CLAIM, raw=bytes(20_000)))
    pragma(claims, "max_page_count = 1000000")
    assert claims.find(KEY) is None
    claims.open(CLAIM)
    assert claims.find(KEY) == CLAIM


def test_a_file_that_is_gone_is_not_written_to(claims: Claims, tmp_path: Path) -> None:
    (tmp_path / "claims.sqlite3").unlink()
    with pytest.raises(Unavailable, match="gone"):
        claims.open(CLAIM)
    with pytest.raises(Unavailable, match="gone"):
        claims.find(KEY)


def test_what_is_closed_refuses(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims.sqlite3")
    claims.dispose()
    with pytest.raises(Unavailable, match="closed"):
        claims.find(KEY)


def test_a_file_of_something_else_or_damaged_is_refused(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    SqliteDatabase(ledger).close()
    other = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE facilitator_claims (network)")
    text = tmp_path / "text.sqlite3"
    text.write_text("not a database, and long enough to be looked at as one " * 100)
    later = tmp_path / "later.sqlite3"
    Claims(later).dispose()
    with closing(sqlite3.connect(later)) as connection:
        connection.execute("PRAGMA user_version = 2")
    for path in (ledger, other, text, later):
        with pytest.raises(CannotStart, match=path.name):
            Claims(path)


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "claims.sqlite3"
    claims = Claims(path)
    for number in range(60):
        claims.open(replace(CLAIM, key=replace(KEY, nonce=number.to_bytes(32))))
    claims.dispose()
    content = bytearray(path.read_bytes())
    content[8192:8292] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(CannotStart, match=path.name):
        Claims(path)
