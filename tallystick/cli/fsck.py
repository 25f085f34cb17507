"""`tallystick fsck`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tallystick.cli.connection import AsJson
from tallystick.cli.output import USAGE_EXIT_CODE, console, failed, print_json

if TYPE_CHECKING:
    from engine.fsck.check import Chain, Report

FOUND_EXIT_CODE = 1
UNREADABLE_EXIT_CODE = 4


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(fsck)


def fsck(
    data_dir: Annotated[Path | None, typer.Option(help="Overrides TALLYSTICK_DATA_DIR.")] = None,
    rpc: Annotated[
        str | None, typer.Option(help="URL of a JSON-RPC endpoint: compare with the chain, too.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(help="Address of the SessionRegistry; with --rpc.")
    ] = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Open the sealed keys, too, as the server would.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recompute everything that is stored from its raw records.

    Reads the data directory, or the database that TALLYSTICK_DATABASE names, beside a running
    server; writes nothing, and needs no key but for --keys. docs/fsck.md lists what nothing checks.

    Exit status: 0 clean, 1 something was found, 2 wrong usage, 4 cannot be read.
    """
    from engine.errors import CannotStart
    from engine.fsck.check import check
    from engine.fsck.keys import given_vault
    from engine.fsck.snapshot import CannotRead
    from engine.settings import load_settings

    try:
        settings = load_settings()
    except CannotStart as error:
        raise typer.Exit(failed(error.code, error.message, USAGE_EXIT_CODE)) from error
    directory = data_dir or settings.data_dir
    store: Path | str = directory / "ledger.sqlite3"
    if settings.database is not None and data_dir is None:
        store = settings.database.get_secret_value()
    vault = given_vault(directory, settings.kek) if keys else None
    chain = _chain(rpc, registry)
    try:
        report = check(store, chain=chain, open_vault=vault)
    except CannotRead as error:
        raise typer.Exit(failed(error.code, error.message, UNREADABLE_EXIT_CODE)) from error
    finally:
        if chain is not None:
            chain.gateway.close()
    if as_json:
        print_json(_summary(report))
    else:
        _print(report, str(store.resolve()) if isinstance(store, Path) else "TALLYSTICK_DATABASE")
    raise typer.Exit(0 if report.clean else FOUND_EXIT_CODE)


def _chain(rpc: str | None, registry: str | None) -> "Chain | None":
    from engine.chain.gateway import ChainError
    from engine.chain.json_rpc import JsonRpcChain
    from engine.errors import InvalidInput
    from engine.fsck.check import Chain
    from engine.policy.identifiers import IdentifierError, normalise_asset

    if rpc is None and registry is None:
        return None
    if rpc is None or registry is None:
        missing = "--rpc" if rpc is None else "--registry"
        raise InvalidInput(missing, "is missing: --rpc and --registry go together")
    try:
        address = normalise_asset(f"eip155:1/erc20:{registry}").rpartition(":")[2]
    except IdentifierError as error:
        raise InvalidInput("--registry", f"{registry!r} is not an address") from error
    try:
        return Chain(JsonRpcChain(rpc), address)
    except ChainError as error:
        raise InvalidInput("--rpc", error.message) from error


def _summary(report: "Report") -> dict[str, Any]:
    from engine.fsck.unchecked import NOTHING_CHECKS, ONLY_THE_CHAIN_CHECKS

    alone = report.anchors is None
    unchecked = {*NOTHING_CHECKS, *(ONLY_THE_CHAIN_CHECKS if alone else ())}
    return {
        "clean": report.clean,
        "records": report.records,
        "log_size": report.size,
        "anchors_on_chain": report.anchors,
        "findings": [finding.to_json() for finding in report.findings],
        "findings_not_listed": report.more,
        "not_checked": sorted(unchecked),
    }


def _print(report: "Report", where: str) -> None:
    for finding in report.findings:
        place = " ".join(part for part in (finding.table, finding.row, finding.column) if part)
        console.print(f"[bold red]{escape(place)}[/]: {escape(finding.says)}", soft_wrap=True)
        if finding.found or finding.expected:
            values = f"found {finding.found or '(nothing)'}, expected {finding.expected or '—'}"
            console.print(f"    {escape(values)}", soft_wrap=True)
    if report.more:
        console.print(f"… and {report.more} more", soft_wrap=True)
    chain = "" if report.anchors is None else f", {report.anchors} anchors on the chain"
    about = f"{report.records} records, {report.size} in the log{chain}"
    where = escape(where)
    if report.clean:
        console.print(f"[green]✓[/] {about}: nothing found in {where}", soft_wrap=True)
    else:
        count = len(report.findings) + report.more
        console.print(f"\n[bold red]{count} found[/] in {about}, in {where}", soft_wrap=True)
