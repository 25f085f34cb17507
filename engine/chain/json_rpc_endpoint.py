"""One JSON-RPC endpoint over HTTP: bounded answers in bounded time, of the one chain it began with.

An endpoint may be many nodes behind one name, so the chain id is asked for again whenever a
connection is new, and whenever the chain's head is.
"""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx

from engine.chain.gateway import ChainChanged, ChainError, ChainUnavailable
from engine.chain.json_rpc_answers import as_object, as_quantity

ANSWER_MAX_BYTES = 64 << 20
BATCH_MAX = 100
"""So many questions are asked in one request; the embedded chain's port takes no more."""

_CHAIN_ID = "eth_chainId"


class RpcError(Exception):
    """The endpoint answered with an error object."""

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        code, message = error.get("code"), error.get("message")
        self.code = code if isinstance(code, int) else 0
        self.message = message if isinstance(message, str) else ""
        self.data = error.get("data")
        super().__init__(f"{method}: {self.message} ({self.code})")


class AnswerTooLargeError(ChainUnavailable):
    """The answer was above `ANSWER_MAX_BYTES`: less has to be asked for."""


class NotAnAnswerError(ChainUnavailable):
    """What came is no answer to what was asked."""


class Endpoint:
    """Asks and answers. May be used from any thread.

    Raises:
        ChainError: `url` is not an http or https URL.
    """

    def __init__(self, url: str, *, timeout_s: float, expected_chain_id: int | None) -> None:
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL:  # whose text may hold a part of a password
            raise ChainError("the chain's URL cannot be read as one") from None
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ChainError("a chain's URL begins with http:// or https:// and names a host")
        # What may be shown: a hosted endpoint's path and query hold its access key.
        port = f":{self._url.port}" if self._url.port else ""
        self.name = f"{self._url.scheme}://{self._url.host}{port}"
        self._exchange_timeout_s = 6 * timeout_s
        self._chain_id = expected_chain_id
        self._confirmed = False
        self._identifiers = itertools.count(1)
        self._lock = threading.Lock()
        self._http = httpx.Client(timeout=timeout_s, headers={"Accept": "application/json"})

    @property
    def chain_id(self) -> int:
        """The EIP-155 chain id; asked for if it never was.

        Raises:
            ChainChanged: it is not the expected one.
        """
        with self._lock:
            if not self._confirmed:
                self._confirm()
            assert self._chain_id is not None, "it was confirmed"
            return self._chain_id

    def confirm_chain(self) -> None:
        """Ask for the chain id again.

        Raises:
            ChainChanged: it is not what it was.
        """
        with self._lock:
            self._confirm()

    def _confirm(self) -> None:
        try:
            found = as_quantity(self._exchange(_CHAIN_ID, []))
        except RpcError as error:
            raise self.unavailable(error) from error
        if self._chain_id not in (None, found):
            raise ChainChanged(f"{self.name} serves chain {found}, not {self._chain_id}")
        self._chain_id, self._confirmed = found, True

    def ask(self, method: str, *parameters: Any) -> Any:
        """Return the result of one call to the right chain; errors become ours."""
        try:
            return self.ask_raw(method, *parameters)
        except RpcError as error:
            raise self.unavailable(error) from error

    def ask_raw(self, method: str, *parameters: Any) -> Any:
        """The same, but an error object is raised as it is.

        Raises:
            RpcError: the endpoint answered with one.
        """
        _ = self.chain_id
        return self._exchange(method, list(parameters))

    def ask_many(self, method: str, many: Sequence[Sequence[Any]]) -> list[Any]:
        """The results of one method for many lists of parameters, in as few requests as it goes."""
        found: list[Any] = []
        for start in range(0, len(many), BATCH_MAX):
            part = many[start : start + BATCH_MAX]
            with contextlib.suppress(NotAnAnswerError):  # an endpoint need not take several
                found += self._ask_at_once(method, part) if len(part) > 1 else ()
            found += [self.ask(method, *each) for each in many[len(found) : start + len(part)]]
        return found

    def _ask_at_once(self, method: str, many: Sequence[Sequence[Any]]) -> list[Any]:
        _ = self.chain_id
        requests = {}
        for parameters in many:
            request = self._request(method, list(parameters))
            requests[request["id"]] = request
        replies = self._send(method, list(requests.values()))
        results = {}
        for reply in replies if isinstance(replies, list) else ():
            if isinstance(reply, dict) and isinstance(reply.get("error"), dict):
                raise self.unavailable(RpcError(method, reply["error"]))
            if isinstance(reply, dict) and isinstance(reply.get("id"), int):
                results[reply["id"]] = reply.get("result")
        if results.keys() != requests.keys():
            raise NotAnAnswerError(f"{self.name}: {method}: not an answer to each request")
        return [results[identifier] for identifier in requests]

    def _request(self, method: str, parameters: list[Any]) -> dict[str, Any]:
        identifier = next(self._identifiers)
        return {"jsonrpc": "2.0", "id": identifier, "method": method, "params": parameters}

    def _exchange(self, method: str, parameters: list[Any]) -> Any:
        request = self._request(method, parameters)
        answer = as_object(self._send(method, request))
        if isinstance(answer.get("error"), dict):
            raise RpcError(method, answer["error"])
        if answer.get("id") != request["id"] or "result" not in answer:
            raise NotAnAnswerError(f"{self.name}: {method}: not an answer to this request")
        return answer["result"]

    def _send(self, method: str, body: Any) -> Any:
        connected: list[str] = []
        try:
            answer = json.loads(self._post(json.dumps(body).encode(), connected))
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed, or JSON too deep
            cause = str(error) or type(error).__name__
            raise ChainUnavailable(f"{self.name}: {method}: {cause}") from error
        except ValueError as error:
            raise NotAnAnswerError(f"{self.name}: {method}: not a JSON answer") from error
        if connected and method != _CHAIN_ID:
            self.confirm_chain()  # somebody else may answer over a new connection
        return answer

    def _post(self, body: bytes, connected: list[str]) -> bytes:
        def trace(event: str, _details: Any) -> None:
            if event == "connection.connect_tcp.complete":
                connected.append(event)

        headers = {"Content-Type": "application/json"}
        extensions = {"trace": trace}
        with self._http.stream(
            "POST", self._url, content=body, headers=headers, extensions=extensions
        ) as response:
            received = bytearray()
            deadline = time.monotonic() + self._exchange_timeout_s
            for part in response.iter_bytes():
                received += part
                if len(received) > ANSWER_MAX_BYTES:
                    raise AnswerTooLargeError(f"{self.name}: answer above {ANSWER_MAX_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer came too slowly")
        # Some nodes send JSON-RPC errors with a 4xx; an error without such a body has no meaning.
        if response.status_code == 429 or response.status_code >= 500 or not received:
            raise httpx.DecodingError(f"HTTP status {response.status_code}")
        return bytes(received)

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def unavailable(self, error: RpcError) -> ChainUnavailable:
        """The error as ours."""
        return ChainUnavailable(f"{self.name}: {error}")

    def wrong(self, what: str) -> ChainUnavailable:
        """An answer that contradicts what was asked, or itself, as an error of ours."""
        return ChainUnavailable(f"{self.name} answered wrongly: {what}")
