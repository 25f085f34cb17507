"""`tallystick anchor`, `evidence` and `verify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, Url, as_operator
from tallystick.cli.output import console, print_json

if TYPE_CHECKING:
    from engine.audit.verify import Report


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(anchor)
    app.command()(evidence)
    app.command()(verify)


def anchor(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Sign a checkpoint of the log and anchor it on the chain."""
    with as_operator(url, api_key) as client:
        answer = client.anchor()
    found = answer["anchor"]
    if as_json or found is None:
        print_json(answer)
    else:
        console.print(
            f"{found['state']}: size {found['size']}, root {found['root']}, tx {found['tx_hash']}",
            soft_wrap=True,
        )


def evidence(
    session_id: Annotated[str, typer.Argument(help="The session's id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the file.")] = Path(
        "evidence.json"
    ),
    withhold: Annotated[
        str | None,
        typer.Option(
            help="What not to show, with commas between: label, merchant, user_wallet. "
            "All else can still be verified."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Write the evidence file of a session."""
    from engine.audit.disclosure import WITHHOLDABLE
    from engine.errors import InvalidInput

    withheld = [] if withhold is None else [name.strip() for name in withhold.split(",")]
    for name in withheld:
        if name not in WITHHOLDABLE:
            raise InvalidInput("--withhold", f"{name!r} is none of: {', '.join(WITHHOLDABLE)}")
    with as_operator(url, api_key) as client:
        file = client.evidence(session_id, withhold=withheld)
    try:
        output.write_bytes(file)
    except OSError as error:
        raise InvalidInput("--output", f"{output}: {error.strerror}") from error
    console.print(f"{output}: {len(file)} bytes", soft_wrap=True)


def verify(
    file: Annotated[Path, typer.Argument(help="An evidence file.")],
    rpc: Annotated[str, typer.Option(help="URL of a JSON-RPC endpoint of the chain.")],
    registry: Annotated[str, typer.Option(help="Address of the SessionRegistry.")],
    as_json: AsJson = False,
) -> None:
    """Verify evidence against the chain, and nothing else.

    Exit status: 0 verified, 1 tampered, 3 pending, 4 unavailable, 5 unbindable.
    """
    from engine.audit.verify import summary
    from engine.audit.verify import verify as check
    from engine.chain.gateway import ChainError
    from engine.chain.json_rpc import JsonRpcChain
    from engine.errors import InvalidInput
    from engine.evidence.chain_view import GatewayView
    from engine.policy.identifiers import IdentifierError, normalise_asset

    try:
        address = normalise_asset(f"eip155:1/erc20:{registry}").rpartition(":")[2]
        content = file.read_bytes()
    except IdentifierError as error:
        raise InvalidInput("--registry", f"{registry!r} is not an address") from error
    except OSError as error:
        raise InvalidInput("FILE", f"{file}: {error.strerror}") from error
    try:
        gateway = JsonRpcChain(rpc)
    except ChainError as error:
        raise InvalidInput("--rpc", error.message) from error
    try:
        report = check(content, GatewayView(gateway), registry=address)
    finally:
        gateway.close()
    if as_json:
        print_json(summary(report))
    else:
        _print(report)
    raise typer.Exit(report.verdict.value)


def _print(report: "Report") -> None:
    from engine.audit.verify import Verdict

    colours = {
        Verdict.VERIFIED: "green",
        Verdict.TAMPERED: "red",
        Verdict.PENDING: "yellow",
        Verdict.UNAVAILABLE: "yellow",
        Verdict.UNBINDABLE: "magenta",
    }
    for check in report.checks:
        colour = colours[check.verdict] if check.made else "dim"
        mark = "✓" if check.verdict is Verdict.VERIFIED else check.state.replace("_", " ")
        console.print(
            f"{check.number:>3}  {check.name:<13} [{colour}]{mark}[/] {escape(check.reason)}",
            soft_wrap=True,
        )
    verdict = report.verdict
    reason = "" if verdict is Verdict.VERIFIED else f": {report.reason}"
    console.print(f"\n[bold {colours[verdict]}]{verdict.name}[/]{escape(reason)}", soft_wrap=True)
