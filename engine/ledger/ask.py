"""A payment as it is asked of the ledger, ready to be decided and recorded."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.audit.canonical import CanonicalError, encode
from engine.errors import InvalidInput
from engine.policy.decision import PaymentRequest

IDEMPOTENCY_KEY_LENGTH_MAX = 255
_DECIDED_ON = frozenset(
    ("amount_micro_usd", "merchant", "token", "chain", "permission", "token_priced")
)


@dataclass(frozen=True, slots=True)
class Ask:
    """Use `ask`. `decided_on` is what the policy looks at, `memo_json` all else that was sent.

    `digest` is the SHA-256 of both, in hexadecimal: the record names it.
    """

    session_id: str
    request: PaymentRequest
    decided_on: dict[str, Any]
    memo: dict[str, Any]
    memo_json: str
    digest: str
    key: str | None
    capture: bool

    def same_as(self, earlier: Mapping[str, Any]) -> str | None:
        """The first field in which an earlier request differs; None if it is the same."""
        asked = {**self.decided_on, **self.memo}
        # Whether a token has a price is the server's setting and not what the caller asked.
        for name in sorted((asked.keys() | earlier.keys()) - {"token_priced"}):
            if asked.get(name) != earlier.get(name):
                return name
        return None


def read_request(asked: Mapping[str, Any]) -> PaymentRequest:
    """What the policy looks at, as `Ask.decided_on` holds it and the record of a decision."""
    return PaymentRequest(
        amount=asked["amount_micro_usd"],
        merchant=asked["merchant"],
        token=asked["token"],
        chain=asked["chain"],
        permission=asked["permission"],
        token_priced=asked["token_priced"],
    )


def ask_again(session_id: str, earlier: Mapping[str, Any]) -> Ask:
    """An earlier request, all that was sent with it but its key, to be decided once more."""
    memo = {name: value for name, value in earlier.items() if name not in _DECIDED_ON}
    capture = memo.pop("capture")
    return ask(session_id, read_request(earlier), memo=memo, capture=capture)


def ask(
    session_id: str,
    request: PaymentRequest,
    *,
    memo: Mapping[str, Any],
    key: str | None = None,
    capture: bool = False,
) -> Ask:
    """Prepare a request. `memo` is JSON that belongs to no rule (description, metadata).

    Raises:
        InvalidInput: the key is empty, too long or has a NUL; or the memo is not JSON of the log.
    """
    if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX:
        raise InvalidInput(
            "Idempotency-Key", f"must have 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters"
        )
    if key is not None and "\0" in key:  # which not every database can keep
        raise InvalidInput("Idempotency-Key", "must not have a NUL character")
    decided_on = {
        "amount_micro_usd": request.amount,
        "merchant": request.merchant,
        "token": request.token,
        "chain": request.chain,
        "permission": request.permission,
        "token_priced": request.token_priced,
    }
    sent = {**memo, "capture": capture}
    try:
        memo_json = encode(sent)
        digest = hashlib.sha256(encode(decided_on) + memo_json).hexdigest()
    except CanonicalError as error:
        raise InvalidInput("request", str(error)) from error
    return Ask(session_id, request, decided_on, sent, memo_json.decode(), digest, key, capture)
