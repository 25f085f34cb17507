"""Values that nobody means, at every place of every body and query: each is refused by name or
taken as what it is, and none is a failure of the server.

Everything is in this process, so that thousands take seconds.
"""

import asyncio
import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from api.rest.app import create_app
from tests.rest.bodies import BACKTEST, CHILDREN, EVIDENCE, GOOD, INTENTS, SIMULATE, WEBHOOKS
from tests.rest.served import APPROVALS, NO_LIMITS, PAYMENTS, SESSIONS
from tests.world import World

_AROUND = [power + step for power in (2**31, 2**53, 2**63, 2**64) for step in (-1, 0, 1)]
VALUES = (
    *map(str, _AROUND),
    str(-(2**63) - 1),
    str(10**30),
    "9" * 4_301,  # Python reads no longer integer from text
    '"' + "9" * 4_301 + '"',
    "1e400",
    "-0.0",
    "NaN",
    "Infinity",
    '"\\ud800"',
    '"\\u0000"',
    '"\\u202e\\ufeff"',
    '"\\r\\nX-Injected: 1"',
    '"%00\'--"',
    '"' + "x" * 40_000 + '"',
    "[" * 200 + "]" * 200,
    '{"__proto__":{"admin":true}}',
    "true",
    "null",
    "[]",
    '""',
)
"""As they stand in JSON, or nearly."""
QUERIES = {
    PAYMENTS: ("page", "limit", "session_id", "status", "from_date", "to_date"),
    PAYMENTS + "/export": ("session_id", "status", "from_date", "to_date", "format"),
    SESSIONS: ("page", "limit", "status", "type", "agent_id", "label"),
    APPROVALS: ("page", "limit", "state", "session_id"),
    "/api/v1/agent-keys": ("page", "limit", "agent_id"),
    "/api/v1/audit": ("page", "limit", "actor", "action", "start_date", "end_date"),
    "/api/v1/audit/export": ("actor", "action", "start_date", "end_date", "format"),
    "/api/v1/analytics/agents": ("days", "agent_id"),
}
REFUSED = ((401, "session_token"), (403, "client_secret"))
MONEY = ("amount", "amount_usd", "max_per_day", "max_amount")
HERE = "\N{SECTION SIGN}"
LEFT_OUT = (CHILDREN, SIMULATE, BACKTEST, EVIDENCE)
"""They have the fields of others; the last one takes any text, and looks for a chain."""
STEP = 2
"""Each place gets every second value, by turns; with 1 all of them (some 4,000, 20 seconds)."""
CASES_MIN = 2_000


def places(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every place in a body: where it is, and the body with a mark there."""
    if path:
        yield path, HERE
    if isinstance(value, dict):
        for name, member in value.items():
            for where, changed in places(member, f"{path}.{name}" if path else name):
                yield where, value | {name: changed}
    elif isinstance(value, list):
        for index, member in enumerate(value):
            for where, changed in places(member, f"{path}[{index}]"):
                yield where, [*value[:index], changed, *value[index + 1 :]]


def wrong(field: str, raw: str, answer: httpx.Response) -> str | None:
    """What is wrong with an answer, if anything is."""
    status = answer.status_code
    if status not in (200, 201, 402, 404, 409, 413, 422) and (status, field) not in REFUSED:
        return f"heard {status}"
    if answer.headers["Content-Type"] == "application/json":
        body = answer.json(parse_constant=lambda text: 1 / 0 if text else None)
        if status >= 400 and not (body["code"] and body["message"]):
            return "heard no reason"
    if "X-Injected" in answer.headers:
        return "wrote a header"
    if status < 300 and field.rpartition(".")[2] in MONEY:
        text = raw.strip('"')
        if text == "null":
            return None
        fits = text.isascii() and text.isdigit() and len(text) < 10 and Decimal(text) > 0
        return None if fits else "is money"
    return None


async def ask_all(world: World, key: str) -> tuple[int, list[str]]:
    """Ask for everything; returns how much that was, and what was wrong."""
    transport = httpx.ASGITransport(create_app(world.engine), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    count, found, turns = 0, [], itertools.count()
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:

        async def post(path: str, body: Any) -> dict[str, Any]:
            answer = await http.post(path, json=body, headers=headers)
            assert answer.status_code == 201, answer.text
            return dict(answer.json())

        limits = NO_LIMITS | {"require_approval_above": 1_000_000}
        new = {"agent_id": "bot", "user_wallet": "wallet", "limits": limits}
        session = await post(SESSIONS, new)
        headers["X-Session-Token"] = session["session_token"]
        intent = await post(INTENTS, {"amount": 1})
        ids = {
            "session_id": session["id"],
            "payment_id": (await post(PAYMENTS, {"amount": 1}))["id"],
            "approval_id": "apr_" + "0" * 26 + "_0",
            "webhook_id": (await post(WEBHOOKS, GOOD[WEBHOOKS]))["id"],
            "intent_id": intent["id"],
            "client_secret": intent["client_secret"],
            "session_key_id": session["id"],
        }
        for path, good in GOOD.items():
            if path in LEFT_OUT:
                continue
            ours = {name: ids.get(name, value) for name, value in good.items()}
            for field, body in places(ours):
                sent = json.dumps(body)
                for raw in VALUES[next(turns) % STEP :: STEP]:
                    answer = await http.post(
                        path.format(**ids),
                        content=sent.replace(json.dumps(HERE), raw),
                        headers=headers,
                    )
                    count += 1
                    if why := wrong(field, raw, answer):
                        found.append(f"{path} {field} {raw[:40]}: {why}")
        for path, names in QUERIES.items():
            for name in names:
                for raw in VALUES[next(turns) % STEP :: STEP]:
                    value = raw.strip('"')[:2_000]
                    answer = await http.get(path, params={name: value}, headers=headers)
                    count += 1
                    if why := wrong(name, raw, answer):
                        found.append(f"{path}?{name}={value[:40]}: {why}")
    return count, found


def test_no_value_that_nobody_means_makes_the_server_fail(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    count, found = asyncio.run(ask_all(world, world.operator_key or ""))
    world.engine.close()
    assert found == []
    assert count >= CASES_MIN
