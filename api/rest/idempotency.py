"""Idempotency keys: the header on the way in, a refusal in the caller's words on the way out."""

from typing import Annotated

from fastapi import Depends, Header

from api.rest.schemas import PaymentBody
from engine.errors import Conflict, InvalidInput
from engine.ledger.ask import IDEMPOTENCY_KEY_LENGTH_MAX

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


def _key(name: str) -> object:
    return Header(alias=name, min_length=1, max_length=IDEMPOTENCY_KEY_LENGTH_MAX)


async def idempotency_key(
    key: Annotated[str | None, _key("Idempotency-Key")] = None,
    same_key: Annotated[str | None, _key("X-Idempotency-Key")] = None,
) -> str | None:
    """The key of a request; some clients call its header `X-Idempotency-Key`.

    Raises:
        InvalidInput: two headers that differ.
    """
    if key is not None and same_key is not None and key != same_key:
        raise InvalidInput("X-Idempotency-Key", "differs from Idempotency-Key")
    return key or same_key


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
