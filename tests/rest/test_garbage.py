"""Ten thousand payments leave nothing for the garbage collector and nothing beside the account.

The server seldom collects (`api/server.py`), so what a request leaves in a cycle would pile up.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.rest.served import PAYMENTS, SMART, Served
from tests.rest.twins import Connection, request

REQUESTS = 10_000
AT_ONCE = 32
FEW = REQUESTS // 20
"""The writer remembers its last batch until the next, and caches fill."""
KEPT = {"engine.policy.windows.Entry"}
"""What the windows of an account keep of every captured payment, for as long as it counts."""


@contextmanager
def not_collecting() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def kinds() -> Counter[str]:
    return Counter(f"{type(found).__module__}.{type(found).__name__}" for found in gc.get_objects())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PAYMENTS, {"amount": 1, "merchant_id": "books", "capture_method": "automatic"}),
        (SMART, {"amount_usd": 1, "merchant_id": "books", "metadata": {"a": [1]}}),
        (PAYMENTS, {"amount": 2, "merchant_id": "casino"}),
    ],
    ids=("payment", "smart payment", "denial"),
)
def test_payments_leave_nothing_behind(own_api: Served, path: str, body: Any) -> None:
    token = own_api.session(allowed_merchants=["books"])["session_token"]
    with ExitStack() as stack:
        connections = [Connection(own_api._server) for _ in range(AT_ONCE)]
        for connection in connections:
            stack.callback(connection.close)

        def ask(count: int, run: str) -> None:
            for number in range(count // AT_ONCE):
                for place, connection in enumerate(connections):
                    headers = {
                        "X-Session-Token": token,
                        "Idempotency-Key": f"{run}-{number}-{place}",
                    }
                    connection.send(request(path, body, headers))
                for connection in connections:
                    assert connection.answer()[:10] in (b"HTTP/1.1 2", b"HTTP/1.1 4")

        ask(1_000, "warm")
        gc.collect()
        before = kinds()
        with not_collecting():
            ask(REQUESTS, "counted")
            unreachable = gc.collect()
        grown = {kind for kind, more in (kinds() - before).items() if more > FEW}
    assert unreachable < FEW
    assert grown <= KEPT
