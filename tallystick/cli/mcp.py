"""`tallystick mcp`: a session's tools for an agent on this machine (Model Context Protocol)."""

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from tallystick.cli.connection import DEFAULT_URL, SessionToken, Url, as_session
from tallystick.cli.server import log_as_json

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
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHAIN=URL",
            help="A further chain that it looks at, as eip155:8453=URL; several URLs of one chain "
            "must agree.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    session_token: SessionToken = None,
) -> None:
    """Serve a session's tools to an agent (MCP on stdio).

    An MCP client starts this; it ends when its input does.
    """
    as_session(url, session_token).close()  # whose complaints are those of every command
    assert session_token, "as_session refuses none"
    verifier = _verifier(rpc or [], registry, network or [])
    log_as_json()  # clients keep what is said on standard error: no values of variables are in it

    # The thread that reads the input cannot be interrupted otherwise; there is nothing to clean up.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_DFL)

    import anyio

    from tallystick.mcp.stdio import serve

    anyio.run(serve, url, session_token, verifier)


def _verifier(rpc: list[str], registry: str | None, network: list[str]) -> "Verifier | None":
    from engine.errors import InvalidInput

    if not rpc and registry is None and not network:
        return None
    if registry is None:
        raise InvalidInput("--registry", "is missing beside --rpc or --network")
    if not rpc:
        raise InvalidInput("--rpc", "is missing beside --registry or --network")

    import contextlib
    from collections.abc import Mapping
    from typing import Any

    from engine.audit.chain import ChainView
    from engine.audit.pieces import Source
    from tallystick.cli.audit import read_address, read_networks, view_of

    address, urls = read_address("--registry", registry), read_networks(network)

    def views(opened: contextlib.ExitStack) -> tuple[ChainView, dict[str, ChainView]]:
        others = {name: view_of("--network", each, opened) for name, each in urls.items()}
        return view_of("--rpc", rpc, opened), others

    with contextlib.ExitStack() as opened:  # so that a URL that is none is told at once
        views(opened)

    def verified(content: Source) -> Mapping[str, Any]:
        from engine.audit.evidence import NOT_PROVEN
        from engine.audit.verify import summary, verify

        with contextlib.ExitStack() as opened:
            chain, others = views(opened)
            said = summary(verify(content, chain, registry=address, networks=others))
        return {**said, "registry": address, "not_proven": list(NOT_PROVEN)}

    return verified
