"""What HTTP costs without us: a server that only answers, and an empty FastAPI application."""

import asyncio
import os
import socket
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from bench.contender import Contender, Rate
from bench.http_load import CONNECTIONS, KEY, measure, request
from bench.process import Child

BODY = {"amount": "0.01", "token": "USDC", "merchant_id": "merchant-1"}
_ANSWER = b'{"id":"pay_0","status":"held"}'


class HttpContender(Contender):
    """Something that answers over HTTP, under load from another process."""

    unit = "requests/s"

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        return measure(self.workload, self.url, self.requests(), self.runs, seconds)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it listens."""

    @abstractmethod
    def requests(self) -> Sequence[str]:
        """The requests to choose from."""


class HttpFloor(HttpContender):
    """Answers the same bytes to everything."""

    name = "http-floor"
    says = (
        f"An asyncio server that reads nothing and always answers the same: the most that the load "
        f"generator gets out of {CONNECTIONS} keep-alive connections on this machine."
    )
    application = "floor"

    def prepare(self) -> Mapping[str, str]:
        self.child = Child(
            *("-m", "bench.http_floor", self.application),
            environment=os.environ,
            said=self.workload.directory / "stderr",
        )
        return {"connections": str(CONNECTIONS)}

    @property
    def url(self) -> str:
        return self.child.url

    def requests(self) -> Sequence[str]:
        headers = {"Idempotency-Key": KEY, "X-Session-Token": "0" * 64}
        return [request("POST", "/api/v1/payments", headers, BODY)]

    def close(self) -> None:
        if hasattr(self, "child"):
            self.child.stop()


class FastapiNoop(HttpFloor):
    """FastAPI that parses the body and answers."""

    name = "fastapi-noop"
    says = (
        "An empty FastAPI POST with a pydantic body under uvicorn, one process, configured as ours "
        f"is, {CONNECTIONS} keep-alive connections: no authentication, no decision, no disk."
    )
    application = "noop"

    def prepare(self) -> Mapping[str, str]:
        parts = ("fastapi", "pydantic", "uvicorn", "starlette")
        return {**super().prepare(), **{part: version(part) for part in parts}}


class _Floor(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, _: bytes) -> None:
        # The generator sends a small request in one piece, and none before the last was answered.
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
        )


async def _serve_floor(listening: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(_Floor, sock=listening)
    await server.serve_forever()


def _serve_noop(listening: socket.socket) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    application = FastAPI()

    class Payment(BaseModel):
        amount: str
        token: str
        merchant_id: str

    @application.post("/api/v1/payments", status_code=201)
    async def pay(payment: Payment) -> dict[str, str]:
        return {"id": "pay_0", "status": "held", "amount": payment.amount}

    config = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listening])


def main(application: str) -> None:
    """Serve on a free loopback port, whose URL is printed first."""
    # Told that this is TCP, asyncio turns Nagle's algorithm off; api/server.py does the same.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(CONNECTIONS)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    if application == "floor":
        asyncio.run(_serve_floor(listening))
    else:
        _serve_noop(listening)


if __name__ == "__main__":
    main(sys.argv[1])
