"""The options with which a command reaches a server."""

from typing import Annotated

import httpx
import typer

from engine.errors import InvalidInput
from tallystick.client import DEFAULT_URL, Client

Url = Annotated[str, typer.Option("--url", envvar="TALLYSTICK_URL", help="The server.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="TALLYSTICK_API_KEY", help="An operator key.", show_envvar=True
    ),
]
SessionToken = Annotated[
    str | None,
    typer.Option("--session-token", envvar="TALLYSTICK_SESSION_TOKEN", help="A session's token."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]

__all__ = ["DEFAULT_URL", "ApiKey", "AsJson", "SessionToken", "Url", "connect"]


def connect(url: str, api_key: str | None = None, session_token: str | None = None) -> Client:
    """Open a client.

    Raises:
        InvalidInput: `url` is not a URL.
    """
    try:
        return Client(url, api_key=api_key, session_token=session_token)
    except (ValueError, httpx.InvalidURL) as error:
        raise InvalidInput("--url", f"{url!r} is not a URL: {error}") from error
