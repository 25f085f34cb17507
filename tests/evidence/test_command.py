"""`tallystick verify` as an auditor runs it: an RPC URL and nothing else.

What a process of its own could change is seen in one; the rest is asked inside this process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.audit import canonical
from engine.chain.deploy import deploy
from engine.chain.embedded_rpc import EmbeddedRpc
from tests.cli.processes import COMMAND, Done, called
from tests.evidence.story import read
from tests.evidence.thief import Thief, imitate
from tests.world import WORKSPACE, World

SERVER_MODULES = ("fastapi", "starlette", "uvicorn", "sqlalchemy", "sqlmodel", "sqlite3", "alembic")
# The same command, where importing a server or a database is an error.
GUARDED = f"""
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {SERVER_MODULES!r}:
            raise AssertionError("imported " + name)
sys.meta_path.insert(0, Guard())
from tallystick.cli import main
main()
"""


@dataclass
class Auditor:
    """Files to verify, and the endpoint and registry to verify them against."""

    directory: Path
    rpc: str
    registry: str
    other_registry: str
    token: str
    verified: bytes
    pending: bytes
    spent: bytes

    def run(
        self,
        file: bytes | Path,
        *options: str,
        command: Sequence[str | Path] = (),
        rpc: str | None = None,
    ) -> Done:
        """Verify a file: by `command`, or inside this process."""
        path = file if isinstance(file, Path) else self.directory / "evidence.json"
        if isinstance(file, bytes):
            path.write_bytes(file)
        asked: list[str | Path] = ["verify", path, "--rpc", rpc or self.rpc, *options]
        if "--registry" not in options:
            asked += ["--registry", self.registry]
        if not command:
            return called(*asked, cwd=self.directory)
        return subprocess.run(
            [*command, *asked],
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Auditor]:
    world = World(tmp_path_factory.mktemp("command") / "data")
    views = [world.session(mint_pkp=True) for _ in range(2)]
    for view in views:
        world.pay(view, 5)
    world.engine.anchor()
    verified = world.engine.evidence(WORKSPACE, views[0].id)
    world.pay(views[0], 5)
    pending = world.engine.evidence(WORKSPACE, views[0].id)
    thief = Thief(world)
    imitate(thief, views[1].grant.session_key)
    spent = world.engine.evidence(WORKSPACE, views[1].id)
    rpc = world.engine.serve_embedded_chain()
    assert isinstance(rpc, EmbeddedRpc)
    directory = tmp_path_factory.mktemp("auditor")
    deployment = world.engine.deployment
    other = deploy(world.engine.gateway, deployment.operator)
    yield Auditor(
        directory,
        rpc.url,
        deployment.registry,
        other.registry,
        thief.usdc,
        verified,
        pending,
        spent,
    )
    rpc.stop()
    world.engine.close()


def test_a_verified_file_exits_with_0_and_shows_every_check(auditor: Auditor) -> None:
    done = auditor.run(auditor.verified, command=(COMMAND,))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:3:2] for line in lines[:13]] == [[str(n), "✓"] for n in range(1, 14)]
    assert lines[-1] == "VERIFIED"


def test_json_says_the_same(auditor: Auditor) -> None:
    done = auditor.run(auditor.pending, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["exit_code"], answer["verdict"]) == (3, 3, "pending")
    assert answer["reason"] == "tail: the last 2 records are not anchored yet"
    assert [check["number"] for check in answer["checks"]] == list(range(1, 14))


def edited(file: bytes) -> bytes:
    assert b'"amount_micro_usd":5000000' in file.replace(b"\\", b"")
    return file.replace(b"5000000", b"4000000", 1)


def test_each_other_verdict_has_its_exit_status(auditor: Auditor) -> None:
    tampered = auditor.run(edited(auditor.verified))
    assert (tampered.returncode, tampered.stdout.splitlines()[-1][:14]) == (1, "TAMPERED: seal")
    unbindable = auditor.run(auditor.spent)
    assert unbindable.returncode == 5
    assert unbindable.stdout.splitlines()[-1].startswith("UNBINDABLE: spends: 1 on the chain")
    unavailable = auditor.run(auditor.verified, rpc="http://127.0.0.1:9")
    assert unavailable.returncode == 4
    assert unavailable.stdout.splitlines()[-1].startswith("UNAVAILABLE")


def test_another_registry_than_the_file_s_is_tampering(auditor: Auditor) -> None:
    done = auditor.run(auditor.verified, "--registry", auditor.other_registry)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("TAMPERED: chain: the file is of registry")
    assert done.stdout.count("not checked: it rests on the ") == 8


def test_a_registry_that_is_none_says_nothing_about_the_file(auditor: Auditor) -> None:
    """An address without code, and the address of another contract."""
    for address in ("0x" + "12" * 20, auditor.token):
        done = auditor.run(auditor.verified, "--registry", address)
        assert done.returncode == 4
        said = f"UNAVAILABLE: chain: there is no SessionRegistry at {address} on chain"
        assert done.stdout.splitlines()[-1].startswith(said)
        assert "--registry" in done.stdout


def test_a_further_chain_is_asked_and_must_be_the_one_that_is_named(auditor: Auditor) -> None:
    """The endpoint serves another chain than it is given for."""
    done = auditor.run(auditor.verified, "--network", f"eip155:8453={auditor.rpc}")
    assert done.returncode == 4
    assert "spends: the endpoint for eip155:8453 serves eip155:" in done.stdout.splitlines()[-1]


def test_what_is_no_evidence_is_called_that(auditor: Auditor) -> None:
    done = auditor.run(b"\x89PNG\r\n")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "TAMPERED: format: this is not an evidence file"


@pytest.mark.parametrize(
    ("file", "options"),
    [
        pytest.param(Path("missing.json"), (), id="no file"),
        pytest.param(Path("/"), (), id="a directory"),
        pytest.param(b"", ("--registry", "0x12"), id="no address"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_no_verdict(
    auditor: Auditor, file: bytes | Path, options: tuple[str, ...]
) -> None:
    done = auditor.run(file, *options)
    assert done.returncode not in (0, 3, 4, 5)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_nothing_in_the_file_reaches_the_terminal_as_a_command(auditor: Auditor) -> None:
    document = read(auditor.verified)
    document["chain"]["registry"] = "\x1b[2J\rVERIFIED\n[green]\u202e"
    done = auditor.run(canonical.encode(document) + b"\n")
    assert done.returncode == 1
    assert r"the file is of registry \x1b[2J\rVERIFIED\n[green]\u202e, not yours" in done.stdout
    assert {"\x1b", "\r", "\u202e"}.isdisjoint(done.stdout + done.stderr)


def test_it_imports_no_server_and_no_database(auditor: Auditor) -> None:
    done = auditor.run(auditor.verified, command=(sys.executable, "-c", GUARDED))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "VERIFIED"


PURE = ("engine.grant", "engine.policy", "engine.audit")
# What opens files, sockets or processes, or tells the time to who should not ask.
IMPURE = (
    *SERVER_MODULES,
    "eth_tester",
    "eth",
    "web3",
    "httpx",
    "requests",
    "aiohttp",
    "websockets",
    "structlog",
    "pydantic",
    "engine.chain",
    "engine.db",
    "engine.ledger",
    "engine.evidence",
    "engine.engine",
)


def test_the_guard_would_be_heard(auditor: Auditor) -> None:
    planted = GUARDED.replace("main()\n", "import sqlite3\nmain()\n")
    done = auditor.run(auditor.verified, command=(sys.executable, "-c", planted))
    assert done.returncode == 1
    assert "imported sqlite3" in done.stderr


def test_the_pure_parts_load_nothing_that_does_input_or_output() -> None:
    root = Path(__file__).parents[2]
    modules = [
        ".".join(path.relative_to(root).with_suffix("").parts)
        for package in PURE
        for path in sorted((root / package.replace(".", "/")).glob("*.py"))
        if path.stem != "__init__"
    ]
    assert "engine.audit.verify" in modules
    program = (
        "import importlib, sys\n"
        f"for name in {[*modules, 'engine.grant']!r}: importlib.import_module(name)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "engine.audit.replay" in loaded
    assert sorted(name for name in IMPURE if name in loaded) == []


# Several endpoints, and what else an auditor can insist on.


def test_endpoints_that_agree_are_all_asked(auditor: Auditor) -> None:
    done = auditor.run(auditor.verified, "--rpc", auditor.rpc)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "VERIFIED"


def test_an_endpoint_that_does_not_answer_is_named_without_its_secrets(auditor: Auditor) -> None:
    done = auditor.run(auditor.verified, "--rpc", "http://user:word@127.0.0.1:9/key?secret=1")
    assert done.returncode == 4
    assert "endpoint 2 (http://127.0.0.1:9)" in done.stdout
    assert [secret for secret in ("word", "key?", "secret") if secret in done.stdout] == []


def test_the_anchor_registry_and_the_chain_can_be_insisted_on(auditor: Auditor) -> None:
    document = read(auditor.verified)
    anchors, chain_id = document["chain"]["anchors"], document["chain"]["chain_id"]
    done = auditor.run(auditor.verified, "--anchors", anchors, "--chain-id", chain_id)
    assert (done.returncode, done.stderr) == (0, "")
    done = auditor.run(auditor.verified, "--anchors", "0x" + "AB" * 20)
    assert done.returncode == 4
    said = f"names the anchor registry {anchors}, not yours (--anchors)"
    assert said in done.stdout.splitlines()[-1]
    done = auditor.run(auditor.verified, "--chain-id", "1")
    assert done.returncode == 4
    assert f"serves chain {chain_id}, not 1 (--chain-id)" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "options",
    [
        ("--anchors", "0x1"),
        ("--chain-id", "x"),
        ("--html", "missing/report.html"),
        ("--network", "eip155:8453"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(auditor: Auditor, options: tuple[str, str]) -> None:
    done = auditor.run(auditor.verified, *options)
    assert done.returncode not in (0, 1, 3, 4, 5)
    assert options[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_the_report_for_people_is_written_beside_the_verdict(auditor: Auditor) -> None:
    path = auditor.directory / "report.html"
    done = auditor.run(auditor.verified, "--html", str(path))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "VERIFIED")
    first = path.read_text()
    assert first.startswith("<!doctype html>")
    assert "evidence.json" in first
    auditor.run(auditor.verified, "--html", str(path), "--json")
    assert path.read_text() == first  # it tells no time but the file's and the chain's


def test_json_retells_what_the_checks_vouch_for(auditor: Auditor) -> None:
    answer = json.loads(auditor.run(auditor.pending, "--json").stdout)
    document = read(auditor.pending)
    assert answer["session"]["owner"] == document["session"]["grant"]["owner"]
    assert answer["history"]["session_id"] == document["session"]["id"]
    payments = answer["history"]["payments"]
    assert [payment["anchored"] for payment in payments] == [True, False]
    assert answer["history"]["records"] == {"anchored": 5, "not_anchored": 2}
    assert answer["history"]["totals"]["captured_micro_usd"] == 10_000_000


# The same command, where connecting to anything but the endpoint is an error.
ALONE = """
import sys
from urllib.parse import urlsplit
allowed = [urlsplit(sys.argv[at + 1]).port for at, a in enumerate(sys.argv) if a == "--rpc"]
connected = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        connected.append(arguments[1])
        if arguments[1][0] != "127.0.0.1" or arguments[1][1] not in allowed:
            raise AssertionError(f"connects to {arguments[1]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if arguments[0] != "127.0.0.1":
            raise AssertionError(f"looks up {arguments[0]}")
    elif event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork"):
        raise AssertionError(f"runs {arguments}")
sys.addaudithook(watch)
from tallystick.cli import main
try:
    main()
finally:
    print(len(connected), "connections", file=sys.stderr)
"""


def test_it_connects_to_its_endpoint_and_to_nothing_else(auditor: Auditor) -> None:
    done = auditor.run(auditor.verified, command=(sys.executable, "-c", ALONE))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "VERIFIED")
    assert done.stderr == "1 connections\n"


def test_a_connection_to_anything_else_would_be_heard(auditor: Auditor) -> None:
    elsewhere = "import socket; socket.create_connection(('127.0.0.2', 9)); main()"
    planted = ALONE.replace("    main()", f"    {elsewhere}")
    done = auditor.run(auditor.verified, command=(sys.executable, "-c", planted))
    assert done.returncode == 1
    assert "looks up 127.0.0.2" in done.stderr
