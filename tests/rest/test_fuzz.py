"""Requests that nobody wrote: made from the OpenAPI document, good and bad, the same every time."""

from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
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

from tests.rest.bodies import GOOD, WEBHOOKS, nearly_good
from tests.rest.served import NO_LIMITS, Served, document

EXAMPLES_WITH_BODY = 30
EXAMPLES_WITHOUT = 15
"""What takes no body has little that can be made up."""
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
]
REACHED = {200, 201, 402, 409}

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
    ids = {
        "key_id": key,
        "agent_key_id": agent_key,
        "session_id": session["id"],
        "payment_id": held["id"],
        "approval_id": waiting,
        "agent_id": "bot",
        "webhook_id": api.post(WEBHOOKS, GOOD[WEBHOOKS]).json()["id"],
    }
    return ids, {
        "Authorization": f"Bearer {api.key}",
        "X-Session-Token": session["session_token"],
    }


@pytest.mark.parametrize(
    ("method", "path"), OPERATIONS, ids=[" ".join(pair) for pair in OPERATIONS]
)
def test_made_up_requests_hear_what_is_documented(api: Served, method: str, path: str) -> None:
    ids, credentials = things(api)
    api.schema.config.generation.update(with_security_parameters=False)
    operation = api.schema[path][method]
    takes_a_body = "requestBody" in document()["paths"][path][method.lower()]
    examples = EXAMPLES_WITH_BODY if takes_a_body else EXAMPLES_WITHOUT
    known = {name: ids[name] for name in ids if f"{{{name}}}" in path}
    strategy = st.one_of(
        operation.as_strategy(mode, path_parameters=fixed)
        for mode in GenerationMode
        for fixed in (known, None)
    )
    if path in GOOD:
        cases = operation.as_strategy(GenerationMode.POSITIVE, path_parameters=known)
        strategy |= nearly_good(cases, GOOD[path])
    looked_at: list[bool] = []
    with requests.Session() as http:

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def fuzz(case: Any) -> None:
            answer = case.call(base_url=api.url, session=http, headers=credentials)
            case.validate_response(answer, checks=CHECKS)
            unusable = b'"no_usable_offer"' in answer.content
            looked_at.append(unusable or answer.status_code in REACHED)

        fuzz()
    assert any(looked_at), "no request was good enough to be looked at"
