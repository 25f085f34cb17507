"""Other names of routes, as clients of the agent-session API call them.

Its SDK, its documentation and its command line do not agree on paths, and take the base URL with
`/api/v1` or without. Each name here is that of a route that has a path of its own, and nothing is
done on the way: no redirect, so that a body and an idempotency key are sent once.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

ALIASES = (
    ("/api/v1/api/v1", "/api/v1"),
    ("/ai", "/api/v1/ai"),
    ("/agent-keys", "/api/v1/agent-keys"),
    ("/api/v1/ai/agent-keys", "/api/v1/agent-keys"),
    ("/analytics", "/api/v1/analytics"),
    ("/payments", "/api/v1/payments"),
    ("/webhooks", "/api/v1/webhooks"),
    ("/merchants", "/api/v1/merchants"),
    ("/api/v1/ai/analytics", "/api/v1/analytics"),
    ("/payment-intents", "/api/v1/payment-intents"),
    ("/api/v1/ai/intents", "/api/v1/payment-intents"),
    ("/api/v1/merchants/me/api-keys", "/api/v1/api-keys"),
)
"""The beginning of a path, and what it stands for; one after the other."""


def real_path(path: str) -> str:
    """The path of a route that a path is another name of; any other path as it is."""
    for alias, real in ALIASES:
        if path == alias or path.startswith(alias + "/"):
            path = real + path[len(alias) :]
    return path


class Aliases:
    """Has the application answer under every name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            scope["path"] = real_path(scope["path"])
        await self._app(scope, receive, send)
