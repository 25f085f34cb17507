"""The options with which a command reaches a server, and as whom."""

from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import InvalidInput, Unauthenticated
from tallystick.defaults import DEFAULT_URL

if TYPE_CHECKING:  # commands that ask no server start without an HTTP client
    from tallystick.cli.asking import Asking


def _gives_way(context: typer.Context, key: str | None) -> str | None:
    """The key, unless it is the environment's and a token is on the command line.

    What is written there was looked at first, in whatever order the options are declared.
    """
    named = (context.get_parameter_source(name) for name in ("api_key", "session_token"))
    sources = [None if source is None else source.name for source in named]
    return None if sources == ["ENVIRONMENT", "COMMANDLINE"] else key


Url = Annotated[str, typer.Option("--url", envvar="TALLYSTICK_URL", help="The server.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="TALLYSTICK_API_KEY", callback=_gives_way, help="An operator key."
    ),
]
SessionToken = Annotated[
    str | None,
    typer.Option("--session-token", envvar="TALLYSTICK_SESSION_TOKEN", help="A session's token."),
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="An idempotency key: with the same one it is done once."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]

__all__ = [
    "DEFAULT_URL",
    "ApiKey",
    "AsJson",
    "Key",
    "SessionToken",
    "Url",
    "as_operator",
    "as_party",
    "as_session",
]


def as_operator(url: str, api_key: str | None) -> "Asking":
    """Open a client that has an operator's key.

    Raises:
        InvalidInput: `url` is not a URL.
        Unauthenticated: there is no key.
    """
    if not api_key:
        raise Unauthenticated("no API key: set TALLYSTICK_API_KEY or pass --api-key")
    return _open(url, api_key=api_key)


def as_session(url: str, session_token: str | None) -> "Asking":
    """Open a client that has a session's token.

    Raises:
        InvalidInput: `url` is not a URL.
        Unauthenticated: there is no token.
    """
    if not session_token:
        raise Unauthenticated(
            "no session token: set TALLYSTICK_SESSION_TOKEN or pass --session-token",
            code="invalid_session_token",
        )
    return _open(url, session_token=session_token)


def as_party(url: str, api_key: str | None, session_token: str | None) -> "Asking":
    """Open a client of an operator or, without a key, of a session.

    Raises:
        InvalidInput: `url` is not a URL.
        Unauthenticated: there is neither.
    """
    if session_token is not None and not api_key:
        return as_session(url, session_token)
    return as_operator(url, api_key)


def _open(url: str, *, api_key: str | None = None, session_token: str | None = None) -> "Asking":
    import httpx

    from tallystick.cli.asking import Asking

    if not url.lower().startswith(("http://", "https://")):
        raise InvalidInput("--url", f"http:// or https:// is missing in front of {url!r}")
    try:
        return Asking(url, api_key=api_key, session_token=session_token)
    except (ValueError, httpx.InvalidURL) as error:
        raise InvalidInput("--url", f"{url!r} is not a URL: {error}") from error
