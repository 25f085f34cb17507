"""How OpenAPI describes what the store takes and answers."""

from typing import Any

from api.gate.conditions import MATCH, NONE_MATCH
from api.rest import errors
from api.rest.answers import ErrorAnswer


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route. FastAPI renames their model if an application has one of that name."""
    found = errors.documented(*statuses)
    return {
        status: {"model": ErrorAnswer, "description": each["description"]}
        for status, each in found.items()
    }


ANSWERS: dict[int | str, dict[str, Any]] = {
    402: {"model": ErrorAnswer, "description": "Pay as PAYMENT-REQUIRED says"},
    **documented(409, 413, 422, 503),
}
TEXT: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"text/plain": {"schema": {"type": "string"}}}}
}
KEYS = {"keys": {"type": "array", "items": {"type": "string"}, "minItems": 1}}
ENTRIES = {
    "entries": {"type": "object", "additionalProperties": {"type": "string"}},
    "ttl_ms": {"type": ["integer", "null"], "minimum": 0},
}
MAY_BE_ABSENT = documented(404)
CONDITIONAL: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
        for name in (MATCH, NONE_MATCH)
    ]
}
VALUE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}


def an_object(properties: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI request body."""
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    schema["required"] = [next(iter(properties))]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
