"""What a client does with payment intents: `client.intents`.

An intent is a payment in two steps: it is created with an amount, and confirmed with its secret.
The server must have these routes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from tallystick.calls import Call, query_of
from tallystick.exchange import new_key, part

_ROOT = "/api/v1/payment-intents"


class PaymentIntent(TypedDict):
    """An intent. `amount` is dollars; `client_secret` is what confirms it; times are ISO 8601."""

    id: str
    client_secret: NotRequired[str]
    amount: int | float
    currency: str
    description: NotRequired[str | None]
    status: str
    capture_method: Literal["automatic", "manual"]
    agent_id: NotRequired[str | None]
    payment_id: NotRequired[str | None]
    created_at: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class Intents:
    """The intents of a workspace. Every method may raise `ApiError`."""

    ask: Callable[[Call[Any]], Any]

    def create(
        self,
        amount: str | int,
        *,
        currency: str = "USD",
        description: str | None = None,
        capture_method: str = "automatic",
        agent_id: str | None = None,
        expires_in_seconds: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> PaymentIntent:
        """An intent over an amount in dollars; with `manual` it is captured after it is confirmed.

        It lives a day unless told otherwise.
        """
        given = {
            "amount": amount,
            "currency": currency,
            "description": description,
            "capture_method": capture_method,
            "agent_id": agent_id,
            "expires_in_seconds": expires_in_seconds,
            "metadata": metadata,
        }
        return self._changed(_ROOT, _without_none(given), idempotency_key)

    def list(
        self, *, status: str | None = None, limit: int = 20, offset: int = 0
    ) -> list[PaymentIntent]:
        """Intents, the newest first, in one `status` or every."""
        asked = query_of(status=status, limit=limit, offset=offset)
        found: list[PaymentIntent] = self.ask(Call("GET", _ROOT + asked, kind=list))
        return found

    def get(self, intent_id: str) -> PaymentIntent:
        """One intent."""
        found: PaymentIntent = self.ask(Call("GET", _path(intent_id)))
        return found

    def confirm(
        self,
        intent_id: str,
        client_secret: str,
        customer_wallet: str,
        *,
        session_token: str | None = None,
        idempotency_key: str | None = None,
    ) -> PaymentIntent:
        """Pay it, by the session whose token is given, within its limits."""
        body = {
            "client_secret": client_secret,
            "customer_wallet": customer_wallet,
            "session_token": session_token,
        }
        path = _path(intent_id, "confirm")
        return self._changed(path, _without_none(body), idempotency_key)

    def capture(self, intent_id: str, amount: str | int | None = None) -> PaymentIntent:
        """Spend what a confirmed intent holds, or part of it."""
        body = None if amount is None else {"amount": amount}
        return self._changed(_path(intent_id, "capture"), body, None)

    def cancel(self, intent_id: str) -> PaymentIntent:
        """Give it up."""
        return self._changed(_path(intent_id, "cancel"), None, None)

    def _changed(self, path: str, body: Mapping[str, Any] | None, key: str | None) -> PaymentIntent:
        key = new_key() if key is None else key
        found: PaymentIntent = self.ask(Call("POST", path, body, key=key, once=True))
        return found


def _path(intent_id: str, what: str | None = None) -> str:
    path = f"{_ROOT}/{part(intent_id)}"
    return path if what is None else f"{path}/{what}"


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
