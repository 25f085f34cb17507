"""`tallystick serve` begins, ends and refuses as it should; each start is a process."""

import contextlib
import json
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from engine.chain.gateway import BlockHeader
from engine.chain.json_rpc import JsonRpcChain
from engine.workspaces.people import Credential, People
from tallystick import Client
from tests.anvil_world import anvil_with_contracts
from tests.cli.processes import Serving, called, one_line, tallystick
from tests.world import World


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was in use, not to be changed."""
    world = World(tmp_path_factory.mktemp("used") / "data")
    world.pay(world.session(mint_pkp=True), 1)
    people = People(world.engine.database, world.engine.writer)
    people.set_up(str(people.first()), Credential("YWRh", "", b"a key", True, 0))
    world.engine.close()
    return world.settings.data_dir


@pytest.fixture
def copy(used: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(used, tmp_path / "data"))


@pytest.fixture
def taken() -> Iterator[str]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield str(listening.getsockname()[1])


def refused(directory: Path, *arguments: str, **variables: str) -> str:
    """The one line in which `serve` says why it does not start."""
    given = {"data_dir": str(directory), "port": "0", "rpc_port": "0"} | variables
    before = signal.getsignal(signal.SIGTERM)
    done = called("serve", *arguments, **given)
    signal.signal(signal.SIGTERM, before)
    structlog.reset_defaults()
    assert done.stdout == ""
    line = one_line(done, 1)
    assert line.startswith(("cannot_start: ", "chain_error: "))
    return line


def blocks(rpc: str) -> list[BlockHeader | None]:
    """All blocks of a served chain."""
    chain = JsonRpcChain(rpc)
    found = [chain.block(number) for number in range(chain.head().number + 1)]
    chain.close()
    return found


def indexed(directory: Path) -> dict[int, bytes]:
    """The blocks that a server, which may be running, has read."""
    uri = f"file:{directory / 'ledger.sqlite3'}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as raw:
        return dict(raw.execute("SELECT number, hash FROM chain_blocks").fetchall())


def test_what_was_answered_survives_a_kill_and_the_key_is_shown_once(tmp_path: Path) -> None:
    first = Serving(tmp_path)
    assert first.first_key is not None
    with Client(first.url, api_key=first.first_key) as client:
        session = client.create_session(
            agent_id="a", user_wallet="0x" + "1" * 40, mint_pkp=True, limits={"max_per_day": 10}
        )
        client.pay("4", session_token=session["session_token"])
        assert client.anchor()["anchor"]["state"] == "final"
    before = blocks(first.rpc)
    assert first.stop(signal.SIGKILL)[0] == -signal.SIGKILL

    second = Serving(tmp_path)
    assert second.first_key is None
    assert first.first_key not in "\n".join(second.lines)
    assert second.registry == first.registry
    assert blocks(second.rpc) == before
    assert indexed(tmp_path).items() <= {b.number: b.hash for b in before if b}.items()
    assert max(indexed(tmp_path)) == len(before) - 1
    with Client(second.url, api_key=first.first_key) as client:
        found = client.session(session["id"])
        assert (found["status"], found["remaining_today"]) == ("active", 6)
        with pytest.raises(Exception, match="LIMIT_EXCEEDED"):
            client.pay("6.000001", session_token=session["session_token"])
        client.pay("6", session_token=session["session_token"])
    assert second.stop(signal.SIGTERM) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("chain.sqlite3", "facilitator.sqlite3", "kek", "ledger.sqlite3", "lock"),
        *("storage.sqlite3", "storage.sqlite3.lock"),
    ], "after a clean close no write-ahead log is left"
    assert (tmp_path / "kek").stat().st_mode & 0o777 == 0o600


def test_a_key_of_ones_own_is_never_printed_one_more_admin_can_be_set_up_and_ctrl_c_ends_it(
    copy: Path,
) -> None:
    key = "zfi_test_of_my_own_choosing_123456"
    server = Serving(copy, "--new-admin", admin_key=key)
    assert key not in "\n".join(server.lines)
    assert server.found(r"http://localhost:\d+/studio/set-up#(zfi_setup_[0-9a-f]{64}) ")
    with Client(server.url, api_key=key) as client:
        [session] = client.sessions()
    assert session["status"] == "active"

    another = tallystick("serve", data_dir=str(copy), port="0", rpc_port="0")
    assert f"data directory {copy} is in use by another process" in one_line(another, 1)
    assert server.stop(signal.SIGINT) == (0, "")


def test_a_port_in_use_that_was_typed_is_called_as_it_was_typed(tmp_path: Path, taken: str) -> None:
    line = refused(tmp_path, "--port", taken)
    assert line.startswith(f"cannot_start: --port: cannot listen on 127.0.0.1:{taken}: ")


def test_a_port_in_use_is_said_and_does_not_cost_the_first_key(tmp_path: Path, taken: str) -> None:
    for name in ("port", "rpc_port"):
        line = refused(tmp_path, **{name: taken})
        assert line.startswith(f"cannot_start: TALLYSTICK_{name.upper()}: cannot listen on ")
        assert f"127.0.0.1:{taken}" in line
    server = Serving(tmp_path)
    assert server.first_key is not None
    with Client(server.url, api_key=server.first_key) as client:
        assert client.sessions() == []
    assert server.stop() == (0, "")


def _corrupt(directory: Path) -> None:
    with (directory / "ledger.sqlite3").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)


def _foreign(directory: Path) -> None:
    (directory / "ledger.sqlite3").unlink()
    with contextlib.closing(sqlite3.connect(directory / "ledger.sqlite3")) as raw:
        raw.execute("CREATE TABLE notes (id INTEGER)")


def _other_kek(directory: Path) -> None:
    (directory / "kek").write_text("11" * 32)


def _open_kek(directory: Path) -> None:
    (directory / "kek").chmod(0o604)


def _no_chain(directory: Path) -> None:
    (directory / "chain.sqlite3").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_corrupt, "ledger.sqlite3"),
        (_foreign, "is not a Tallystick database"),
        (_other_kek, "TALLYSTICK_KEK"),
        (_open_kek, "chmod 600"),
        (_no_chain, "chain.sqlite3 is missing"),
    ],
)
def test_a_directory_that_does_not_fit_is_one_line(
    copy: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(copy)
    assert said in refused(copy)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"prot": "8402", "qqqq": "", "apikey": "x"},
            (
                "unknown setting: TALLYSTICK_APIKEY (is TALLYSTICK_API_KEY meant?), "
                "TALLYSTICK_PROT (is TALLYSTICK_PORT meant?), TALLYSTICK_QQQQ"
            ),
        ),
        ({"host": "192.0.2.1"}, "cannot_start: TALLYSTICK_HOST: cannot listen on 192.0.2.1:0: "),
        ({"hold_ttl_s": "-1"}, "TALLYSTICK_HOLD_TTL_S"),
        ({"operator_key": "not a key at all"}, "TALLYSTICK_OPERATOR_KEY"),
        ({"tokens": "[{]"}, "TALLYSTICK_TOKENS"),
        ({"chain": "http://127.0.0.1:1"}, "127.0.0.1:1"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    line = refused(tmp_path / "data", **variables)
    assert said in line
    assert "not a key at all" not in line


def test_a_directory_of_another_chain_says_what_to_choose(copy: Path) -> None:
    with anvil_with_contracts() as anvil:
        line = refused(
            copy,
            chain=anvil.process.url,
            registry=anvil.deployed.registry,
            operator_key="0x" + bytes(anvil.operator.key).hex(),
        )
    assert "belongs to another chain" in line
    assert "choose another TALLYSTICK_DATA_DIR" in line


def test_it_logs_json_when_something_is_wrong(tmp_path: Path) -> None:
    """A chain that goes away is a line on standard error for each time it was missed."""
    with anvil_with_contracts() as anvil:
        server = Serving(
            tmp_path,
            chain=anvil.process.url,
            registry=anvil.deployed.registry,
            operator_key="0x" + bytes(anvil.operator.key).hex(),
            poll_interval_ms="300",
        )
        with Client(server.url) as client:
            anvil.process.stop()
            ready = True
            while ready:
                answer = client._http.get("/readyz")
                ready = answer.json()["ready"]
    assert answer.status_code == 503
    status, errors = server.stop()
    assert status == 0
    events = [json.loads(line) for line in errors.splitlines()]
    told = {event["event"] for event in events}
    assert {"chain_silent"} <= told <= {"chain_silent", "network_silent"}  # who was asked first
