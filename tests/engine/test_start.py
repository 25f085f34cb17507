"""What does not fit together does not start, says what to change, and is left as it was."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from engine.chain import contracts
from engine.chain.anvil import AnvilProcess
from engine.chain.deploy import create
from engine.chain.embedded import EmbeddedChain
from engine.db.sqlite import SqliteDatabase
from engine.deployment import stored_deployment
from engine.engine import open_engine
from engine.errors import CannotStart, Unavailable
from engine.settings import Token
from tests.anvil_world import ANVIL_TOML, AnvilWithContracts, anvil_with_contracts
from tests.world import WORKSPACE, World, settings_for

NOBODY = "0x" + "ab" * 20


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain with contracts."""
    with anvil_with_contracts() as running:
        yield running


def on(anvil: AnvilWithContracts, **changes: Any) -> dict[str, Any]:
    """The settings of an installation on it."""
    return {
        "chain": anvil.process.url,
        "registry": anvil.deployed.registry,
        "operator_key": "0x" + bytes(anvil.operator.key).hex(),
        **changes,
    }


def refused(directory: Path, **changes: Any) -> str:
    """Why the engine does not start."""
    with pytest.raises(CannotStart) as caught:
        open_engine(settings_for(directory, **changes))
    return caught.value.message


def rows(directory: Path) -> dict[str, list[Any]]:
    """All rows of all tables of the ledger."""
    with contextlib.closing(
        sqlite3.connect(f"file:{directory / 'ledger.sqlite3'}?mode=ro", uri=True)
    ) as raw:
        names = raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {name: raw.execute(f"SELECT * FROM {name}").fetchall() for (name,) in names}


def keys(directory: Path) -> dict[str, str]:
    """The files of the key-encryption key, with what is in them."""
    return {path.name: path.read_text() for path in directory.glob("kek*")}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory on an embedded chain, in which something happened. Not to be changed."""
    world = World(tmp_path_factory.mktemp("used") / "data")
    world.pay(world.session(mint_pkp=True), 1)
    world.engine.close()
    return world.settings.data_dir


@pytest.fixture
def copy(used: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    import shutil

    return Path(shutil.copytree(used, tmp_path / "data"))


# The first start


def test_a_registry_address_without_code_is_refused(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    message = refused(tmp_path, **on(anvil, registry=NOBODY))
    assert message.startswith("TALLYSTICK_REGISTRY: there is no SessionRegistry at " + NOBODY)
    assert "31337" in message


def test_another_contract_is_not_taken_for_a_registry(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    usdc = create(anvil.gateway, anvil.operator, contracts.TEST_USDC)
    for number, address in enumerate((usdc, anvil.deployed.anchors)):
        message = refused(tmp_path / str(number), **on(anvil, registry=address))
        assert message.startswith(f"TALLYSTICK_REGISTRY: there is no SessionRegistry at {address}")


def test_an_operator_who_may_not_register_is_refused(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    key = "0x" + bytes(anvil.stranger.key).hex()
    message = refused(tmp_path, **on(anvil, operator_key=key))
    assert message.startswith("TALLYSTICK_OPERATOR_KEY: ")
    assert anvil.stranger.address in message
    assert key[2:] not in message


@pytest.mark.parametrize(
    ("missing", "named"),
    [("registry", "TALLYSTICK_REGISTRY"), ("operator_key", "TALLYSTICK_OPERATOR_KEY")],
)
def test_on_a_chain_elsewhere_registry_and_operator_must_be_given(
    anvil: AnvilWithContracts, tmp_path: Path, missing: str, named: str
) -> None:
    assert f"{named} is not set" in refused(tmp_path, **on(anvil, **{missing: None}))


def test_a_chain_that_does_not_answer_is_named(anvil: AnvilWithContracts, tmp_path: Path) -> None:
    url = "http://127.0.0.1:1"
    assert refused(tmp_path, **on(anvil, chain=url)).startswith(f"TALLYSTICK_CHAIN: {url}: ")


def test_an_operator_without_money_is_told_so(anvil: AnvilWithContracts, tmp_path: Path) -> None:
    anvil.rpc("anvil_setBalance", anvil.operator.address, "0x0")
    try:
        message = refused(tmp_path, **on(anvil))
    finally:
        anvil.rpc("anvil_setBalance", anvil.operator.address, hex(10**22))
    assert "insufficient funds" in message.lower()


def test_after_a_refused_first_start_the_directory_is_as_good_as_new(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    refused(tmp_path, **on(anvil, registry=NOBODY))
    assert rows(tmp_path)["meta"] == []
    opened = open_engine(settings_for(tmp_path, **on(anvil)))
    assert opened.ready()["ready"]
    opened.close()


# Every later start


def test_a_directory_of_an_embedded_chain_is_not_opened_on_another(
    anvil: AnvilWithContracts, copy: Path
) -> None:
    before, height = rows(copy), anvil.gateway.head().number
    message = refused(copy, **on(anvil))
    assert "belongs to another chain: its chain id is" in message
    assert "31337" in message
    assert rows(copy) == before
    assert anvil.gateway.head().number == height


def test_a_directory_of_a_chain_elsewhere_is_not_opened_on_an_embedded_one(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    with anvil.world(tmp_path):
        pass
    message = refused(tmp_path)
    assert "chain.sqlite3 is missing" in message
    assert "31337" in message
    assert not (tmp_path / "chain.sqlite3").exists()


def test_the_same_chain_id_with_another_genesis_is_another_chain(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    with anvil.world(tmp_path):
        pass
    before = rows(tmp_path)
    # One that is a little younger, so that its genesis has another time.
    with AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None, balance_ether=9) as other:
        message = refused(tmp_path, **on(anvil, chain=other.url))
    assert "belongs to another chain: its genesis block is" in message
    assert rows(tmp_path) == before


def test_a_database_of_another_chain_is_refused_as_what_it_is(
    anvil: AnvilWithContracts, database_url: str, tmp_path: Path
) -> None:
    shared = {"database": database_url, "kek": "the same for every server"}
    with anvil.world(tmp_path / "first", **shared):
        pass
    with AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None, balance_ether=9) as other:
        message = refused(tmp_path / "second", **on(anvil, chain=other.url, **shared))
    assert message.startswith("this database belongs to another chain: its genesis block is")
    assert message.endswith("choose another TALLYSTICK_DATABASE for it")
    message = refused(tmp_path / "third", **on(anvil, registry=NOBODY, **shared))
    assert "but this database belongs to" in message


def test_a_database_is_named_where_it_has_another_embedded_chain_or_none(
    database_url: str, tmp_path: Path
) -> None:
    shared = {"database": database_url, "kek": "the same for every server"}
    alone = World(tmp_path / "alone")
    alone.session(mint_pkp=True)
    alone.engine.tick()
    alone.engine.close()
    message = refused(tmp_path / "alone", **shared)
    assert message.startswith("TALLYSTICK_DATABASE is empty or missing, but the embedded chain in ")
    open_engine(settings_for(tmp_path / "first", **shared)).close()
    message = refused(tmp_path / "second", **shared)
    assert "chain.sqlite3 is missing: this database belongs to the chain with id" in message
    assert message.endswith("choose another TALLYSTICK_DATABASE")


def test_a_chain_file_that_was_removed_is_missed(copy: Path) -> None:
    (copy / "chain.sqlite3").unlink()
    assert "chain.sqlite3 is missing" in refused(copy)
    assert not (copy / "chain.sqlite3").exists()


def test_a_chain_file_that_was_begun_anew_is_noticed(copy: Path) -> None:
    (copy / "chain.sqlite3").unlink()
    EmbeddedChain(copy / "chain.sqlite3").close()
    before = rows(copy)
    message = refused(copy)
    assert "belongs to another chain: its" in message
    assert rows(copy) == before


def test_another_registry_or_operator_than_before_is_refused(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    with anvil.world(tmp_path):
        pass
    message = refused(tmp_path, **on(anvil, registry=NOBODY))
    assert message.startswith(f"TALLYSTICK_REGISTRY is {NOBODY}, but")
    key = "0x" + bytes(anvil.stranger.key).hex()
    message = refused(tmp_path, **on(anvil, operator_key=key))
    assert message.startswith(f"TALLYSTICK_OPERATOR_KEY is the key of {anvil.stranger.address}")
    assert key[2:] not in message
    reopened = open_engine(settings_for(tmp_path, **on(anvil, registry=None, operator_key=None)))
    assert reopened.ready()["ready"], "both are kept, so that they need not be given again"
    reopened.close()


def _another_kek(directory: Path) -> None:
    (directory / "kek").write_text("00" * 32)


def _no_kek(directory: Path) -> None:
    (directory / "kek").unlink()


def _half_a_kek(directory: Path) -> None:
    (directory / "kek").write_text("00" * 15)


def _kek_of_words(directory: Path) -> None:
    (directory / "kek").write_text("correct horse battery staple")


def _readable_kek(directory: Path) -> None:
    (directory / "kek").chmod(0o644)


def _kek_of_the_group(directory: Path) -> None:
    (directory / "kek").chmod(0o640)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_another_kek, "cannot be decrypted: TALLYSTICK_KEK (or the kek file)"),
        (_no_kek, "kek is missing: put it back, or set TALLYSTICK_KEK"),
        (_half_a_kek, "does not hold 256 bits in hexadecimal"),
        (_kek_of_words, "does not hold 256 bits in hexadecimal"),
        (_readable_kek, "others may read it; chmod 600"),
        (_kek_of_the_group, "others may read it; chmod 600"),
    ],
)
def test_a_key_encryption_key_that_is_wrong_or_open_is_refused(
    copy: Path, spoil: Callable[[Path], None], said: str
) -> None:
    before = rows(copy)
    secret = (copy / "kek").read_text()
    spoil(copy)
    files = keys(copy)
    message = refused(copy)
    assert said in message
    assert secret not in message
    assert rows(copy) == before
    assert keys(copy) == files


def test_a_passphrase_opens_only_what_it_sealed(tmp_path: Path) -> None:
    World(tmp_path, own=True, kek="correct horse battery staple").engine.close()
    before = keys(tmp_path)
    assert before.keys() == {"kek.salt"}
    assert "cannot be decrypted" in refused(tmp_path, kek="correct horse battery stable")
    assert "kek is missing: put it back, or set TALLYSTICK_KEK" in refused(tmp_path)
    assert keys(tmp_path) == before
    opened = open_engine(settings_for(tmp_path, kek="correct horse battery staple"))
    opened.close()


def test_a_passphrase_for_what_the_file_sealed_leaves_no_salt(copy: Path) -> None:
    before = keys(copy)
    message = refused(copy, kek="correct horse battery staple")
    assert "kek.salt is missing: put it back, or unset TALLYSTICK_KEK" in message
    assert keys(copy) == before
    opened = open_engine(settings_for(copy))
    opened.close()


@pytest.mark.parametrize(
    "changes", [{}, {"kek": "correct horse battery staple"}], ids=["file", "passphrase"]
)
def test_a_key_of_a_first_start_that_came_to_no_end_may_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    with monkeypatch.context() as interrupted:
        interrupted.setattr("engine.deployment._first_start", _no_power)
        refused(tmp_path, **changes)
    [kept] = keys(tmp_path)
    (tmp_path / kept).unlink()
    open_engine(settings_for(tmp_path, **changes)).close()


def _no_power(*_: object) -> None:
    raise CannotStart("there was no power")


def test_a_salt_that_a_database_has_lost_is_not_made_anew(
    anvil: AnvilWithContracts, database_url: str, tmp_path: Path
) -> None:
    shared = {"database": database_url, "kek": "the same for every server"}
    with anvil.world(tmp_path, **shared):
        pass
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'kek_salt'")
    for _ in range(2):
        message = refused(tmp_path, **on(anvil, **shared))
        assert message == "the ledger's meta table has lost kek_salt"


def test_a_directory_in_use_is_refused_and_its_user_is_not_disturbed(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    message = refused(tmp_path / "data")
    assert f"data directory {tmp_path / 'data'} is in use by another process" in message
    assert "TALLYSTICK_DATA_DIR" in message
    assert world.session(mint_pkp=True).state == "active"
    world.engine.close()


def test_a_refused_start_lets_go_of_the_directory(copy: Path) -> None:
    secret = (copy / "kek").read_text()
    _another_kek(copy)
    refused(copy)
    (copy / "kek").write_text(secret)
    opened = open_engine(settings_for(copy))
    assert len(opened.sessions.page(WORKSPACE, offset=0, limit=1000)[0]) == 1
    opened.close()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert f"data directory {tmp_path / 'file' / 'data'}" in refused(tmp_path / "file" / "data")


def _text(file: Path) -> None:
    file.write_text("not a database at all, but long enough to look at " * 40)


def _foreign(file: Path) -> None:
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as raw:
        raw.execute("CREATE TABLE notes (id INTEGER)")


def _torn(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096:12288] = bytes(8192)
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["ledger.sqlite3", "chain.sqlite3"])
@pytest.mark.parametrize("spoil", [_text, _foreign, _torn])
def test_a_damaged_or_foreign_file_is_named_and_left_alone(
    copy: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    spoil(copy / name)
    before = (copy / name).read_bytes()
    assert str(copy / name) in refused(copy)
    assert (copy / name).read_bytes() == before


def test_a_record_that_was_changed_is_noticed(copy: Path) -> None:
    """A checkpoint was signed over the records as they were."""
    opened = open_engine(settings_for(copy))
    opened.anchor()
    opened.close()
    with contextlib.closing(sqlite3.connect(copy / "ledger.sqlite3")) as raw:
        raw.execute(
            "UPDATE records SET body = CAST(replace(CAST(body AS TEXT), ?, ?) AS BLOB) "
            "WHERE id = (SELECT id FROM records "
            "WHERE CAST(body AS TEXT) LIKE '%payment.decided%' ORDER BY id DESC LIMIT 1)",
            ('"amount_micro_usd":1', '"amount_micro_usd":2'),
        )
        assert raw.total_changes == 1
        raw.commit()
    assert "is missing or was changed" in refused(copy)


def test_what_was_found_at_the_start_is_what_the_first_start_left(used: Path, copy: Path) -> None:
    before = SqliteDatabase(copy / "ledger.sqlite3")
    stored = stored_deployment(before)
    before.close()
    opened = open_engine(settings_for(copy))
    deployment = opened.deployment
    assert (deployment.registry, deployment.anchors) == (stored["registry"], stored["anchors"])
    assert deployment.genesis_hash.hex() == stored["genesis_hash"]
    assert (deployment.origin, deployment.log_id.hex()) == (stored["origin"], stored["log_id"])
    assert [token.symbol for token in deployment.tokens] == ["USDC"]
    opened.close()


def test_a_symbol_means_the_first_token_of_its_chain_that_has_it(copy: Path) -> None:
    first, _, elsewhere = tokens = [
        Token(symbol="ONE", asset=f"eip155:{chain}/erc20:0x{pair * 20}", decimals=6)
        for chain, pair in ((1, "01"), (1, "02"), (2, "03"))
    ]
    opened = open_engine(settings_for(copy, tokens=tokens))
    found = [opened.token("ONE", f"eip155:{chain}") for chain in (1, 2, 3)]
    assert found == [first, elsewhere, None]
    assert opened.token("ONE", None) is None, "the main chain has none of that name"
    assert opened.token("USDC", None) == opened.deployment.tokens[-1]
    opened.close()


def test_an_embedded_chain_that_remembers_more_than_an_empty_ledger_is_refused(copy: Path) -> None:
    """The ledger's file is gone; a new one would have every budget full again."""
    for name in ("ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm"):
        (copy / name).unlink(missing_ok=True)
    for _ in range(2):
        assert "ledger.sqlite3 is empty or missing" in refused(copy)


def test_what_the_ledger_has_lost_of_its_identity_is_named(copy: Path) -> None:
    with contextlib.closing(sqlite3.connect(copy / "ledger.sqlite3")) as raw:
        raw.execute("DELETE FROM meta WHERE key IN ('origin', 'log_id')")
        raw.commit()
    assert refused(copy) == "the ledger's meta table has lost log_id, origin"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("log_id", "11" * 32),
        ("log_id", "zz"),
        ("log_key", "zz"),
        ("operator", "zz"),
        ("origin", ""),
        ("start_block", "x"),
        ("chain_id", "one"),
        ("usdc", "0x12"),
    ],
)
def test_a_damaged_identity_is_refused(copy: Path, key: str, value: str) -> None:
    with contextlib.closing(sqlite3.connect(copy / "ledger.sqlite3")) as raw:
        raw.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
        raw.commit()
    assert refused(copy).startswith("the ledger's meta table is damaged: ")


def test_two_installations_with_one_passphrase_share_no_key(tmp_path: Path) -> None:
    salts = []
    for name in ("one", "other"):
        World(tmp_path / name, own=True, kek="correct horse battery staple").engine.close()
        salts.append((tmp_path / name / "kek.salt").read_text())
    assert salts[0] != salts[1]
    (tmp_path / "one" / "kek.salt").write_text(salts[1])
    message = refused(tmp_path / "one", kek="correct horse battery staple")
    assert "cannot be decrypted" in message


def test_a_directory_that_is_removed_under_the_engine_stops_every_decision(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    view = world.session()
    (tmp_path / "data").rename(tmp_path / "gone")
    with pytest.raises(Unavailable):
        world.engine.tick()
    with pytest.raises(Unavailable, match="the data directory was removed"):
        world.pay(view, 1)
    assert world.engine.ready()["ready"] is False
    world.engine.close()
