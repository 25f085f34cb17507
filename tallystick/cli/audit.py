"""`tallystick anchor`, `evidence` and `verify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, Url, as_operator
from tallystick.cli.output import console, print_json

if TYPE_CHECKING:
    from contextlib import ExitStack

    from engine.audit.chain import ChainView
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
            "All else can still be verified. The grant is always shown, and its owner with it: "
            "where the wallet is an EVM address, that is the same address."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
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
    if as_json:
        print_json({"file": str(output), "bytes": len(file)})
    else:
        console.print(f"{output}: {len(file)} bytes", markup=False, soft_wrap=True)


def verify(
    file: Annotated[Path, typer.Argument(help="An evidence file.")],
    rpc: Annotated[
        list[str],
        typer.Option(help="URL of a JSON-RPC endpoint of the chain; several must agree."),
    ],
    registry: Annotated[str, typer.Option(help="Address of the SessionRegistry.")],
    anchors: Annotated[
        str | None,
        typer.Option(help="Address of the AnchorRegistry that the SessionRegistry must name."),
    ] = None,
    chain_id: Annotated[
        int | None, typer.Option(help="The chain's id (EIP-155), which every endpoint must serve.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHAIN=URL",
            help="A further chain on which the session may have paid, as eip155:8453=URL; several "
            "URLs of one chain must agree.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Where to write a report for people, as HTML.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify evidence against the chain, and nothing else.

    Exit status: 0 verified, 1 tampered, 3 pending, 4 unavailable, 5 unbindable.
    """
    from contextlib import ExitStack

    from engine.audit.statement import statement
    from engine.audit.verify import examine
    from engine.errors import InvalidInput
    from engine.evidence.stored_file import open_file

    ours = read_address("--registry", registry)
    theirs = None if anchors is None else read_address("--anchors", anchors)
    with ExitStack() as opened:
        try:
            content = opened.enter_context(open_file(file))
        except OSError as error:
            raise InvalidInput("FILE", f"{file}: {error.strerror}") from error
        chain = view_of("--rpc", rpc, opened)
        others = {
            name: view_of("--network", urls, opened)
            for name, urls in read_networks(network or []).items()
        }
        found = examine(
            content, chain, registry=ours, anchors=theirs, chain_id=chain_id, networks=others
        )
        report = found.report
        said = statement(found) if html is not None or as_json else {}
    if html is not None:
        _write_html(html, said, file.name)
    if as_json:
        print_json(said)
    else:
        _print(report)
    raise typer.Exit(report.verdict.value)


def read_address(option: str, value: str) -> str:
    from engine.errors import InvalidInput
    from engine.policy.identifiers import IdentifierError, normalise_asset

    try:
        return normalise_asset(f"eip155:1/erc20:{value}").rpartition(":")[2]
    except IdentifierError as error:
        raise InvalidInput(option, f"{value!r} is not an address") from error


def read_networks(options: list[str]) -> dict[str, list[str]]:
    """The endpoints of each further chain, by its CAIP-2 id."""
    from engine.errors import InvalidInput
    from engine.policy.identifiers import IdentifierError, normalise_chain

    found: dict[str, list[str]] = {}
    for option in options:
        name, _, url = option.partition("=")
        try:
            chain = normalise_chain(name)
        except IdentifierError as error:
            raise InvalidInput("--network", f"{name!r} is not a chain: {error}") from error
        found.setdefault(chain, []).append(url)
    return found


def view_of(option: str, urls: list[str], opened: "ExitStack") -> "ChainView":
    """The view of one endpoint, or what several agree on; they are closed with `opened`."""
    from engine.chain.gateway import ChainError
    from engine.chain.json_rpc import JsonRpcChain
    from engine.errors import InvalidInput
    from engine.evidence.agreeing import AgreeingView
    from engine.evidence.chain_view import GatewayView

    views = []
    for number, url in enumerate(urls, 1):
        try:
            gateway = JsonRpcChain(url)
        except ChainError as error:
            raise InvalidInput(option, error.message) from error
        opened.callback(gateway.close)
        # Two can be of one host, with another path or key each, which is not to be shown.
        name = gateway.name if len(urls) == 1 else f"endpoint {number} ({gateway.name})"
        views.append(GatewayView(gateway, name=name))
    return views[0] if len(views) == 1 else AgreeingView(views)


def _write_html(path: Path, said: dict[str, Any], name: str) -> None:
    from engine.errors import InvalidInput
    from engine.evidence.html_report import render

    try:
        path.write_text(render(said, name), encoding="utf-8")
    except OSError as error:
        raise InvalidInput("--html", f"{path}: {error.strerror}") from error


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
        rest = check.reason.removeprefix(mark)  # some reasons begin with it
        between = " " if rest == check.reason else ""
        console.print(
            f"{check.number:>3}  {check.name:<13} [{colour}]{mark}[/]{between}{escape(rest)}",
            soft_wrap=True,
        )
    verdict = report.verdict
    reason = "" if verdict is Verdict.VERIFIED else f": {report.reason}"
    console.print(f"\n[bold {colours[verdict]}]{verdict.name}[/]{escape(reason)}", soft_wrap=True)
