"""Requests that nobody wrote: made from the OpenAPI document, good and bad.

    scripts/fuzz --seed 7 --cases 50000

Each answer is held against the document: no failure of the server, no status, type, header or shape
that it does not have, and nothing accepted that it forbids. They are asked as an operator with a
session's token, on things of that session and on things that there are not.
"""

import argparse
import contextlib
import math
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import requests
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.rest.bodies import GOOD, INTENTS, WEBHOOKS, nearly_good
from tests.rest.operations import EVENTS
from tests.rest.served import NO_LIMITS, Served, document

CASES_PER_ROUND = 50
"""After so many cases an operation has new things to be asked about, and another seed."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
OPERATIONS = [
    (method.upper(), path)
    for path, operations in document()["paths"].items()
    for method in operations
    if not path.startswith("/api/v1/sessions")  # the other name of what is tried already
    and path != EVENTS  # its good answer has no end
]
REACHED = {200, 201, 402, 409}
"""What a request hears that was good enough to be looked at."""

load_all_checks()


def things(api: Served) -> tuple[dict[str, str], dict[str, str]]:
    """Ids of a new session and a new hold, and the credentials for everything about them."""
    session = api.session(limits=NO_LIMITS | {"require_approval_above": 1_000_000})
    for path in ("/api/v1/budgets/workspace", "/api/v1/agents/bot/budget"):
        api.call("PUT", path, {"max_lifetime": 999_999_999}, key=api.key)
    held = api.hold(session["session_token"], 1_000_000)
    for webhook in api.get(WEBHOOKS).json():
        api.call("DELETE", f"{WEBHOOKS}/{webhook['id']}", key=api.key)
    waiting = api.pay(session["session_token"], 1_000_001).json()["approval_id"]
    key = api.post("/api/v1/api-keys", {"name": "one more"}).json()["id"]
    agent_key = api.post("/api/v1/agent-keys", {"name": "a key", "agent_id": "bot"}).json()["id"]
    intent = api.call("POST", INTENTS, {"amount": 1}, token=session["session_token"]).json()
    api.post("/api/v1/log/anchor")  # so that there is a checkpoint
    ids = {
        "intent_id": intent["id"],
        "client_secret": intent["client_secret"],
        "key_id": key,
        "agent_key_id": agent_key,
        "session_id": session["id"],
        "session_key_id": session["id"],
        "payment_id": held["id"],
        "approval_id": waiting,
        "agent_id": "bot",
        "webhook_id": api.post(WEBHOOKS, GOOD[WEBHOOKS]).json()["id"],
    }
    return ids, {
        "Authorization": f"Bearer {api.key}",
        "X-Session-Token": session["session_token"],
    }


def fuzz(
    api: Served, method: str, path: str, cases: int, seeded: int | None = None
) -> Counter[int]:
    """Make up so many requests for an operation and hold each answer against the document; without
    a seed they are the same every time. Returns how often each status was heard."""
    ids, credentials = things(api)
    api.schema.config.generation.update(with_security_parameters=False)
    operation = api.schema[path][method]
    known = {name: ids[name] for name in ids if f"{{{name}}}" in path}
    strategy = st.one_of(
        operation.as_strategy(mode, path_parameters=fixed)
        for mode in GenerationMode
        for fixed in (known, None)
    )
    if path in GOOD:
        good = operation.as_strategy(GenerationMode.POSITIVE, path_parameters=known)
        fields = {name: ids.get(name, value) for name, value in GOOD[path].items()}
        strategy |= nearly_good(good, fields)
    heard: Counter[int] = Counter()
    with requests.Session() as http:

        @settings(
            max_examples=cases,
            derandomize=seeded is None,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def ask(case: Any) -> None:
            answer = case.call(base_url=api.url, session=http, headers=credentials)
            case.validate_response(answer, checks=CHECKS)
            unusable = b'"no_usable_offer"' in answer.content
            heard[200 if unusable else answer.status_code] += 1

        (ask if seeded is None else seed(seeded)(ask))()
    return heard


def main() -> None:
    """As a script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--cases", type=int, default=50_000)
    asked = parser.parse_args()
    began, heard = time.monotonic(), Counter[int]()
    draw = random.Random(asked.seed)
    rounds = math.ceil(asked.cases / (CASES_PER_ROUND * len(OPERATIONS)))
    for _ in range(rounds):
        # Each with a server of its own: of some things a workspace has only so many.
        with tempfile.TemporaryDirectory() as directory, Served(Path(directory) / "data") as api:
            for method, path in OPERATIONS:
                drawn = draw.randrange(1 << 32)
                try:
                    heard += fuzz(api, method, path, CASES_PER_ROUND, drawn)
                except BaseException:
                    sys.stdout.write(f"{heard.total()} cases, then {method} {path} seed {drawn}\n")
                    raise
                api.answers.clear()
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(f"{heard.total()} cases: {dict(sorted(heard.items()))}\n")
            sys.stdout.flush()
    sys.stdout.write(f"operations: {len(OPERATIONS)}\ncases: {heard.total()}\n")
    sys.stdout.write(f"seconds: {round(time.monotonic() - began)}\n")


if __name__ == "__main__":
    main()
