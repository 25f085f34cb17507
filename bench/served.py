"""Tallystick over HTTP: `tallystick serve` as a user runs it."""

import contextlib
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import httpx

from bench.contender import MERCHANTS, Contender, Rate, Workload
from bench.http_floor import BODY, HttpContender
from bench.http_load import CONNECTIONS, KEY, request
from bench.ours import HOLD_TTL_S, Installation, OnPostgres
from bench.process import Child

READY_TIMEOUT_S = 300
POLL_S = 0.002
KILLED_DECISIONS = 100_000
BETWEEN_KILLS = 64
UNLIMITED = dict.fromkeys(
    ("max_per_day", "max_per_week", "max_per_month", "max_per_transaction"), "999999999"
) | {"require_approval_above": None}


def serve(workload: Workload, admin_key: str | None = None, **settings: str) -> Child:
    """`tallystick serve` with its defaults, except for where it is and that holds last."""
    values: dict[str, Any] = {
        "data_dir": workload.directory / "data",
        "port": 0,
        "rpc_port": 0,
        "hold_ttl_s": HOLD_TTL_S,
        **settings,
        **({"admin_key": admin_key} if admin_key else {}),
    }
    return Child(
        *("-c", "from tallystick.cli import main; main()", "serve"),
        environment={
            **{name: value for name, value in os.environ.items() if "TALLYSTICK" not in name},
            **{f"TALLYSTICK_{name.upper()}": str(value) for name, value in values.items()},
        },
        said=workload.directory / "stderr",
        ready=r"^REST +(http\S+)",
    )


def wait_until_ready(client: httpx.Client, url: str) -> None:
    """Return once decisions can be made.

    Raises:
        TimeoutError: they could not in time.
    """
    deadline = time.perf_counter() + READY_TIMEOUT_S
    while time.perf_counter() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(POLL_S)
    raise TimeoutError(f"{url} is not ready")


class HttpSqlite(HttpContender):
    """`POST /api/v1/payments` on SQLite."""

    name = "http-sqlite"
    says = (
        "Ours: POST /api/v1/payments to `tallystick serve` on SQLite, one process with its "
        f"defaults, {CONNECTIONS} keep-alive connections: session token, idempotency key, policy, "
        "audit record, event, durable commit, answer. These requests are plain, and "
        "FastAPI is not asked."
    )
    more_headers: ClassVar[Mapping[str, str]] = {}

    def prepare(self) -> Mapping[str, str]:
        admin_key = f"zfi_test_{secrets.token_hex(32)}"
        self.server = serve(self.workload, admin_key, **self.settings())
        headers = {"Authorization": f"Bearer {admin_key}"}
        with httpx.Client(base_url=self.url, headers=headers, trust_env=False) as client:
            wait_until_ready(client, self.url)
            self._requests = [
                self._request(self._session(client), number)
                for number in range(self.workload.sessions)
            ]
        return {"connections": str(CONNECTIONS), "sessions": str(len(self._requests))}

    @property
    def url(self) -> str:
        return self.server.url

    def requests(self) -> Sequence[str]:
        return self._requests

    def close(self) -> None:
        if hasattr(self, "server"):
            self.server.stop()

    def settings(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {}

    def _session(self, client: httpx.Client) -> str:
        body = {"agent_id": "bench", "user_wallet": "0x" + "b0" * 20, "limits": UNLIMITED}
        answer = client.post("/api/v1/ai/sessions", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["session_token"])

    def _request(self, token: str, number: int) -> str:
        headers = {"Idempotency-Key": KEY, "X-Session-Token": token, **self.more_headers}
        body = BODY | {"merchant_id": f"merchant-{number % MERCHANTS}"}
        return request("POST", "/api/v1/payments", headers, body)


class HttpSqliteFastapi(HttpSqlite):
    """The same payments by the documented route, for a header that the short way does not know."""

    name = "http-sqlite-fastapi"
    says = (
        "Ours: http-sqlite with one header more that the short way does not know, so that h11, "
        "FastAPI and pydantic read each request; the same work and the same answers."
    )
    more_headers: ClassVar[Mapping[str, str]] = {"X-Not-Plain": "1"}


class HttpPostgres(OnPostgres, HttpSqlite):
    """The same payments on PostgreSQL."""

    name = "http-postgres"
    says = "Ours: http-sqlite on PostgreSQL with fsync and synchronous_commit on."


class HttpPostgresFastapi(HttpPostgres):
    """The same by the documented route."""

    name = "http-postgres-fastapi"
    says = "Ours: http-sqlite-fastapi on PostgreSQL with fsync and synchronous_commit on."
    more_headers = HttpSqliteFastapi.more_headers


class ReadyAfterKill(Contender):
    """From the start of a killed server to its first durable decision."""

    name = "ready-after-kill"
    says = (
        f"Ours: `tallystick serve` with {KILLED_DECISIONS:,} decisions (at size 1) in its log is "
        f"killed with SIGKILL after {BETWEEN_KILLS} more and started again; from the start of the "
        "process to the answer to the first payment, sent once /readyz says yes."
    )
    unit = "s"
    higher_is_better = False

    def prepare(self) -> Mapping[str, str]:
        installation = Installation(self.workload)
        sessions = installation.create_sessions(self.workload.sessions)
        # Made once: what it reads first, certificates, takes long and is no part of any start.
        headers = {"X-Session-Token": installation.world.token}
        self.client = httpx.Client(headers=headers, trust_env=False)
        decisions = self.workload.scaled(KILLED_DECISIONS)
        asks = installation.asks(sessions, "prior")
        installation.pay(asks, lambda count: count >= decisions)
        installation.close()
        self.server = serve(self.workload)
        return {"decisions": str(decisions), "sessions": str(len(sessions))}

    def run(self, seconds: float) -> Rate:
        count = 0
        taken = 0.0
        while taken < seconds:
            self._pay(BETWEEN_KILLS)  # leaves something in the write-ahead log
            self.server.kill()
            started = time.perf_counter()
            self.server = serve(self.workload)
            self._pay(1)
            taken += time.perf_counter() - started
            count += 1
        return Rate(count, taken)

    def close(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        if hasattr(self, "server"):
            self.server.stop()

    @classmethod
    def figure(cls, rate: Rate) -> float:
        return rate.seconds / rate.count

    def _pay(self, count: int) -> None:
        wait_until_ready(self.client, self.server.url)
        for _ in range(count):
            answer = self.client.post(f"{self.server.url}/api/v1/payments", json=BODY)
            assert answer.status_code == 201, answer.text
