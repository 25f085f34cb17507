"""Two servers with the same past: one answers payments the short way, one by its routes alone.

The same bytes are sent to both, and their answers are compared byte by byte. Only the date of an
answer may differ.
"""

import contextlib
import json
import re
import select
import shutil
import socket
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from api.server import Server
from engine.clock import ManualClock, system_clock
from engine.engine import Engine
from engine.policy.limits import Limits
from tests.rest.served import PAYMENTS, SMART
from tests.world import NO_LIMITS, USD, WORKSPACE, World

WAYS = {PAYMENTS: "amount", SMART: "amount_usd"}
UNKNOWN_TOKEN = "zai_session_" + "0" * 64
PLAIN = {"Host": "localhost", "Content-Type": "application/json"}
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_DATE = re.compile(rb"\r\ndate: [^\r]*\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


class ByRoutesAlone(Server):
    """The same server on uvicorn's own protocol."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, "127.0.0.1", 0)
        self._server.config.http = "h11"


class Connection:
    """A raw connection that is made again when the server has closed it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        host, _, port = server.url.removeprefix("http://").partition(":")
        self._address = (host, int(port))
        self._open()

    def send(self, *parts: bytes) -> None:
        """Send these bytes, each part in a packet of its own as far as we can tell."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # heard by who reads
            for part in parts:
                self.socket.sendall(part)

    def answer(self) -> bytes:
        """The next whole answer; ` closed` stands behind it if the server closed then."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            assert self._receive(), "closed without an answer"
        head = self._received[: end + 2]
        length = _LENGTH.search(head)
        if length is None or b"\r\nconnection: close\r\n" in head.lower():
            return self.everything() + b" closed"
        size = end + 4 + int(length[1])
        while len(self._received) < size:
            assert self._receive(), "closed within an answer"
        whole, self._received = self._received[:size], self._received[size:]
        return _DATE.sub(b"\r\n", whole)

    def closed(self) -> bool:
        """Take what is here already; whether the server has closed."""
        while select.select([self.socket], [], [], 0)[0]:
            if not self._receive():
                return True
        return False

    def exchange(self, request: bytes) -> bytes:
        """Send a request and return its answer."""
        self.send(request)
        return self.answer()

    def everything(self, *, again: bool = True) -> bytes:
        """All that is sent until the server closes; then connect `again`."""
        while self._receive():
            pass
        whole = _DATE.sub(b"\r\n", self._received)
        self.close()
        if again:
            self._open()
        return whole

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def _open(self) -> None:
        self.socket = socket.create_connection(self._address, timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def _receive(self) -> bytes:
        try:
            data = self.socket.recv(65_536)
        except ConnectionResetError:  # closed while there was more to read
            data = b""
        self._received += data
        return data


class Twins:
    """The two, and a connection to each. `tokens` are of sessions that both know, by their kind."""

    def __init__(self, directory: Path) -> None:
        clock = ManualClock(system_clock())
        self.tokens: dict[str, str] = {}
        self.worlds = [World(directory / "lean", clock=clock)]
        first = self.worlds[0]
        self.key = first.operator_key or ""
        self._session("plain")
        self._session("limited", limits=Limits(None, 100 * USD, None, None, None))
        self._session("listed", merchants=("books",))
        self._session("anchored", mint_pkp=True)
        self._session(
            "delegating",
            limits=Limits(None, 100 * USD, None, None, None),
            conditions=("at most 9 payments per hour",),
        )
        self._session(
            "beneath",
            limits=Limits(None, 100 * USD, None, None, None),
            conditions=("at most 9 payments per hour",),
            parent_id=self._last,
        )
        self._session("revoked")
        first.engine.revoke_session(WORKSPACE, self._last, by="test")
        self.other_key = first.engine.access.create_workspace("other", "Other")
        first.engine.close()
        shutil.copytree(directory / "lean", directory / "routes")
        first.engine = first._open()
        self.worlds.append(World(directory / "routes", clock=clock))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        lean, routes = (world.engine for world in self.worlds)
        servers = [Server(lean, "127.0.0.1", 0), ByRoutesAlone(routes)]
        for server in servers:  # a test may have to think for longer than a connection is kept
            server._server.config.timeout_keep_alive = 3_600
        self.servers = [self._stack.enter_context(server) for server in servers]
        self.connections = [Connection(server) for server in self.servers]
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: PYI036 (handed on)
        for connection in self.connections:
            connection.close()
        self._stack.__exit__(*error)
        for world in self.worlds:
            world.engine.close()

    def ask(self, *parts: bytes) -> bytes:
        """Send the same bytes to both and return what both answer."""
        for connection in self.connections:
            connection.send(*parts)
        lean, routes = (connection.answer() for connection in self.connections)
        assert lean == routes, parts
        return lean

    def post(self, path: str, body: Any, *, token: str | None = "plain", **headers: str) -> bytes:
        """Ask plainly, with the token of a kind of session."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["X-Session-Token"] = self.tokens[token]
        return self.ask(request(path, body, sent))

    def ask_last(self, sent: bytes) -> bytes:
        """Send the same bytes on new connections; return all that both answer to them and to a
        last request after them, which shows what was left over.
        """
        heard = []
        for connection, world in zip(self.connections, self.worlds, strict=True):
            last = Connection(connection.server)
            last.exchange(HEALTH)
            for part in (sent, HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")):
                last.send(part)
                # A server that has answered the first of these has read the part, and nothing else
                # with it. Once nothing waits to be committed, what was asked is answered before the
                # second, and the connection is closed before the third, if it is.
                connection.exchange(HEALTH)
                world.engine.writer.call(lambda batch: None)
                connection.exchange(HEALTH)
                connection.exchange(HEALTH)
                if last.closed():  # what is sent to a closed end could make us lose its answer
                    break
            heard.append(last.everything(again=False))
        assert heard[0] == heard[1], sent
        return heard[0]

    def damage(self, statement: str) -> None:
        """Change both data files behind the engines' backs."""
        for world in self.worlds:
            with sqlite3.connect(world.settings.data_dir / "ledger.sqlite3") as database:
                database.execute(statement)
            database.close()

    def records(self) -> list[int]:
        """How many records each has."""
        return [world.engine.ready()["records"] for world in self.worlds]

    def _session(self, name: str, *, limits: Limits = NO_LIMITS, **fields: Any) -> None:
        world = self.worlds[0]
        self._last = world.session(limits, **fields).id
        self.tokens[name] = world.token


def request(
    path: str, body: Any, headers: dict[str, str] | None = None, *, method: str = "POST"
) -> bytes:
    """A plain request (RFC 9112); a body that is no bytes is written as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {**PLAIN, "Content-Length": str(len(content)), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def status(answer: bytes) -> int:
    """The status of an answer."""
    return int(answer.split(b" ", 2)[1])
