"""An HTTP proxy in front of one chain or several, which lies by plan.

    with RpcProxy(anvil.url) as proxy:
        chain = JsonRpcChain(proxy.url)
        with proxy.lying(empty_logs, probability=0.05):
            ...

A lie is about one answer (a function of `Asked`) or about the line that the answer goes out on (a
function of `Line`). What it is not about passes through it. `told` counts how often each was told.
"""

import contextlib
import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx

HANG_MAX_S = 120
_CHUNK = b" " * (1 << 16)


@dataclass
class Asked:
    """One question, its true answer (with `result` or `error`), and a way to ask the node more."""

    method: str
    params: list[Any]
    answer: dict[str, Any]
    ask: Callable[..., Any]

    @property
    def result(self) -> Any:
        """What the node answers."""
        return self.answer.get("result")


@dataclass
class Line:
    """The connection on which the body of an answer goes out."""

    handler: BaseHTTPRequestHandler
    body: bytes
    released: threading.Event

    def send(self, body: bytes, *, status: int = 200, length: int | None = None) -> None:
        """Answer with this body, and a header that announces `length` bytes."""
        self.handler.send_response(status)
        self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        self.handler.end_headers()
        self.handler.wfile.write(body)


AnswerLie = Callable[[Asked], dict[str, Any] | None]
LineLie = Callable[[Line], None]


@dataclass
class Plan:
    """A lie, and when it is told: at a probability, or only as the `nth` that it could be."""

    name: str
    lie: AnswerLie | LineLie
    on_line: bool
    probability: float = 1.0
    nth: int | None = None
    chances: int = field(default=0, init=False)

    def comes(self, draw: random.Random) -> bool:
        """Whether it is told at this chance."""
        self.chances += 1
        if self.nth is not None:
            return self.chances == self.nth
        return draw.random() < self.probability


class RpcProxy:
    """Forwards to one of `upstreams`, the first in the beginning; `switch` to another."""

    def __init__(self, *upstreams: str, seed: int = 0) -> None:
        self.told: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.released = threading.Event()
        self.upstreams = upstreams
        self._target = upstreams[0]
        self._draw = random.Random(seed)
        self._plans: list[Plan] = []
        self._lock = threading.Lock()
        self._http = httpx.Client(timeout=60, trust_env=False, verify=False)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with contextlib.suppress(ConnectionError):
                    proxy._serve(self, json.loads(body))

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def switch(self, number: int) -> None:
        """Answer from another upstream from now on."""
        self._target = self.upstreams[number]

    @contextlib.contextmanager
    def lying(
        self, *lies: AnswerLie | LineLie, probability: float = 1.0, nth: int | None = None
    ) -> Iterator[Self]:
        """Tell these until the end of the block, the first that is about an answer alone."""
        self.released.clear()
        self._plans = [Plan(lie.__name__, lie, lie in LINE_LIES, probability, nth) for lie in lies]
        try:
            yield self
        finally:
            self._plans = []
            self.released.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._http.close()

    def _serve(self, handler: BaseHTTPRequestHandler, request: Any) -> None:
        target = self._target
        many = request if isinstance(request, list) else [request]
        answers = self._post(target, request)
        answers = answers if isinstance(answers, list) else [answers]
        by_id = {answer["id"]: answer for answer in answers}
        replies = [self._answer(target, each, by_id[each["id"]]) for each in many]
        body = json.dumps(replies if isinstance(request, list) else replies[0]).encode()
        line = Line(handler, body, self.released)
        plan = self._drawn(on_line=True)
        if plan is None:
            line.send(body)
        else:
            self.told[plan.name] += 1
            plan.lie(line)  # type: ignore[arg-type]

    def _answer(self, target: str, request: Any, answer: dict[str, Any]) -> dict[str, Any]:
        def ask(method: str, *params: Any) -> Any:
            question = {"jsonrpc": "2.0", "id": 0, "method": method, "params": params}
            return self._post(target, question)["result"]

        asked = Asked(request["method"], request["params"], answer, ask)
        with self._lock:
            self.asked[asked.method] += 1
        for plan in self._plans:
            if plan.on_line or (told := plan.lie(asked)) is None:  # type: ignore[arg-type]
                continue
            with self._lock:
                comes = plan.comes(self._draw)
                self.told[plan.name] += comes
            if comes:
                return {"jsonrpc": "2.0", "id": request["id"], **told}  # type: ignore[dict-item]
        return answer

    def _drawn(self, *, on_line: bool) -> Plan | None:
        with self._lock:
            for plan in self._plans:
                if plan.on_line == on_line and plan.comes(self._draw):
                    return plan
        return None

    def _post(self, target: str, body: Any) -> Any:
        return self._http.post(target, json=body).json()


class _Server(ThreadingHTTPServer):
    """Ends its connections when it is closed, also those that clients keep alive."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has hung up."""


# Lies about an answer: the answer that is told instead, or None where there is nothing to lie about


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _of_a_block(asked: Asked, **changes: Any) -> dict[str, Any] | None:
    if asked.method != "eth_getBlockByNumber" or asked.result is None:
        return None
    return {"result": asked.result | changes}


def empty_logs(asked: Asked) -> dict[str, Any] | None:
    """No events, where there are some; the receipts have them."""
    return {"result": []} if asked.method == "eth_getLogs" and asked.result else None


def empty_ranges(asked: Asked) -> dict[str, Any] | None:
    """No events of a range; those of one block by its hash are told."""
    return empty_logs(asked) if "fromBlock" in (asked.params or [{}])[0] else None


def one_event_less(asked: Asked) -> dict[str, Any] | None:
    """The last event is left out."""
    return {"result": asked.result[:-1]} if asked.method == "eth_getLogs" and asked.result else None


def no_events(asked: Asked) -> dict[str, Any] | None:
    """No events anywhere: not in the receipts either."""
    if asked.method == "eth_getBlockReceipts" and asked.result:
        return {"result": [receipt | {"logs": []} for receipt in asked.result]}
    return empty_logs(asked)


def removed_logs(asked: Asked) -> dict[str, Any] | None:
    """Events that a reorganisation took away."""
    if asked.method != "eth_getLogs" or not asked.result:
        return None
    return {"result": [log | {"removed": True} for log in asked.result]}


def no_receipt(asked: Asked) -> dict[str, Any] | None:
    """A mined transaction without a receipt."""
    mined = asked.method == "eth_getTransactionReceipt" and asked.result
    return {"result": None} if mined else None


def wrong_parent(asked: Asked) -> dict[str, Any] | None:
    """A block that is nobody's child."""
    return _of_a_block(asked, parentHash="0x" + "ee" * 32)


def wrong_hash(asked: Asked) -> dict[str, Any] | None:
    """A block that is another."""
    return _of_a_block(asked, hash="0x" + "ee" * 32)


def no_bloom(asked: Asked) -> dict[str, Any] | None:
    """A block that says that it logged nothing, and did."""
    found = _of_a_block(asked, logsBloom="0x" + "00" * 256)
    return found if found and int(asked.result["logsBloom"], 16) else None


def no_block(asked: Asked) -> dict[str, Any] | None:
    """A block that is not there."""
    return None if _of_a_block(asked) is None else {"result": None}


def stale_head(asked: Asked) -> dict[str, Any] | None:
    """The newest block is five older than it is."""
    if asked.method != "eth_getBlockByNumber" or asked.params[0] != "latest":
        return None
    older = max(0, int(asked.result["number"], 16) - 5)
    return {"result": asked.ask("eth_getBlockByNumber", hex(older), False)}


def head_above(asked: Asked) -> dict[str, Any] | None:
    """The newest block is one that nobody has."""
    if asked.method != "eth_getBlockByNumber" or asked.params[0] != "latest":
        return None
    return _of_a_block(asked, number=hex(int(asked.result["number"], 16) + 5))


def wrong_chain_id(asked: Asked) -> dict[str, Any] | None:
    """Another chain."""
    return {"result": "0x1"} if asked.method == "eth_chainId" else None


def no_code(asked: Asked) -> dict[str, Any] | None:
    """No code anywhere."""
    called = asked.method == "eth_call" and "result" in asked.answer
    return {"result": "0x" + "00" * (len(asked.result) // 2 - 1)} if called else None


def too_many_requests(asked: Asked) -> dict[str, Any] | None:
    """A rate limit, said in JSON."""
    return _error(-32005, "daily request count exceeded, request rate limited")


def range_limit(limit: int) -> AnswerLie:
    """No more than so many blocks at once."""

    def refused_range(asked: Asked) -> dict[str, Any] | None:
        if asked.method != "eth_getLogs" or "fromBlock" not in asked.params[0]:
            return None
        first, last = (int(asked.params[0][end], 16) for end in ("fromBlock", "toBlock"))
        if last - first < limit:
            return None
        return _error(-32000, f"eth_getLogs is limited to a {limit} range")

    return refused_range


def result_limit(limit: int) -> AnswerLie:
    """No more than so many events at once."""

    def refused_results(asked: Asked) -> dict[str, Any] | None:
        if asked.method != "eth_getLogs" or len(asked.result or ()) <= limit:
            return None
        return _error(-32005, "query returned more than 10000 results")

    return refused_results


# Lies about the line


def busy(line: Line) -> None:
    """429."""
    line.send(b'{"error": "slow down"}', status=429)


def overloaded(line: Line) -> None:
    """503."""
    line.send(b"<html>no healthy upstream</html>", status=503)


def silence(line: Line) -> None:
    """The answer does not come, until the lies end."""
    line.released.wait(HANG_MAX_S)
    line.handler.close_connection = True


def truncated(line: Line) -> None:
    """Half an answer, and the connection ends."""
    line.send(line.body[: len(line.body) // 2], length=len(line.body))
    line.handler.close_connection = True


def cut_json(line: Line) -> None:
    """Half an answer as if it were the whole."""
    line.send(line.body[: len(line.body) // 2])


def huge(line: Line) -> None:
    """An answer of a gigabyte."""
    line.send(b"[", length=1 << 30)
    for _ in range((1 << 30) // len(_CHUNK)):
        line.handler.wfile.write(_CHUNK)


def hung_up(line: Line) -> None:
    """The connection ends without an answer."""
    line.handler.close_connection = True


LINE_LIES: tuple[LineLie, ...] = (busy, overloaded, silence, truncated, cut_json, huge, hung_up)
