"""Says to the tools for agents what nobody should, and looks at what they answer and what was paid.

    scripts/fuzz-mcp --seed 7 --messages 20000

Two thirds of the messages go to `/mcp`, one third to `tallystick mcp`, both with the token of one
session: calls with whatever arguments, payments under few idempotency keys again and again,
batches, ids and members that are none, messages with bytes changed, and calls that are cancelled
while they are answered (over HTTP by closing the connection, on standard input by
`notifications/cancelled`).

Every answer must be one: never a 5xx, a text of an exception, or a refusal without a code. In the
end no key paid twice, what remains is what was not paid, and a payment whose call was cancelled is
found by its key, or was not made.
"""

import argparse
import json
import queue
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.cli.processes import COMMAND, environment
from tests.ledger.oracle import query
from tests.ledger.paying import CENT, URL, offer, required
from tests.mcp.hands import LIMITS, Hands
from tests.paying.shop import Agent, open_shop, usdc
from tests.rest.served import SESSIONS, Served
from tests.world import USD

ANSWER_S = 60
BURST = 20
"""So many messages are sent on standard input before their answers are waited for."""
VALID_S = 3_600
"""Longer than a run: in the end the same signatures are asked for again."""
KEYS = 12
"""Under so many idempotency keys each way pays again and again."""
TOOLS = ("check_session_inventory", "check_budget", "simulate_payment", "request_approval")
TOOLS += ("check_approval", "verify_evidence", "pay_x402", "rm", "", "put-content", "get-content")
NAMES = ("amount", "merchant_id", "token", "chain", "session_id", "description", "approval_id")
NAMES += ("payment_required", "resource", "method", "max_amount", "idempotency_key", "url", "file")
NAMES += ("evidence", "key", "value", "body", "headers", "body_sha256", "__proto__", "")
KEYED = ("idempotency_key", "session_id")
METHODS = ("tools/list", "ping", "initialize", "resources/list", "prompts/get", "logging/setLevel")
METHODS += ("completion/complete", "tasks/cancel", "nothing", "", "rpc.discover", "tools/call\n")
METHODS += ("notifications/cancelled", "notifications/initialized", "server/discover")
VERSIONS = ("2025-06-18", "2025-11-25", "2026-07-28", "1999-01-01", "", "x" * 200)
IDS: tuple[Any, ...] = (None, True, 1.5, -1, 0, "", "a", [], {}, 2**63, 10**400, "x" * 5_000)
VALUES: tuple[Any, ...] = (None, True, 0, -1, 1.5, 10**30, "", "0", "-1", "1e9", "0.01", "20.01")
VALUES += ("self", "../../log", "sess_" + "0" * 26, "\0", "\u202e", "\ud800", "x" * 70_000, "é")
VALUES += ([], {}, [[]] * 50, "http://127.0.0.1:1/", "file:///etc/passwd", "{}", "null", "NaN")


class Wrong(AssertionError):
    """An answer that is none, or money that moved."""


class Fuzz:
    """Draws messages, and judges what is answered. `seen` counts both."""

    def __init__(self, served: Served, agent: Agent, seed: int) -> None:
        self.served, self.agent = served, agent
        self.drawn = random.Random(seed)
        self.seen: Counter[str] = Counter()

    def value(self, depth: int = 0) -> Any:
        """Anything that JSON can say."""
        draw = self.drawn.random()
        if depth < 3 and draw < 0.05:
            return {self.drawn.choice(NAMES): self.value(depth + 1) for _ in range(3)}
        if depth < 3 and draw < 0.1:
            return [self.value(depth + 1) for _ in range(self.drawn.randrange(4))]
        return self.drawn.choice(VALUES)

    def call(self, identity: Any, pays: dict[str, Any]) -> dict[str, Any]:
        """A call of a tool; `pays` are good arguments of `pay_x402`."""
        name = self.drawn.choice(TOOLS)
        arguments: Any = {
            self.drawn.choice(NAMES): self.value() for _ in range(self.drawn.randrange(4))
        }
        if name == "pay_x402" or self.drawn.random() < 0.15:
            name = "pay_x402"
            key = f"{next(iter(pays))}-{self.drawn.randrange(KEYS)}"
            arguments = pays | {"idempotency_key": key}
            if self.drawn.random() < 0.3 and (other := self.drawn.choice(NAMES)) not in KEYED:
                arguments[other] = self.value()
        elif self.drawn.random() < 0.05:
            arguments = self.value()
        params = {"name": name, "arguments": arguments}
        if self.drawn.random() < 0.1:
            params["_meta"] = self.value()
        return {"jsonrpc": "2.0", "id": identity, "method": "tools/call", "params": params}

    def message(self, identity: Any, pays: dict[str, Any]) -> bytes:
        """One message, or what is none."""
        draw, told = self.drawn.random(), self.call(identity, pays)
        anything: Any = told
        if draw < 0.08:
            told["method"] = self.drawn.choice(METHODS)
        elif draw < 0.14:
            told["id"] = self.drawn.choice(IDS)
        elif draw < 0.2:
            told[self.drawn.choice(sorted(told))] = self.value()
        elif draw < 0.24:
            told.pop(self.drawn.choice(sorted(told)))
        elif draw < 0.28:
            anything = [self.call(identity, pays) for _ in range(self.drawn.randrange(4))]
        elif draw < 0.31:
            anything = {"jsonrpc": "2.0", "id": identity, "result": self.value()}
        elif draw < 0.33:
            anything = self.value()
        text = json.dumps(anything).encode()
        if draw > 0.85:
            text = self.spoilt(text)
        return text.replace(b"\n", b" ")

    def spoilt(self, text: bytes) -> bytes:
        """With bytes changed, cut off, doubled, or nested too deep."""
        at = self.drawn.randrange(len(text) + 1)
        match self.drawn.randrange(4):
            case 0:
                return text[:at]
            case 1:
                return text[:at] + self.drawn.randbytes(3).replace(b"\n", b"") + text[at + 1 :]
            case 2:
                return text[:at] + text
        return text.replace(b'"arguments"', b'"arguments":' + b"[" * 5_000 + b',"a"', 1)

    def judge(self, told: Any, way: str) -> None:
        """Whether this is an answer as the specification has it (JSON-RPC 2.0, 5)."""
        if not isinstance(told, dict) or told.get("jsonrpc") != "2.0" or "id" not in told:
            raise Wrong(f"{way}: {told!r:.300}")
        if "error" in told:
            error = told["error"]
            if type(error.get("code")) is not int or not isinstance(error.get("message"), str):
                raise Wrong(f"{way}: {told!r:.300}")
            if error["code"] == -32603 or "Traceback" in repr(error):  # an internal error
                raise Wrong(f"{way}: {told!r:.600}")
            self.seen[f"{way}: errors"] += 1
            return
        result = told["result"]
        if result.get("isError"):
            said = result["structuredContent"]
            if {"accepts", "x402Version"} <= said.keys():
                self.seen[f"{way}: offers"] += 1
                return
            if not said["code"] or not said["message"] or said["code"] == "internal_error":
                raise Wrong(f"{way}: {said}")
            if said["code"] in ("http_error", "unreachable", "no_answer") and way == "HTTP":
                raise Wrong(f"{way}: {said}")
            self.seen[f"{way}: refused by code"] += 1
        else:
            self.seen[f"{way}: answered"] += 1

    def signed(self) -> dict[str, Any]:
        """Good arguments of `pay_x402` over HTTP."""
        lasting = offer(self.served.world, maxTimeoutSeconds=VALID_S)
        return {"resource": URL, "payment_required": required(lasting)}

    def over_http(self, count: int) -> None:
        """Ask `/mcp` so often; now and then go away before it answers."""
        pays = self.signed()
        bearer = {"Authorization": f"Bearer {self.agent.token}"}
        accepted = {"Accept": "application/json, text/event-stream"}
        with httpx.Client(base_url=self.served.url, trust_env=False, timeout=ANSWER_S) as http:
            for number in range(count):
                headers = {**bearer, **accepted, "Content-Type": "application/json"}
                if self.drawn.random() < 0.1:
                    headers["MCP-Protocol-Version"] = self.drawn.choice(VERSIONS)
                if self.drawn.random() < 0.03:
                    headers[self.drawn.choice(sorted(headers))] = "x"
                text = self.message(number, pays)
                hurry = self.drawn.random() < 0.1
                try:
                    timeout = self.drawn.choice((0.001, 0.005, 0.02)) if hurry else ANSWER_S
                    heard = http.post("/mcp", content=text, headers=headers, timeout=timeout)
                except httpx.ReadTimeout:
                    if not hurry:
                        raise Wrong(f"HTTP: no answer to {text[:300]!r}") from None
                    self.seen["HTTP: cancelled"] += 1
                    continue
                self._judge_http(heard, text)

    def _judge_http(self, heard: httpx.Response, text: bytes) -> None:
        if heard.status_code >= 500 or "Traceback" in heard.text:
            raise Wrong(f"HTTP: {heard.status_code} {heard.text[:300]} to {text[:300]!r}")
        self.seen[f"HTTP: status {heard.status_code}"] += 1
        if heard.status_code == 200:
            self.judge(heard.json(), "HTTP")

    def on_stdio(self, count: int, program: "Program", shop: str) -> None:
        """Say so much on standard input, in bursts; cancel some of what was just asked."""
        pays = {"url": f"{shop}/report", "method": "GET"}
        for start in range(0, count, BURST):
            asked = range(start + 1, min(start + BURST, count) + 1)
            for number in asked:
                program.say(self.message(number, pays))
                if self.drawn.random() < 0.1:
                    cancelled = {"requestId": number, "reason": self.value()}
                    told = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
                    program.say(json.dumps({**told, "params": cancelled}).encode())
                    self.seen["stdio: cancelled"] += 1
            mark = f"mark-{start}"
            program.say(json.dumps({"jsonrpc": "2.0", "id": mark, "method": "ping"}).encode())
            for answer in program.until(mark):
                self.judge(answer, "stdio")

    def money(self, program: "Program", shop: str, before: int) -> None:
        """No key paid twice, also when asked again, and what remains of the day was not paid."""
        hands = Hands(self.served.url, self.agent.token)
        for number in range(KEYS):  # whatever became of a call, its key is answered now
            hands.answer("pay_x402", **self.signed(), idempotency_key=f"resource-{number}")
            call = {"name": "pay_x402", "arguments": {"url": f"{shop}/report", "method": "GET"}}
            call["arguments"] |= {"idempotency_key": f"url-{number}"}
            again = f"again-{number}"
            asked = {"jsonrpc": "2.0", "id": again, "method": "tools/call", "params": call}
            program.say(json.dumps(asked).encode())
            for answer in program.until(again):
                self.judge(answer, "stdio")
        payments = query(self.served.world.store, PAID, self.agent.session.id)
        keys = [f"{way}-{number}" for way in ("resource", "url") for number in range(KEYS)]
        if sorted(payments) != sorted((key, 1) for key in keys):
            raise Wrong(f"payments by key: {payments}")
        paid = (before - self.agent.left()) // CENT
        self.seen["payments"], self.seen["transfers"] = len(payments), paid
        if paid != KEYS:
            raise Wrong(f"{paid} transfers for {KEYS} keys")
        session = self.served.get(f"{SESSIONS}/{self.agent.session.id}").json()
        [(used,)] = query(self.served.world.store, USED, self.agent.session.id)
        assert LIMITS.per_day is not None
        if round(session["remaining_today"] * USD) != LIMITS.per_day - used:
            raise Wrong(f"{session['remaining_today']} remain, and {used} were used")


PAID = """
SELECT idempotency_key, count(*) FROM decisions
WHERE session_id = ? AND state IN ('held', 'captured') GROUP BY idempotency_key
"""
USED = """
SELECT COALESCE(SUM(CASE state WHEN 'held' THEN amount WHEN 'captured' THEN captured END), 0)
FROM decisions WHERE session_id = ?
"""


class Program:
    """`tallystick mcp` as a process, after the handshake."""

    def __init__(self, url: str, token: str) -> None:
        self._process = subprocess.Popen(
            [COMMAND, "mcp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(url=url, session_token=token),
        )
        self._heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.errors = b""
        self._readers = [
            threading.Thread(target=read, daemon=True)
            for read in (self._read_answers, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()
        client = {"protocolVersion": "2025-11-25", "capabilities": {}}
        client["clientInfo"] = {"name": "fuzz", "version": "0"}
        asked = {"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": client}
        self.say(json.dumps(asked).encode())
        self.until("hello")
        self.say(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(ANSWER_S)
        for reader in self._readers:
            reader.join()
        if kind is None and (status or b"Traceback" in self.errors):
            raise Wrong(f"it ended with {status}: {self.errors.decode()[-2000:]}")

    def say(self, line: bytes) -> None:
        """One line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def until(self, mark: Any) -> list[Any]:
        """What it answers, up to the answer to `mark`."""
        told: list[Any] = []
        while not told or told[-1].get("id") != mark:
            try:
                told.append(json.loads(self._heard.get(timeout=ANSWER_S)))
            except queue.Empty:
                raise Wrong(f"no answer to {mark}: {self.errors.decode()[-2000:]}") from None
        return told

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._heard.put(line)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.errors += line


def fuzz(served: Served, messages: int, seed: int) -> Counter[str]:
    """Say so many messages; what was seen.

    Raises:
        Wrong: an answer is none, or money moved that should not.
    """
    found = Fuzz(served, Agent(served, LIMITS), seed)
    network = served.world.engine.deployment.chain
    before = found.agent.left()
    with (
        open_shop(f"{served.url}/facilitator", network, usdc(served)) as shop,
        Program(served.url, found.agent.token) as program,
    ):
        found.over_http(messages * 2 // 3)
        found.on_stdio(messages // 3, program, shop)
        found.money(program, shop, before)
    return found.seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--messages", type=int, default=20_000)
    asked = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-mcp-")))
        served = stack.enter_context(Served(directory / "data"))
        served.world.engine.start()  # else nobody reads the chain, and after 5 minutes nobody pays
        seen = fuzz(served, asked.messages, asked.seed)
    for what, count in sorted(seen.items()):
        sys.stdout.write(f"{what}: {count}\n")


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        sys.exit(f"WRONG: {wrong}")
