"""Bodies that are not what a route takes are refused by name and leave no trace."""

import json
import re
from dataclasses import dataclass
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.rest.bodies import (
    ASSIGNED,
    CAPTURE,
    CAPTURE_INTENT,
    CONFIRM,
    ESCAPES,
    EVERY_TYPE,
    EVIDENCE,
    GOOD,
    GOOD_BYTES,
    INTENTS,
    MAY_BE_EMPTY,
    NOT_JSON,
    ROUTES,
    SETTLEMENT,
    SURROGATES,
    TYPES,
    WEBHOOKS,
    texts,
)
from tests.rest.served import NO_LIMITS, PAYMENTS, SESSIONS, SMART, Served, refused

NAMED = ("client_secret", "session_key_id")
"""Fields of good bodies that stand for what there really is."""


@dataclass
class Sender:
    """Sends a body to a route, as a caller who may."""

    api: Served
    token: str
    ids: dict[str, str]

    def __call__(self, path: str, **how: Any) -> httpx.Response:
        pays = path in (SMART, PAYMENTS, CONFIRM)
        credentials = {"token": self.token} if pays else {"key": self.api.key}
        for name, value in (how.get("body") or {}).items():
            if name in NAMED and value == GOOD[path].get(name):
                how["body"] = how["body"] | {name: self.ids[name]}
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
    asking = api.session(limits=NO_LIMITS | {"require_approval_above": 1})["session_token"]
    waiting = api.pay(asking, 2).json()["approval_id"]
    ids = {"session_id": session["id"], "payment_id": held["id"], "approval_id": waiting}
    ids["webhook_id"] = api.post(WEBHOOKS, GOOD[WEBHOOKS]).json()["id"]
    intent = api.post(INTENTS, GOOD[INTENTS]).json()
    ids |= {"intent_id": intent["id"], "client_secret": intent["client_secret"]}
    ids["session_key_id"] = api.session()["id"]
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
    assert taking == {*GOOD, SETTLEMENT}
    for path in ROUTES:
        assert properties(api, path).keys() == GOOD[path].keys()
        assert jsonschema_rs.is_valid(request_schema(api, path), GOOD[path])


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_good_is_not_refused(send: Sender, path: str) -> None:
    answer = send(path, body=GOOD[path])
    # The chain is one that nobody configured, nobody waits for consent.
    assert (
        answer.status_code in (200, 201, 402, 409) or answer.json()["code"] == "no_usable_offer"
    ), answer.text


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
        assert path in MAY_BE_EMPTY


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("path", [path for path in ROUTES if path != EVIDENCE])
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
    assert tried or path in (CAPTURE, CAPTURE_INTENT)


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


@pytest.mark.parametrize("path", [path for path in ROUTES if path not in MAY_BE_EMPTY])
def test_null_is_no_body(send: Sender, path: str) -> None:
    before = send.api.records()
    assert send(path, raw="null").status_code == 422
    assert send.api.records() == before


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
