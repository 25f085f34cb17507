"""`tallystick facilitator`."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tallystick.cli.output import console
from tallystick.cli.server import log_as_json
from tallystick.cli.signals import leave

if TYPE_CHECKING:
    from collections.abc import Sequence


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(facilitator)


def facilitator(
    token: Annotated[
        list[str] | None,
        typer.Option(help="CAIP-19 id of a token to pay gas for; may be repeated."),
    ] = None,
    rpc: Annotated[
        list[str] | None,
        typer.Option(
            help="URL of a JSON-RPC endpoint, or several of one chain with spaces between; may be "
            "repeated, once for each chain. "
            "Default: TALLYSTICK_CHAIN."
        ),
    ] = None,
    pay_to: Annotated[
        list[str] | None,
        typer.Option(help="Address to pay gas for; may be repeated. Default: any."),
    ] = None,
    confirmations: Annotated[
        int | None,
        typer.Option(
            help="Blocks on top before success is told. Default: TALLYSTICK_CONFIRMATIONS, 0."
        ),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Overrides TALLYSTICK_DATA_DIR.")] = None,
    port: Annotated[int | None, typer.Option(help="Overrides TALLYSTICK_PORT.")] = None,
) -> None:
    """Run an x402 facilitator, which settles each payment once.

    The account of TALLYSTICK_FACILITATOR_KEY pays the gas; nothing else may send from it.
    """
    from api.facilitator.app import create_facilitator_app
    from api.server import AppServer
    from engine.deployment import operator_account
    from engine.errors import CannotStart
    from engine.payments.opening import standalone_facilitator
    from engine.payments.served import Served
    from engine.settings import load_settings

    overrides = {"data_dir": data_dir, "port": port, "confirmations": confirmations}
    settings = load_settings(**{k: v for k, v in overrides.items() if v is not None})
    served = Served(tokens=_tokens(token or ()), payees=_payees(pay_to))
    if settings.facilitator_key is None:
        raise CannotStart("TALLYSTICK_FACILITATOR_KEY is not set: its account pays the gas")
    urls = rpc or ([] if settings.chain == "embedded" else [settings.chain])
    if not urls:
        raise CannotStart(
            "--rpc is not given: `tallystick serve` has a facilitator for the embedded chain, "
            "this one serves others"
        )
    account = operator_account(settings.facilitator_key)
    signal.signal(signal.SIGTERM, leave)
    os.umask(0o077)
    log_as_json()
    try:
        with standalone_facilitator(
            settings.data_dir, account, urls, served, confirmations=settings.confirmations
        ) as opened:
            server = AppServer(create_facilitator_app(opened), settings.host, settings.port)
            networks = ", ".join(opened.networks)
            console.print(f"[bold]x402[/]      {server.url}  (OpenAPI at {server.url}/docs)")
            console.print(f"[bold]networks[/]  {networks}")
            console.print(f"[bold]gas[/]       paid by {account.address}")
            sys.stdout.flush()
            server.run()
    except KeyboardInterrupt:
        pass


def _tokens(given: "Sequence[str]") -> frozenset[str]:
    from engine.errors import InvalidInput
    from engine.policy.identifiers import IdentifierError, normalise_asset

    if not given:
        raise InvalidInput("--token", "give one or more: nobody's gas is paid for any other")
    try:
        return frozenset(normalise_asset(token) for token in given)
    except IdentifierError as error:
        raise InvalidInput("--token", str(error)) from error


def _payees(given: "Sequence[str] | None") -> frozenset[str] | None:
    from engine.errors import InvalidInput
    from engine.policy.identifiers import IdentifierError, normalise_asset

    try:
        assets = [normalise_asset(f"eip155:1/erc20:{payee}") for payee in given or ()]
    except IdentifierError as error:
        raise InvalidInput("--pay-to", "takes an address: 0x and 40 hex digits") from error
    return frozenset(asset.rpartition(":")[2] for asset in assets) or None
