"""Bodies that are not what a route takes are refused by name and leave no trace."""

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.rest.served import PAYMENTS, SESSIONS, SMART, Served, refused

SIMULATE = SESSIONS + "/{session_id}/simulate"
BACKTEST = SESSIONS + "/{session_id}/backtest"
CONSENT = SESSIONS + "/{session_id}/consent"
CHILDREN = SESSIONS + "/{session_id}/children"
RESTRICT = SESSIONS + "/{session_id}/restrict"
CAPTURE = PAYMENTS + "/{payment_id}/capture"

# A good request for every route that takes a body; text is where text may be.
GOOD: dict[str, dict[str, Any]] = {
    SESSIONS: {
        "agent_id": "bot",
        "agent_name": "Bot",
        "user_wallet": "wallet",
        "limits": {"max_per_day": 5},
        "allowed_merchants": ["books"],
        "allowed_tokens": ["USDC"],
        "allowed_chains": ["eip155:1"],
        "permissions": ["pay"],
        "conditions": ["never merchant casino"],
        "duration_hours": 1,
        "mint_pkp": False,
        "await_consent": False,
        "type": "agent",
        "label": "daily",
        "metadata": {"a": 1},
    },
    CHILDREN: {
        "agent_id": "bot",
        "agent_name": "Bot",
        "user_wallet": "wallet",
        "limits": {"max_per_day": 5},
        "allowed_merchants": ["books"],
        "allowed_tokens": ["USDC"],
        "allowed_chains": ["eip155:1"],
        "permissions": ["pay"],
        "conditions": ["never merchant casino"],
        "duration_hours": 1,
        "mint_pkp": False,
        "await_consent": False,
        "type": "agent",
        "label": "daily",
        "metadata": {"a": 1},
    },
    RESTRICT: {"restrictions": ["never merchant casino"]},
    CONSENT: {"owner_signature": "0x" + "11" * 65},
    SMART: {
        "amount_usd": 1,
        "session_token": "",
        "agent_id": "session",
        "user_wallet": "",
        "merchant_id": "books",
        "token": "USDC",
        "chain": "eip155:1",
        "description": "Paper",
        "metadata": {"a": 1},
        "product_details": {"b": 2},
        "auto_detect_gasless": True,
        "instant_settlement": False,
        "enable_escrow": False,
    },
    PAYMENTS: {
        "amount": 1,
        "currency": "USD",
        "token": "USDC",
        "chain": "eip155:1",
        "merchant_id": "books",
        "recipient_wallet": "books",
        "customer_email": "buyer@example.org",
        "redirect_url": "https://shop.example/done",
        "capture_method": "manual",
        "description": "Paper",
        "metadata": {"a": 1},
    },
    CAPTURE: {"amount": 1},
    BACKTEST: {
        "limits": {"max_per_day": 5},
        "allowed_merchants": ["books"],
        "allowed_tokens": ["USDC"],
        "allowed_chains": ["eip155:1"],
        "permissions": ["pay"],
        "conditions": ["never merchant casino"],
        "restrictions": ["at most 2 payments per hour"],
    },
    "/api/v1/agents": {"agent_id": "bot", "name": "Bot"},
    "/api/v1/workspaces": {"id": "acme", "name": "Acme"},
}
GOOD[SIMULATE] = GOOD[PAYMENTS]
ROUTES = tuple(GOOD)


@dataclass
class Sender:
    """Sends a body to a route, as a caller who may."""

    api: Served
    token: str
    ids: dict[str, str]

    def __call__(self, path: str, **how: Any) -> httpx.Response:
        credentials = {"token": self.token} if path in (SMART, PAYMENTS) else {"key": self.api.key}
        return self.api.call("POST", path.format(**self.ids), **credentials, **how)

    def refused(
        self, path: str, status: int, code: str, field: str | None = None, **how: Any
    ) -> None:
        """Send it and see it refused like this, without a record."""
        before = self.api.records()
        refused(self(path, **how), status, code, field)
        assert self.api.records() == before


@pytest.fixture(scope="module")
def send(api: Served) -> Sender:
    session = api.session()
    held = api.hold(session["session_token"], 100)
    ids = {"session_id": session["id"], "payment_id": held["id"]}
    return Sender(api, session["session_token"], ids)


def request_schema(api: Served, path: str) -> dict[str, Any]:
    """The documented schema of a route's body, with every definition it refers to."""
    content = api.openapi["paths"][path]["post"]["requestBody"]["content"]
    schema: dict[str, Any] = content["application/json"]["schema"]
    return schema | {"components": api.openapi["components"]}


def properties(api: Served, path: str) -> dict[str, dict[str, Any]]:
    """The schema of every field of a route's body, by its name."""
    schema = request_schema(api, path)
    reference = next(option for option in schema.get("anyOf", [schema]) if "$ref" in option)
    name = reference["$ref"].rpartition("/")[2]
    fields = api.openapi["components"]["schemas"][name]["properties"]
    return {
        field: known | {"components": api.openapi["components"]} for field, known in fields.items()
    }


def test_every_route_with_a_body_is_tried_here_with_every_field_it_has(api: Served) -> None:
    taking = {
        path.replace("/api/v1/sessions", SESSIONS)
        for path, operations in api.openapi["paths"].items()
        if "requestBody" in operations.get("post", {})
    }
    assert taking == set(GOOD)
    for path in ROUTES:
        assert properties(api, path).keys() == GOOD[path].keys()
        assert jsonschema_rs.is_valid(request_schema(api, path), GOOD[path])


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_good_is_not_refused(send: Sender, path: str) -> None:
    answer = send(path, body=GOOD[path])
    # The chain is one that nobody configured, nobody waits for consent.
    assert answer.status_code in (200, 201, 402, 409), answer.text


EVERY_TYPE: tuple[Any, ...] = (
    None,
    True,
    1,
    1.5,
    "",
    "text",
    [],
    ["text"],
    [[]],
    [None],
    {},
    {"a": 1},
)


@pytest.mark.parametrize("path", ROUTES)
def test_a_field_of_a_type_that_is_not_documented_is_refused_by_name(
    send: Sender, path: str
) -> None:
    tried = 0
    for field, schema in properties(send.api, path).items():
        for value in EVERY_TYPE:
            if jsonschema_rs.is_valid(schema, value):
                continue
            tried += 1
            answer = send(path, body=GOOD[path] | {field: value})
            assert answer.status_code == 422, (field, value, answer.text)
            assert answer.json()["details"]["field"].split(".")[0] == field, (field, value)
    assert tried >= 6 * len(GOOD[path])


def test_the_types_inside_limits_are_looked_at_too(send: Sender) -> None:
    for value in (True, "", "text", [], {}, [1]):
        limits = {"max_per_week": value}
        send.refused(
            SESSIONS,
            422,
            "invalid_parameter",
            "limits.max_per_week",
            body=GOOD[SESSIONS] | {"limits": limits},
        )


ASSIGNED = (
    "unknown",
    "id",
    "workspace_id",
    "tenant_id",
    "role",
    "admin",
    "state",
    "status",
    "is_active",
    "consent",
    "created_at",
    "expires_at",
    "remaining_today",
    "session_key",
    "pkp_address",
    "token_priced",
    "number",
    "rate_limits",
    "split_recipients",
    "Amount",
    "__proto__",
    "",
)


@pytest.mark.parametrize("path", ROUTES)
def test_a_field_that_does_not_exist_is_refused_by_name(send: Sender, path: str) -> None:
    for field in ASSIGNED:
        if field in GOOD[path]:
            continue
        send.refused(path, 422, "invalid_parameter", field or "body", body=GOOD[path] | {field: 1})


def test_a_limit_that_does_not_exist_is_refused_by_name(send: Sender) -> None:
    body = GOOD[SESSIONS] | {"limits": {"max_per_year": 1}}
    send.refused(SESSIONS, 422, "invalid_parameter", "limits.max_per_year", body=body)


@pytest.mark.parametrize("path", ROUTES)
def test_a_field_that_is_required_is_asked_for_by_name(send: Sender, path: str) -> None:
    name = request_schema(send.api, path).get("$ref", "/").rpartition("/")[2]
    schema = send.api.openapi["components"]["schemas"].get(name, {})
    for field in schema.get("required", []):
        body = {key: value for key, value in GOOD[path].items() if key != field}
        send.refused(path, 422, "missing_required_field", field, body=body)
    if "required" in schema:
        send.refused(path, 422, "missing_required_field", schema["required"][0], body={})
        send.refused(path, 422, "missing_required_field", "body")
    else:
        assert path in (CAPTURE, BACKTEST)


def texts(value: Any, field: str | None = None) -> Iterator[tuple[str, Any]]:
    """Every place in a body where there is text: the field, and the body with a marker there."""
    if isinstance(value, str):
        yield field or "", "\N{BULLET}"
    elif isinstance(value, dict):
        for key, item in value.items():
            for found, changed in texts(item, field or key):
                yield found, value | {key: changed}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for found, changed in texts(item, field):
                yield found, [*value[:index], changed, *value[index + 1 :]]


@pytest.mark.parametrize(
    "escape",
    [
        r"\ud800",
        r"\udc00",
        r"a\udfff",
        r"\ude00\ud83d",
        r"\u0000",
        r"a\u0000",
        r"\u001b[31m",
        r"a\nb",
        r"\u007f",
    ],
)
@pytest.mark.parametrize("path", ROUTES)
def test_text_that_nobody_could_show_is_refused_by_name(
    send: Sender, path: str, escape: str
) -> None:
    tried = 0
    for field, body in texts(GOOD[path]):
        raw = json.dumps(body).replace(r"\u2022", escape)
        answer = send(path, raw=raw)
        assert answer.status_code == 422, (field, answer.text)
        assert re.split(r"[.\[]", answer.json()["details"]["field"])[0] == field
        tried += 1
    assert tried or path == CAPTURE


SURROGATES = (r"\ud800", r"\udc00", r"\ud800a")


@pytest.mark.parametrize("half", SURROGATES)
@pytest.mark.parametrize("path", [SESSIONS, SMART, PAYMENTS])
def test_half_of_a_surrogate_pair_is_refused_wherever_it_hides(
    send: Sender, path: str, half: str
) -> None:
    for metadata in (f'{{"a":["{half}"]}}', f'{{"{half}":1}}', f'{{"a":{{"b":{{"{half}":1}}}}}}'):
        raw = json.dumps(GOOD[path] | {"metadata": 0}).replace(
            '"metadata": 0', f'"metadata": {metadata}'
        )
        send.refused(path, 422, "invalid_json", "metadata", raw=raw)
    raw = json.dumps(GOOD[path])[:-1] + f', "{half}": 1}}'
    send.refused(path, 422, "invalid_json", "body", raw=raw)


def test_a_whole_surrogate_pair_is_a_character_like_others(send: Sender) -> None:
    raw = r'{"amount":1,"description":"\ud83d\ude00","metadata":{"\ud83d\ude00":"\u0000"}}'
    paid = send(PAYMENTS, raw=raw).json()
    assert (paid["description"], paid["metadata"]) == ("\U0001f600", {"\U0001f600": "\0"})


GOOD_BYTES = b'{"amount":1}'
NOT_JSON = {
    "half an object": b'{"amount":',
    "two objects": b'{"amount":1}{"amount":1}',
    "trailing comma": b'{"amount":1,}',
    "single quotes": b"{'amount':1}",
    "comment": b'{"amount":1}//',
    "bare word": b"amount",
    "control character in text": b'{"amount":1,"description":"a\nb"}',
    "byte order mark": b"\xef\xbb\xbf" + GOOD_BYTES,
    "UTF-16": GOOD_BYTES.decode().encode("utf-16"),
    "UTF-16 without a mark": GOOD_BYTES.decode().encode("utf-16-le"),
    "UTF-32": GOOD_BYTES.decode().encode("utf-32"),
    "Latin-1": '{"amount":1,"description":"é"}'.encode("latin-1"),
    "overlong UTF-8": b'{"amount":1,"description":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"amount":1,"description":"\xed\xa0\x80"}',
    "gzip": gzip.compress(GOOD_BYTES),
    "NUL": b"\0",
    "space": b" ",
    "deep arrays": b"[" * 60_000,
    "deep objects": b'{"a":' * 12_000,
    "a duplicate key": b'{"amount":1,"amount":2}',
    "the same key twice": b'{"amount":1,"amount":1}',
    "a duplicate key by escape": rb'{"amount":1,"\u0061mount":2}',
    "a duplicate key deep inside": b'{"amount":1,"metadata":{"a":[{"b":1,"b":2}]}}',
}


@pytest.mark.parametrize("how", NOT_JSON)
@pytest.mark.parametrize("path", ROUTES)
def test_what_is_not_strict_json_in_utf_8_is_refused(send: Sender, path: str, how: str) -> None:
    send.refused(path, 422, "invalid_json", "body", raw=NOT_JSON[how])


@pytest.mark.parametrize(("levels", "allowed"), [(30, True), (31, False), (500, False)])
def test_metadata_is_as_deep_as_a_record_may_be(send: Sender, levels: int, allowed: bool) -> None:
    raw = '{"amount":1,"metadata":{"a":' + "[" * levels + "]" * levels + "}}"
    if allowed:
        assert send(PAYMENTS, raw=raw).status_code == 201
    else:
        send.refused(PAYMENTS, 422, "invalid_json", "metadata", raw=raw)


@pytest.mark.parametrize("raw", ["[]", "[{}]", '"text"', "1", "true", "NaN", "1.5"])
@pytest.mark.parametrize("path", ROUTES)
def test_a_body_is_an_object(send: Sender, path: str, raw: str) -> None:
    send.refused(path, 422, "invalid_parameter", "body", raw=raw)


@pytest.mark.parametrize("path", [path for path in ROUTES if path != CAPTURE])
def test_null_is_no_body(send: Sender, path: str) -> None:
    before = send.api.records()
    assert send(path, raw="null").status_code == 422
    assert send.api.records() == before


TYPES = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/jsonp",
    "json",
    "",
)


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("path", ROUTES)
def test_a_body_of_another_type_is_refused(send: Sender, path: str, content_type: str) -> None:
    raw = json.dumps(GOOD[path])
    headers = {"Content-Type": content_type}
    send.refused(path, 415, "unsupported_media_type", raw=raw, headers=headers)


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"],
)
def test_json_may_call_itself_so_in_other_words(send: Sender, content_type: str) -> None:
    answer = send(PAYMENTS, raw=GOOD_BYTES, headers={"Content-Type": content_type})
    assert answer.status_code == 201
