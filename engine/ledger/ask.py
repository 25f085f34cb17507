"""A payment as it is asked of the ledger, ready to be decided and recorded."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.audit.canonical import CanonicalError, encode
from engine.errors import Conflict, InvalidInput
from engine.policy.decision import PaymentRequest

IDEMPOTENCY_KEY_LENGTH_MAX = 255
_DECIDED_ON = frozenset(
    ("amount_micro_usd", "merchant", "token", "chain", "permission", "token_priced", "terms")
)


class Ask(msgspec.Struct, frozen=True):
    """Use `ask`. `decided_on` is what the policy looks at, `memo_json` all else that was sent.

    `digest` is the SHA-256 of both, in hexadecimal: the record names it. `terms` are what is to be
    signed if the policy allows it (`engine.payments.terms`); they are among what is decided on.
    """

    session_id: str
    request: PaymentRequest
    decided_on: dict[str, Any]
    memo: dict[str, Any]
    memo_json: str
    digest: str
    key: str | None
    capture: bool
    terms: Mapping[str, Any] | None = None

    def same_as(self, earlier: Mapping[str, Any]) -> str | None:
        """The first field in which an earlier request differs; None if it is the same."""
        asked = {**self.decided_on, **self.memo}
        if self.terms is not None and (told := earlier.get("terms")) is not None:
            # First: the amount in dollars and the merchant only follow from them.
            for name in self.terms:
                if self.terms[name] != told.get(name):
                    return f"terms.{name}"
        # Whether a token has a price is the server's setting and not what the caller asked.
        for name in sorted((asked.keys() | earlier.keys()) - {"token_priced"}):
            if asked.get(name) != earlier.get(name):
                return name
        return None

    def check_same(self, earlier: Mapping[str, Any]) -> None:
        """Refuse to be answered by an earlier request's answer.

        Raises:
            Conflict: it was another request; `field` names what differs.
        """
        if (field := self.same_as(earlier)) is not None:
            raise Conflict(
                f"this idempotency key was used for another request: {field} differs",
                code="idempotency_key_reused",
                field=field,
            )


def read_request(asked: Mapping[str, Any]) -> PaymentRequest:
    """What the policy looks at, as `Ask.decided_on` holds it and the record of a decision."""
    return PaymentRequest(
        amount=asked["amount_micro_usd"],
        merchant=asked["merchant"],
        token=asked["token"],
        chain=asked["chain"],
        permission=asked["permission"],
        token_priced=asked["token_priced"],
        pay_to=pay_to(asked),
    )


def pay_to(asked: Mapping[str, Any]) -> str | None:
    """The account that a request names beside its merchant: that of its terms."""
    terms = asked.get("terms")
    return None if terms is None else str(terms["pay_to"])


def ask_again(session_id: str, earlier: Mapping[str, Any]) -> Ask:
    """An earlier request, all that was sent with it but its key, to be decided once more."""
    memo = {name: value for name, value in earlier.items() if name not in _DECIDED_ON}
    capture = memo.pop("capture")
    terms = earlier.get("terms")
    return ask(session_id, read_request(earlier), memo=memo, capture=capture, terms=terms)


def ask(
    session_id: str,
    request: PaymentRequest,
    *,
    memo: Mapping[str, Any],
    key: str | None = None,
    capture: bool = False,
    terms: Mapping[str, Any] | None = None,
) -> Ask:
    """Prepare a request. `memo` is JSON that belongs to no rule (description, metadata).

    `terms` name the account that is paid: `request` has the same.

    Raises:
        InvalidInput: the key is empty, too long or has a NUL; or the memo is not JSON of the log.
    """
    if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX:
        raise InvalidInput(
            "Idempotency-Key", f"must have 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters"
        )
    if key is not None and "\0" in key:  # which not every database can keep
        raise InvalidInput("Idempotency-Key", "must not have a NUL character")
    decided_on: dict[str, Any] = {
        "amount_micro_usd": request.amount,
        "merchant": request.merchant,
        "token": request.token,
        "chain": request.chain,
        "permission": request.permission,
        "token_priced": request.token_priced,
    }
    if terms is not None:
        assert terms["pay_to"] == request.pay_to
        assert not capture, "the chain captures what is signed"
        decided_on["terms"] = dict(terms)
    sent = {**memo, "capture": capture}
    try:
        memo_json = encode(sent)
        digest = hashlib.sha256(encode(decided_on) + memo_json).hexdigest()
    except CanonicalError as error:
        raise InvalidInput("request", str(error)) from error
    return Ask(
        session_id, request, decided_on, sent, memo_json.decode(), digest, key, capture, terms
    )
