"""What an operator's client does with webhooks: `client.webhooks`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from tallystick.calls import Call, query_of
from tallystick.exchange import given_or_new, part
from tallystick.fields import WebhookFields

if TYPE_CHECKING:
    from tallystick.answers import (
        AttemptsPage,
        CreatedWebhook,
        RotatedWebhook,
        TriedWebhook,
        WebhookAnswer,
    )

_ROOT = "/api/v1/webhooks"


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The webhooks of a workspace. Every method may raise `ApiError`."""

    ask: Callable[[Call[Any]], Any]

    def create(
        self,
        url: str,
        events: Sequence[str] = ("*",),
        *,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> "CreatedWebhook":
        """Have events sent to a URL; the answer holds the `secret` that signs them, once."""
        body = {"url": url, "events": list(events), "description": description}
        key = given_or_new(idempotency_key)
        made: CreatedWebhook = self.ask(Call("POST", _ROOT, body, key=key))
        return made

    def list(self) -> "list[WebhookAnswer]":
        """All webhooks of the workspace."""
        found: list[WebhookAnswer] = self.ask(Call("GET", _ROOT, kind=list))
        return found

    def change(self, webhook_id: str, **fields: Unpack[WebhookFields]) -> "WebhookAnswer":
        """Change what is given; one that is active again goes on where it stopped."""
        changed: WebhookAnswer = self.ask(Call("PATCH", _path(webhook_id), fields))
        return changed

    def delete(self, webhook_id: str) -> None:
        """Have nothing sent there any more."""
        self.ask(Call("DELETE", _path(webhook_id), once=True))

    def rotate_secret(
        self, webhook_id: str, *, idempotency_key: str | None = None
    ) -> "RotatedWebhook":
        """Get another `secret`; the one before it signs too until `previous_valid_until`."""
        path = _path(webhook_id) + "/rotate-secret"
        key = given_or_new(idempotency_key)
        rotated: RotatedWebhook = self.ask(Call("POST", path, key=key))
        return rotated

    def test(self, webhook_id: str, event: str) -> "TriedWebhook":
        """Have a made-up event sent now; look at `success`."""
        path = _path(webhook_id) + "/test"
        tried: TriedWebhook = self.ask(Call("POST", path, {"event": event}, once=True))
        return tried

    def logs(self, webhook_id: str, *, page: int = 1, limit: int = 20) -> "AttemptsPage":
        """A page of at most 100 attempts, the newest first."""
        path = f"{_path(webhook_id)}/logs" + query_of(page=page, limit=limit)
        found: AttemptsPage = self.ask(Call("GET", path))
        return found

    def replay(self, webhook_id: str, since: str) -> None:
        """Have everything delivered once more that happened since then (ISO 8601, in UTC)."""
        self.ask(Call("POST", _path(webhook_id) + "/replay", {"since": since}, once=True))


def _path(webhook_id: str) -> str:
    return f"{_ROOT}/{part(webhook_id)}"
