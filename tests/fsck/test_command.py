"""`tallystick fsck` as somebody runs it: exit status, words, JSON, and no secrets."""

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.chain.embedded import EmbeddedChain
from engine.chain.embedded_rpc import EmbeddedRpc
from engine.engine import open_engine
from engine.errors import CannotStart
from engine.fsck.check import Chain, check
from engine.fsck.keys import given_vault
from engine.fsck.snapshot import CannotRead
from tests.cli.processes import called
from tests.fsck.conftest import Told
from tests.world import World, settings_for


@pytest.fixture
def directory(told: Told, tmp_path: Path) -> Path:
    """A copy of the data directory."""
    return Path(shutil.copytree(told.file.parent, tmp_path / "data"))


def change(directory: Path, statement: str) -> None:
    """Change the ledger."""
    with contextlib.closing(sqlite3.connect(directory / "ledger.sqlite3")) as raw:
        assert raw.execute(statement).rowcount > 0
        raw.commit()


def test_a_clean_directory(directory: Path) -> None:
    done = called("fsck", "--data-dir", directory, "--keys")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"in the log: nothing found in {directory / 'ledger.sqlite3'}\n")
    told = json.loads(called("fsck", "--data-dir", directory, "--json").stdout)
    assert (told["clean"], told["findings"], told["anchors_on_chain"]) == (True, [], None)
    assert "chain_blocks.timestamp_s" in told["not_checked"]


def test_against_the_chain(told: Told, directory: Path) -> None:
    rpc = EmbeddedRpc(told.chain.gateway, port=0).start()  # type: ignore[arg-type]
    try:
        arguments = ("--data-dir", directory, "--rpc", rpc.url, "--registry", told.chain.registry)
        done = called("fsck", *arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["anchors_on_chain"] == len(told.anchored)
        wrong = (*arguments[:-1], "0x" + "11" * 20)
        done = called("fsck", *wrong)
        assert (done.returncode, "there is no SessionRegistry" in done.stderr) == (4, True)
    finally:
        rpc.stop()
    assert called("fsck", *arguments).returncode == 4


def test_a_finding_says_where_and_what(directory: Path) -> None:
    change(directory, "UPDATE sessions SET state = 'active' WHERE label = 'groceries'")
    done = called("fsck", "--data-dir", directory)
    assert done.returncode == 1
    first, second, _, last = done.stdout.splitlines()
    assert first.startswith("sessions sess_")
    assert first.endswith(" state: by its records it is another")
    assert second == "    found active, expected revoked"
    assert last.startswith("1 found in ")
    told = json.loads(called("fsck", "--data-dir", directory, "--json").stdout)
    [finding] = told["findings"]
    assert (finding["table"], finding["column"]) == ("sessions", "state")
    assert (finding["found"], finding["expected"]) == ("active", "revoked")


def test_secrets_are_not_shown(directory: Path) -> None:
    """What is found wrong with a secret is told without it."""
    with contextlib.closing(sqlite3.connect(directory / "ledger.sqlite3")) as raw:
        hashes = [row[0].hex() for row in raw.execute("SELECT secret_hash FROM api_keys")]
        sealed = [row[0].hex() for row in raw.execute("SELECT sealed FROM session_keys")]
    change(directory, "UPDATE api_keys SET secret_hash = secret_hash || 'x'")
    change(directory, "UPDATE sessions SET secret_hash = secret_hash || 'x'")
    change(directory, "UPDATE session_keys SET sealed = sealed || 'x'")
    change(directory, "UPDATE meta SET value = value || '00' WHERE key IN ('log_key', 'operator')")
    for how in ((), ("--json",), ("--keys",)):
        done = called("fsck", "--data-dir", directory, *how)
        assert done.returncode == 1
        for table in ("api_keys", "sessions", "session_keys", "meta"):
            assert table in done.stdout
        assert [secret for secret in (*hashes, *sealed) if secret in done.stdout] == []


def test_a_key_that_does_not_open_is_found(directory: Path) -> None:
    (directory / "kek").write_text("11" * 32)
    done = called("fsck", "--data-dir", directory, "--keys", "--json")
    tables = {finding["table"] for finding in json.loads(done.stdout)["findings"]}
    assert (done.returncode, tables) == (1, {"session_keys", "meta", "webhook_endpoints"})
    assert called("fsck", "--data-dir", directory).returncode == 0
    (directory / "kek").unlink()
    done = called("fsck", "--data-dir", directory, "--keys")
    assert (done.returncode, "there is no key-encryption key" in done.stderr) == (4, True)
    assert not (directory / "kek").exists()


def test_a_seal_is_checked_with_the_keys(directory: Path) -> None:
    changed = "UPDATE log_batches SET seal = zeroblob(32) WHERE first_leaf = 0"
    change(directory, changed)
    file, vault = directory / "ledger.sqlite3", given_vault(directory, None)
    [found] = check(file, open_vault=vault, patience_s=0).findings
    assert (found.table, found.column) == ("log_batches", "seal")
    assert check(file, patience_s=0).clean


@pytest.mark.parametrize("never_done", ["deployment._first_start", "engine.Log", None])
def test_a_first_start_that_was_not_finished_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, never_done: str | None
) -> None:
    settings = settings_for(tmp_path)
    if never_done is None:
        open_engine(settings).close()  # before there is a workspace
    else:
        with monkeypatch.context() as interrupted:
            interrupted.setattr(f"engine.{never_done}", _no_power)
            with pytest.raises(CannotStart):
                open_engine(settings)
    for how in ((), ("--json",), ("--keys",)):
        done = called("fsck", "--data-dir", tmp_path, *how)
        told = "its first start was not finished, and `tallystick serve` takes it up"
        assert (done.returncode, done.stdout, told in done.stderr) == (4, "", True)
    if never_done is None:
        refused = pytest.raises(CannotRead, match="there is no record in the ledger")
        with chain_of(tmp_path) as chain, refused:
            check(tmp_path / "ledger.sqlite3", chain=chain, patience_s=0)
    change(tmp_path, "INSERT INTO agents VALUES ('default', 'agent', 'a', 1)")
    assert called("fsck", "--data-dir", tmp_path).returncode == 1
    change(tmp_path, "DELETE FROM agents")
    World(tmp_path).engine.close()
    assert called("fsck", "--data-dir", tmp_path).returncode == 0


@contextlib.contextmanager
def chain_of(directory: Path) -> Iterator[Chain]:
    """The embedded chain of a directory that nobody has open, and our registry on it."""
    with contextlib.closing(sqlite3.connect(directory / "ledger.sqlite3")) as raw:
        [(registry,)] = raw.execute("SELECT value FROM meta WHERE key = 'registry'")
    with contextlib.closing(EmbeddedChain(directory / "chain.sqlite3")) as chain:
        yield Chain(chain, registry)


def _no_power(*_: object) -> None:
    raise CannotStart("there was no power")


def test_what_cannot_be_read_or_asked(tmp_path: Path) -> None:
    done = called("fsck", "--data-dir", tmp_path / "nothing")
    assert (done.returncode, "there is no ledger at" in done.stderr) == (4, True)
    assert not (tmp_path / "nothing").exists()
    for arguments in (
        ("--rpc", "http://127.0.0.1:1"),
        ("--registry", "0x" + "11" * 20),
        ("--rpc", "http://127.0.0.1:1", "--registry", "0x11"),
        ("--rpc", "nowhere", "--registry", "0x" + "11" * 20),
        ("--what",),
    ):
        assert called("fsck", "--data-dir", tmp_path, *arguments).returncode == 2
    assert called("fsck", data_dirr=os.devnull).returncode == 2
