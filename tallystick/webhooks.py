"""What an operator's client does with webhooks: `client.webhooks`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tallystick.exchange import part, read_json

if TYPE_CHECKING:
    import httpx

_ROOT = "/api/v1/webhooks"


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The webhooks of a workspace. Every method may raise `ApiError`."""

    call: "Callable[..., httpx.Response]"

    def create(
        self, url: str, events: Sequence[str] = ("*",), *, description: str | None = None
    ) -> dict[str, Any]:
        """Have events sent to a URL; the answer holds the `secret` that signs them, once."""
        body = {"url": url, "events": list(events), "description": description}
        return self._object("POST", _ROOT, body)

    def list(self) -> list[dict[str, Any]]:
        """All webhooks of the workspace."""
        found: list[dict[str, Any]] = read_json(self.call("GET", _ROOT), list)
        return found

    def change(self, webhook_id: str, **fields: Any) -> dict[str, Any]:
        """Change `url`, `events`, `description` or `active`."""
        return self._object("PATCH", _path(webhook_id), fields)

    def delete(self, webhook_id: str) -> None:
        """Have nothing sent there any more."""
        self.call("DELETE", _path(webhook_id))

    def rotate_secret(self, webhook_id: str) -> dict[str, Any]:
        """Get another `secret`; the one before it signs too until `previous_valid_until`."""
        return self._object("POST", _path(webhook_id) + "/rotate-secret")

    def test(self, webhook_id: str, event: str) -> dict[str, Any]:
        """Have a made-up event sent now; look at `success`."""
        return self._object("POST", _path(webhook_id) + "/test", {"event": event})

    def logs(self, webhook_id: str, *, page: int = 1, limit: int = 20) -> dict[str, Any]:
        """A page of at most 100 attempts, the newest first."""
        return self._object("GET", f"{_path(webhook_id)}/logs?page={page}&limit={limit}")

    def replay(self, webhook_id: str, since: str) -> None:
        """Have everything delivered once more that happened since then (ISO 8601, in UTC)."""
        self._object("POST", _path(webhook_id) + "/replay", {"since": since})

    def _object(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.call(method, path, body), dict)
        return found


def _path(webhook_id: str) -> str:
    return f"{_ROOT}/{part(webhook_id)}"
