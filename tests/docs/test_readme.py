"""The README is typed in as it stands, and everything in it works."""

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main

from tallystick.cli import app
from tests.cli.processes import environment
from tests.cli.test_any_invocation import commands
from tests.docs.terminal import PATIENCE_S, Terminal
from tests.paying.shop import open_shop

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS: list[tuple[str, str]] = FENCED.findall(README)

# What tests/test_demo.py runs, and what runs this test.
RUN_ELSEWHERE = ("./scripts/demo", "./scripts/test")
# A command that keeps its terminal, and what it has printed when it is up.
THIRD_KEY_OF_ANVIL = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
KEEPS_ITS_TERMINAL = {"tallystick serve": "registry", "tallystick chain": THIRD_KEY_OF_ANVIL}
SHOP = "https://api.shop.test"
WALLET = "0x" + "1" * 40
# What the reader fills in: the place in the command, and where it was printed.
FROM_BEFORE = [
    (r"zfi_test_…", r"(zfi_test_\w+)"),
    (r"zai_session_…", r"(zai_session_\w+)"),
    (r"(?<=--registry )0x…", r"registry +(0x[0-9a-f]{40})\b"),
    (r"(?<=tallystick fund )0x…", r"on-chain identity +(0x[0-9a-f]{40})\b"),
    (r"(?<=--token )0x…", r"test USDC +(0x[0-9a-f]{40})\b"),
    (r"(?<=TALLYSTICK_REGISTRY=)0x…", r"TALLYSTICK_REGISTRY=(0x[0-9a-f]{40})\b"),
    (r"(?<=TALLYSTICK_OPERATOR_KEY=)0x…", r"0x\w{40}  (0x[0-9a-f]{64})\b"),
    (r"(?<= USDC=)0x…", r"erc20:(0x[0-9a-f]{40})\b"),
    (r"(?<= IDENTITY=)0x…", r"on-chain identity +(0x[0-9a-f]{40})\b"),
    (r"(?<= PRIVATE_KEY=)0x…", r"anvil .*\n +0x\w{40}  (0x[0-9a-f]{64})\b"),
    (r"(?<=TALLYSTICK_TOKENS=)'\[…\]'", r"TALLYSTICK_TOKENS=('\[.*\]')"),
    (r"\bSESSION\b", r"\b(sess_\w+)"),
    (r"\bPAYMENT\b", r"\b(pay_\w+)"),
]


def without_comment(line: str) -> str:
    return re.sub(r"(^|\s+)#.*", "", line)


class Reader:
    """Somebody with the README and a few terminals, in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.printed = ""
        self.terminals: list[Terminal] = []
        self.port, self.rpc_port = free_ports()
        self.open = ExitStack()
        self._shop: str | None = None
        (directory / ".venv").symlink_to(ROOT / ".venv")
        (directory / "contracts").symlink_to(ROOT / "contracts")
        anvil = (ROOT / "anvil.toml").read_text()
        assert "port = 8545" in anvil
        (directory / "anvil.toml").write_text(anvil.replace("8545", str(self.rpc_port)))

    def read(self, language: str, block: str) -> None:
        """Do what a block says."""
        if language == "python":
            (self.directory / "readme.py").write_text(self.filled(block))
            self.printed += self.idle().run("python readme.py")
        for line in block.splitlines() if language == "sh" else ():
            self.type(without_comment(line))

    def type(self, line: str) -> None:
        """Type one line."""
        if line == "" or line in RUN_ELSEWHERE:
            return
        if line == ". .venv/bin/activate":  # the first thing in a terminal
            self.terminals.append(Terminal(self.directory, self.environment()))
        if line == "tallystick chain":  # "Stop the server above first"
            self.stop()
        if (until := KEEPS_ITS_TERMINAL.get(line)) is not None:
            self.printed += self.idle().start(line, until)
        else:
            self.printed += self.idle().run(self.filled(line))
        if line == "tallystick serve":
            self.wait_until_ready()

    def filled(self, text: str) -> str:
        """The text with what was printed before in its blanks, and with our ports."""
        for place, source in FROM_BEFORE:
            if re.search(place, text):
                *_, newest = re.findall(source, self.printed)
                text = re.sub(place, newest.replace("\\", r"\\"), text)
        text = re.sub(r"(?<=--wallet )0x…|(?<=--to )0x…|(?<=user_wallet=\")0x…", WALLET, text)
        if SHOP in text:
            text = text.replace(SHOP, self.shop())
        text = text.replace(":8402", f":{self.port}").replace(":8545", f":{self.rpc_port}")
        assert "…" not in "".join(map(without_comment, text.splitlines())), "a blank is left"
        return text

    def shop(self) -> str:
        """Where the shop really is; it opens when it is first visited."""
        if self._shop is None:
            usdc = self.deployed()
            facilitator = f"{self.url}/facilitator"
            self._shop = self.open.enter_context(open_shop(facilitator, *usdc))
        return self._shop

    def deployed(self) -> tuple[str, str]:
        """The chain, and the test USDC on it, as the newest payment has them."""
        [newest] = self.asked("/api/v1/payments?limit=1")["data"]
        return newest["chain"], newest["payment_token"].rpartition(":")[2]

    def asked(self, path: str) -> Any:
        """What the server answers its operator."""
        *_, key = re.findall(r"(zfi_test_\w+)", self.printed)
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{self.url}{path}", headers=headers, trust_env=False).json()

    def idle(self) -> Terminal:
        """The newest terminal that nothing runs in."""
        return next(terminal for terminal in reversed(self.terminals) if not terminal.is_busy)

    def environment(self) -> dict[str, str]:
        """The defaults of the ports may be taken on this machine."""
        ours = {"port": str(self.port), "rpc_port": str(self.rpc_port), "url": self.url}
        return environment(**ours) | {"PYTHONUNBUFFERED": "1"}

    @property
    def url(self) -> str:
        """Where the server is."""
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self) -> None:
        """As long as somebody takes to turn to another terminal."""
        deadline = time.monotonic() + PATIENCE_S
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            while True:
                try:
                    if client.get("/readyz").is_success:
                        return
                except httpx.TransportError:
                    pass
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        """Ctrl-C in every terminal that is busy, the last first."""
        for terminal in reversed(self.terminals):
            if terminal.is_busy:
                terminal.ctrl_c()


def free_ports() -> tuple[int, int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader whose terminals are closed at the end."""
    found = Reader(tmp_path)
    yield found
    for terminal in found.terminals:
        terminal.close()
    found.open.close()


def test_every_command_works(reader: Reader) -> None:
    for language, block in BLOCKS:
        reader.read(language, block)
    assert httpx.get(f"{reader.url}/api/v1/deployment", trust_env=False).json()["chain"] == (
        "eip155:31337"
    )
    reader.stop()
    said = reader.printed
    assert re.search(r"^VERIFIED$", said, re.MULTILINE)
    assert re.search(r"^captured \d", said, re.MULTILINE), "the Python example paid"
    assert re.search(r"^paid \$0\.01 to 0x", said, re.MULTILINE)
    assert said.count('{"sold":7}') == 2
    assert (reader.directory / "report.json").read_text() == '{"sold":7}'
    assert re.search(r"is revoked$", said, re.MULTILINE)
    assert re.search(r"^agent +helper\b", said, re.MULTILINE)
    assert re.search(r"^status +1 \(success\)$", said, re.MULTILINE), "test USDC was made on Anvil"
    written = {path.name for path in reader.directory.iterdir()}
    assert {"evidence.json", "tallystick-data", "tallystick-anvil"} <= written


def test_no_command_hides_from_the_test() -> None:
    """It would have to stand in a block of another kind, or in a comment."""
    assert README.count("```") == 2 * len(BLOCKS)
    for language, block in BLOCKS:
        assert language in ("sh", "python", "")
        for line in block.splitlines():
            if language == "":
                assert not line.startswith(("$", ".", "tallystick", "export", "python"))
            else:
                assert "tallystick " not in line.removeprefix(without_comment(line))
    lines = {line for language, block in BLOCKS if language == "sh" for line in block.splitlines()}
    typed = {without_comment(line) for line in lines}
    assert set(RUN_ELSEWHERE) | set(KEEPS_ITS_TERMINAL) <= typed


def test_every_script_that_is_named_can_be_run() -> None:
    scripts = set(re.findall(r"\./(scripts/\w+)", README))
    assert {"scripts/demo", "scripts/test", "scripts/setup"} <= scripts
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK), script
        assert shutil.which("bash")


def test_every_command_and_option_that_the_text_names_exists() -> None:
    known = {" ".join(words) for words in commands(typer.main.get_command(app))}
    text = FENCED.sub("", README)
    quoted = re.findall(r"`([^`\n]+)`", text)
    named = [words for words in quoted if words.startswith("tallystick ")]
    assert named
    for words in named:
        assert any((words + " ").startswith(f"tallystick {command} ") for command in known - {""})
    options = {option for words in quoted for option in re.findall(r"--[a-z-]+", words)}
    assert options <= known_options(typer.main.get_command(app))


def known_options(command: object) -> set[str]:
    """The options of a command and of all below it."""
    found = {name for parameter in getattr(command, "params", ()) for name in parameter.opts}
    for below in getattr(command, "commands", {}).values():
        found |= known_options(below)
    return found
