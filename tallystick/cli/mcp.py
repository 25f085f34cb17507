"""`tallystick mcp`: a session's tools for an agent on this machine (Model Context Protocol)."""

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from tallystick.cli.connection import DEFAULT_URL, SessionToken, Url, as_session

if TYPE_CHECKING:
    from tallystick.mcp.verifying import Verifier


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(mcp)


def mcp(
    rpc: Annotated[
        list[str] | None,
        typer.Option(
            help="URL of a JSON-RPC endpoint that verify_evidence believes; several must agree."
        ),
    ] = None,
    registry: Annotated[
        str | None, typer.Option(help="Address of the SessionRegistry that it believes.")
    ] = None,
    url: Url = DEFAULT_URL,
    session_token: SessionToken = None,
) -> None:
    """Serve a session's tools to an agent (MCP on stdio).

    An MCP client starts this; it ends when its input does.
    """
    as_session(url, session_token).close()  # whose complaints are those of every command
    assert session_token, "as_session refuses none"
    verifier = _verifier(rpc or [], registry)

    # The thread that reads the input cannot be interrupted otherwise; there is nothing to clean up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    import anyio

    from tallystick.mcp.stdio import serve

    anyio.run(serve, url, session_token, verifier)


def _verifier(rpc: list[str], registry: str | None) -> "Verifier | None":
    from engine.errors import InvalidInput

    if not rpc and registry is None:
        return None
    if registry is None:
        raise InvalidInput("--registry", "is missing beside --rpc")
    if not rpc:
        raise InvalidInput("--rpc", "is missing beside --registry")

    import contextlib
    from collections.abc import Mapping
    from typing import Any

    from tallystick.cli.audit import read_address, view_of

    address = read_address("--registry", registry)
    with contextlib.ExitStack() as opened:  # so that a URL that is none is told at once
        view_of("--rpc", rpc, opened)

    def verified(content: bytes) -> Mapping[str, Any]:
        from engine.audit.evidence import NOT_PROVEN
        from engine.audit.verify import summary, verify

        with contextlib.ExitStack() as opened:
            chain = view_of("--rpc", rpc, opened)
            said = summary(verify(content, chain, registry=address))
        return {**said, "registry": address, "not_proven": list(NOT_PROVEN)}

    return verified
