"""What a client does with payment intents: `client.intents`.

An intent is a payment in two steps: it is created with an amount, and confirmed with its secret by
a session, which pays.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tallystick.calls import Call, query_of
from tallystick.defaults import PAGE_MAX
from tallystick.exchange import given_or_new, part

if TYPE_CHECKING:
    from tallystick.answers import CreatedIntent, IntentAnswer, IntentEventAnswer

_ROOT = "/api/v1/payment-intents"


@dataclass(frozen=True, slots=True)
class Intents:
    """The intents of a workspace. Every method may raise `ApiError`."""

    ask: Callable[[Call[Any]], Any]

    def create(
        self,
        amount: str | float,
        *,
        merchant: str | None = None,
        token: str | None = None,
        description: str | None = None,
        capture_method: str = "automatic",
        agent_id: str | None = None,
        expires_in_seconds: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> "CreatedIntent":
        """An intent over an amount in dollars; with `manual` it is captured after it is confirmed.

        The answer holds its `client_secret`, once. It can be confirmed for a day unless told
        otherwise; by sessions of `agent_id` alone, if that is named.
        """
        given = {
            "amount": amount,
            "merchant_id": merchant,
            "token": token,
            "description": description,
            "capture_method": capture_method,
            "agent_id": agent_id,
            "expires_in_seconds": expires_in_seconds,
            "metadata": metadata,
        }
        body = {name: value for name, value in given.items() if value is not None}
        made: CreatedIntent = self.ask(Call("POST", _ROOT, body, key=given_or_new(idempotency_key)))
        return made

    def events(self, intent_id: str) -> "list[IntentEventAnswer]":
        """What was told of it, the first thing first."""
        found: list[IntentEventAnswer] = self.ask(
            Call("GET", _path(intent_id, "events"), kind=list)
        )
        return found

    def list(
        self,
        *,
        status: str | None = None,
        limit: int = 20,
        offset: int = 0,
        starting_after: str | None = None,
    ) -> "list[IntentAnswer]":
        """At most 100 intents, the newest first, in one `status` or every; those that are older
        than `starting_after`."""
        asked = query_of(status=status, limit=limit, offset=offset, starting_after=starting_after)
        found: list[IntentAnswer] = self.ask(Call("GET", _ROOT + asked, kind=list))
        return found

    def each(self, *, status: str | None = None) -> "Iterator[IntentAnswer]":
        """All intents that match, the newest first; each once."""
        last: str | None = None
        while found := self.list(status=status, limit=PAGE_MAX, starting_after=last):
            yield from found
            if len(found) < PAGE_MAX:
                return
            last = found[-1]["id"]

    def get(self, intent_id: str) -> "IntentAnswer":
        """One intent."""
        found: IntentAnswer = self.ask(Call("GET", _path(intent_id)))
        return found

    def confirm(
        self,
        intent_id: str,
        client_secret: str,
        customer_wallet: str = "",
        *,
        session_token: str | None = None,
    ) -> "IntentAnswer":
        """Have the session pay whose token this is, or the client's own; again is a replay.

        `customer_wallet` is kept and shown.
        """
        body = {"client_secret": client_secret, "customer_wallet": customer_wallet}
        if session_token is not None:
            body["session_token"] = session_token
        return self._changed(_path(intent_id, "confirm"), body)

    def capture(self, intent_id: str, amount: str | float | None = None) -> "IntentAnswer":
        """Spend what a confirmed intent holds, or part of it; the same again changes nothing."""
        body = None if amount is None else {"amount": amount}
        return self._changed(_path(intent_id, "capture"), body)

    def cancel(self, intent_id: str) -> "IntentAnswer":
        """Give it up while nobody has confirmed it; again changes nothing."""
        return self._changed(_path(intent_id, "cancel"))

    def _changed(self, path: str, body: Mapping[str, Any] | None = None) -> "IntentAnswer":
        found: IntentAnswer = self.ask(Call("POST", path, body))
        return found


def _path(intent_id: str, what: str | None = None) -> str:
    path = f"{_ROOT}/{part(intent_id)}"
    return path if what is None else f"{path}/{what}"
