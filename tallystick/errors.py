"""What goes wrong for a client.

ApiError             the Tallystick server refused, or did not answer
└── PaymentDenied    its policy does not allow this payment
SessionNotActive     no session is there to pay with
PaymentError         of a resource that asks for a payment (x402)
├── NotPayable              nothing was asked for, nothing is paid
├── PaymentNotAccepted      paid, and told to pay again; there is no second signature
├── PaymentOutcomeUnknown   the signature was sent, and nobody said what became of it
└── AnswerNotReadable       the resource's answer is too long, or not to be read
"""

from collections.abc import Mapping
from typing import Any

_NOT_OFFERED = 501


class ApiError(Exception):
    """The server refused, or denied a payment (`status` 402), or did not answer (`status` 0).

    `code` is stable, `message` is for people, `body` is the whole answer. Without an answer `code`
    is `unreachable` or `not_sendable` (nothing was done) or `no_answer` (perhaps it was).
    `idempotency_key` is the one that was sent: what is asked again with it is done once.
    `retry_after_s` is how many seconds the server wants to be left alone, if it said so.
    """

    def __init__(self, status: int, code: str, message: str, body: Mapping[str, Any]) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.body = body
        self.idempotency_key: str | None = None
        self.retry_after_s: float | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether the server may have done what was asked: it did not get to say so."""
        refused = 400 <= self.status < 500 or self.status == _NOT_OFFERED
        return self.code == "no_answer" or (self.status > 0 and not refused)


class PaymentDenied(ApiError):
    """The session's policy does not allow what a resource asks for. Nothing was signed."""

    @property
    def rule(self) -> str:
        """The rule that denied it."""
        return str(self._decision.get("rule", ""))

    @property
    def reason(self) -> str:
        """Why, for people."""
        return self.message

    @property
    def approval_id(self) -> str | None:
        """The approval that it waits for. Once granted, the same call with the same key pays."""
        return self.body.get("approval_id")

    @property
    def remaining(self) -> dict[str, Any]:
        """What the decision left of the limits `today`, `this_week` and `this_month`, in dollars;
        None: unlimited."""
        return {name: self.body.get(f"remaining_{name}") for name in _WINDOWS}

    @property
    def _decision(self) -> Mapping[str, Any]:
        decision = self.body.get("decision")
        return decision if isinstance(decision, Mapping) else {}


_WINDOWS = ("today", "this_week", "this_month")


class SessionNotActive(Exception):
    """No session is held, its token is not, or a new one was not active in time."""


class PaymentError(Exception):
    """See the module. `code` is stable and `message` for people.

    `payment_id` is the payment at the Tallystick server, if one was signed, and `idempotency_key`
    what the call was made with: the same call with it never pays a second time.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        payment_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.payment_id = payment_id
        self.idempotency_key = idempotency_key


class NotPayable(PaymentError):
    """Nothing was signed. `code`: `redirected` (another URL asks than was asked for),
    `body_not_replayable` (the request's body is a stream) or `payment_required_unreadable`."""


class PaymentNotAccepted(PaymentError):
    """The resource had the signature and asked for a payment again.

    `code`: `payment_not_accepted`, or `terms_changed` if it asks for another one than it did.
    Until the signature is not valid any more, its amount stays held.
    """


class PaymentOutcomeUnknown(PaymentError):
    """The resource had the signature and gave no answer that says whether it was used.

    `code`: `payment_outcome_unknown`. `tx_hash` is the transaction that it named, if any.
    """

    tx_hash: str | None = None


class AnswerNotReadable(PaymentError):
    """The answer, paid for or not, is too long or encoded in a way that nobody asked for.

    `code`: `answer_too_long` or `answer_not_readable`.
    """
