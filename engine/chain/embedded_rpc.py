"""The embedded chain over JSON-RPC 2.0, for wallets, `cast`, web3 and an auditor's own check.

Loopback only in effect: whatever address it is bound to, a request must name a loopback host (a web
page that rebinds its DNS name to this machine does not) and be sent as JSON (a web page must ask
first to do so, and is not answered). No key is held here: it reads, and takes signed transactions.

    with EmbeddedRpc(chain, port=0) as rpc:
        print(rpc.url)
"""

import contextlib
import json
import logging
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from engine.chain.embedded import EmbeddedChain
from engine.chain.embedded_rpc_fields import INVALID_PARAMS, RpcError
from engine.chain.embedded_rpc_methods import RpcMethods
from engine.chain.gateway import CallReverted, ChainError, ChainUnavailable, TransactionRejected

BODY_MAX_BYTES = 1 << 20
BATCH_MAX = 100
IDLE_TIMEOUT_S = 30
STOP_POLL_S = 0.05

_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
_INTERNAL_ERROR = -32603
_SERVER_ERROR = -32000
_TRANSACTION_REJECTED = -32003  # EIP-1474
_REVERTED = 3  # what Geth and Anvil answer, with the revert data
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_log = logging.getLogger(__name__)


class EmbeddedRpc:
    """Serves one embedded chain from a daemon thread. `port` 0 takes a free one."""

    def __init__(self, chain: EmbeddedChain, host: str = "127.0.0.1", port: int = 8545) -> None:
        self._methods = RpcMethods(chain)
        self._address = (host, port)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens; with port 0, the real port once started."""
        host, port = self._address if self._server is None else self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> Self:
        """Begin to serve.

        Raises:
            ChainError: the port is taken or not allowed.
        """
        try:
            self._server = _Server(self._address, _Handler, self._methods)
        except OSError as error:
            host, port = self._address
            raise ChainError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": STOP_POLL_S},
            name="embedded-rpc",
            daemon=True,
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and drop what is connected. Stopping twice is harmless."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is None or thread is None:
            return
        server.shutdown()
        thread.join()
        server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def answer(methods: RpcMethods, body: bytes) -> bytes | None:
    """Answer a JSON-RPC 2.0 body, single or batch; None when it held only notifications."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return _encode(_failure(None, RpcError(_PARSE_ERROR, "the body is not JSON")))
    if not isinstance(request, list):
        single = _answer_one(methods, request)
        return None if single is None else _encode(single)
    if not 0 < len(request) <= BATCH_MAX:
        error = RpcError(_INVALID_REQUEST, f"a batch has 1 to {BATCH_MAX} requests")
        return _encode(_failure(None, error))
    answers = [_answer_one(methods, each) for each in request]
    replies = [each for each in answers if each is not None]
    return _encode(replies) if replies else None


def _answer_one(methods: RpcMethods, request: Any) -> dict[str, Any] | None:
    if not _is_request(request):
        return _failure(None, RpcError(_INVALID_REQUEST, "not a JSON-RPC 2.0 request"))
    identifier = request.get("id")
    try:
        parameters = request.get("params", [])
        if not isinstance(parameters, list):
            raise RpcError(INVALID_PARAMS, "parameters must be an array")  # noqa: TRY301
        result = methods(request["method"], parameters)
    except Exception as error:  # noqa: BLE001 - the caller gets an answer; the log the unexpected
        reply = _failure(identifier, _as_rpc_error(error))
    else:
        reply = {"jsonrpc": "2.0", "id": identifier, "result": result}
    return reply if "id" in request else None


def _is_request(request: Any) -> bool:
    return (
        isinstance(request, dict)
        and request.get("jsonrpc") == "2.0"
        and isinstance(request.get("method"), str)
        and isinstance(request.get("id"), str | int | float | None)
        and not isinstance(request.get("id"), bool)
    )


def _as_rpc_error(error: Exception) -> RpcError:
    match error:
        case RpcError():
            return error
        case CallReverted():
            reason = f": {error.reason}" if error.reason else ""
            return RpcError(_REVERTED, f"execution reverted{reason}", f"0x{error.data.hex()}")
        case TransactionRejected():
            return RpcError(_TRANSACTION_REJECTED, error.reason)
        case ChainUnavailable():
            return RpcError(_INTERNAL_ERROR, error.message)
        case ChainError():
            return RpcError(_SERVER_ERROR, error.message)
    _log.error("unexpected error in a JSON-RPC method", exc_info=error)
    return RpcError(_INTERNAL_ERROR, "internal error")


def _failure(identifier: Any, error: RpcError) -> dict[str, Any]:
    described: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        described["data"] = error.data
    return {"jsonrpc": "2.0", "id": identifier, "error": described}


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], handler: type["_Handler"], methods: RpcMethods
    ) -> None:
        self.methods = methods
        self._connections: set[Any] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._connections):  # kept alive by clients
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        _log.debug("a JSON-RPC connection from %s broke", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        refusal = self._refusal()
        if refusal is not None:
            self.close_connection = True  # its body is not read, so nothing can follow
            self._reply(refusal, None)
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        reply = answer(self.server.methods, body)
        self._reply(HTTPStatus.OK if reply is not None else HTTPStatus.NO_CONTENT, reply)

    def do_GET(self) -> None:
        self.close_connection = True
        self._reply(HTTPStatus.METHOD_NOT_ALLOWED, None)

    do_OPTIONS = do_GET  # noqa: N815 - the name is the interface

    def _refusal(self) -> HTTPStatus | None:
        if not _is_loopback(self.headers.get_all("Host", [])):
            return HTTPStatus.FORBIDDEN
        if self.headers.get_content_type() != "application/json":
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            return HTTPStatus.LENGTH_REQUIRED
        if len(length) > 9 or int(length) > BODY_MAX_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return None

    def _reply(self, status: HTTPStatus, body: bytes | None) -> None:
        self.send_response(status)
        if body is not None:
            self.send_header("Content-Type", "application/json")
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body or b"")))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        _log.debug(format, *args)


def _is_loopback(hosts: list[str]) -> bool:
    if len(hosts) != 1:
        return False
    try:
        return urlsplit(f"//{hosts[0]}").hostname in _LOOPBACK_NAMES
    except ValueError:
        return False
