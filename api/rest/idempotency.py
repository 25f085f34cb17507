"""Idempotency keys: the header on the way in, a refusal in the caller's words on the way out."""

from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import BaseModel

from api.rest.schemas import PaymentBody
from engine.engine import Engine
from engine.errors import Conflict, InvalidInput
from engine.ledger.ask import IDEMPOTENCY_KEY_LENGTH_MAX
from engine.ledger.once import Once
from engine.workspaces.access import Operator, SessionHolder

REPLAYED = {"Idempotent-Replayed": "true"}
"""The header of an answer that was given before."""

_CALLER_NAMES = {
    "amount_micro_usd": "amount",
    "merchant": "merchant_id",
    "metadata_json": "metadata",
    "product_details_json": "product_details",
    "capture": "capture_method",
    "token_priced": "token",
}


_NAMES = ("Idempotency-Key", "X-Idempotency-Key")
_KEY = {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_LENGTH_MAX}
WITH_KEY: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "header",
            "required": False,
            "schema": {"anyOf": [_KEY, {"type": "null"}], "title": name},
        }
        for name in _NAMES
    ]
}
"""For OpenAPI: a parameter of FastAPI's costs as much for each header as reading the body."""


async def idempotency_key(request: Request) -> str | None:
    """The key of a request; some clients call its header `X-Idempotency-Key`.

    Raises:
        InvalidInput: one is empty or too long, or they differ.
    """
    key, same_key = (_key(request, name) for name in _NAMES)
    if key is not None and same_key is not None and key != same_key:
        raise InvalidInput("X-Idempotency-Key", "differs from Idempotency-Key")
    return key or same_key


def _key(request: Request, name: str) -> str | None:
    key = request.headers.get(name)
    if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX:
        raise InvalidInput(name, f"must have 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters")
    return key


def in_callers_words(conflict: Conflict, body: PaymentBody) -> Conflict:
    """Name the field that differs as the caller wrote it."""
    stored = str(conflict.details["field"])
    field = body.caller_name(_CALLER_NAMES.get(stored, stored))
    return Conflict(
        f"this idempotency key was used for another request: {field} differs",
        code=conflict.code,
        field=field,
    )


IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]


def once(
    engine: Engine,
    party: Operator | SessionHolder,
    key: str | None,
    path: str,
    body: BaseModel | None = None,
) -> Once | None:
    """What is asked for under an idempotency key, if one was sent: by whom, at which path."""
    if key is None:
        return None
    caller = party.key_id if isinstance(party, Operator) else party.session_id
    fields = {} if body is None else body.model_dump(by_alias=True)
    return engine.once(caller, key, path, fields)


def mark_replay(response: Response, asked: Once | None) -> None:
    """Say so in the headers where the answer was given before."""
    if asked is not None and asked.replayed:
        response.headers.update(REPLAYED)
