"""`tallystick serve`, `chain` and `deploy`."""

import gc
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tallystick.cli.connection import AsJson
from tallystick.cli.output import console, print_json, print_line
from tallystick.cli.signals import leave

if TYPE_CHECKING:
    from engine.chain.embedded_rpc import EmbeddedRpc
    from engine.engine import Engine
    from engine.settings import Settings

DEFAULT_ANVIL_TOML = Path("anvil.toml")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(chain)
    app.command()(deploy)


def serve(
    data_dir: Annotated[Path | None, typer.Option(help="Overrides TALLYSTICK_DATA_DIR.")] = None,
    port: Annotated[int | None, typer.Option(help="Overrides TALLYSTICK_PORT.")] = None,
    new_admin: Annotated[
        bool, typer.Option("--new-admin", help="Set up one more admin: if a passkey was lost.")
    ] = False,
) -> None:
    """Run the server.

    REST on 127.0.0.1:8402, and the embedded chain's JSON-RPC beside it.
    """
    gc.disable()  # until the server runs, all that is made is there to stay

    from engine.db.claim import Claim
    from engine.settings import load_settings

    signal.signal(signal.SIGTERM, leave)
    os.umask(0o077)  # the data is the operator's alone, also in a directory that others may enter
    log_as_json()
    overrides = {"data_dir": data_dir, "port": port}
    settings = load_settings(**{k: v for k, v in overrides.items() if v is not None})
    claim = Claim(settings)  # before what takes a second to import: see there

    from api.server import FACILITATOR_PREFIX, Server
    from engine.engine import open_engine
    from engine.workspaces.people import People

    engine = open_engine(settings, claim=claim)
    rpc = None
    try:
        rpc = _embedded_rpc(engine)
        server = Server(engine, settings.host, settings.port)
        engine.start()
        # Nothing may fail between making a key that is shown once and showing it.
        secret = settings.admin_key.get_secret_value() if settings.admin_key else None
        first_key = engine.access.ensure_admin(secret)
        if first_key is not None:
            console.print(f"[bold]admin key[/] (shown once): {first_key}", soft_wrap=True)
        setup_token = People(engine.database, engine.writer).first(another=new_admin)
        console.print(f"[bold]REST[/]      {server.url}  (OpenAPI at {server.url}/docs)")
        studio = settings.studio_origin or f"http://localhost:{server.port}"
        console.print(f"[bold]Studio[/]    {studio}/studio")
        if setup_token is not None:
            console.print(
                f"[bold]  set up[/]  {studio}/studio/set-up#{setup_token} (once, within 24 hours)",
                soft_wrap=True,
            )
        console.print(f"[bold]chain[/]     {engine.deployment.chain} at {_where(rpc, settings)}")
        if settings.chain == "embedded" and (usdc := engine.token("USDC", None)) is not None:
            console.print(f"[bold]test USDC[/] {usdc.asset.rpartition(':')[2]}")
        if engine.networks.facilitator() is not None:
            console.print(f"[bold]x402[/]      {server.url}{FACILITATOR_PREFIX}")
        console.print(f"[bold]registry[/]  {engine.deployment.registry}")
        sys.stdout.flush()
        # After its own shutdown the server raises the signal again; closing the engine comes then.
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        if rpc is not None:
            rpc.stop()
        engine.close()


def chain(
    config: Annotated[Path, typer.Option(help="The chain's settings.")] = DEFAULT_ANVIL_TOML,
    port: Annotated[int | None, typer.Option(help="Overrides the port.")] = None,
) -> None:
    """Run a local Anvil chain until Ctrl-C."""
    from engine.chain.anvil import AnvilProcess
    from engine.chain.gateway import ChainError

    signal.signal(signal.SIGTERM, leave)
    os.umask(0o077)
    overrides = {} if port is None else {"port": port}
    try:
        with AnvilProcess.from_toml(config, **overrides) as anvil:
            console.print(f"[bold]anvil[/]  {anvil.url}  (Ctrl-C stops it)")
            for account in anvil.accounts()[:3]:
                console.print(f"        {account.address}  0x{bytes(account.key).hex()}")
            sys.stdout.flush()
            _, status = os.waitpid(anvil.pid or 0, 0)
            raise ChainError(f"anvil ended by itself, with status {status}")
    except KeyboardInterrupt:
        console.print("stopping")


def deploy(
    test_usdc: Annotated[
        bool, typer.Option("--test-usdc", help="A test token too; local chains only.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Deploy the contracts to a chain.

    To the one that TALLYSTICK_CHAIN names, paid for by TALLYSTICK_OPERATOR_KEY.
    """
    from engine.chain import contracts
    from engine.chain.deploy import create
    from engine.chain.deploy import deploy as deploy_registries
    from engine.chain.endpoints import open_chain
    from engine.deployment import operator_account
    from engine.errors import CannotStart
    from engine.settings import load_settings
    from engine.workspaces.access import DEFAULT_WORKSPACE

    settings = load_settings()
    if settings.chain == "embedded":
        raise CannotStart("TALLYSTICK_CHAIN: the embedded chain deploys by itself; give a URL")
    if settings.operator_key is None:
        raise CannotStart("TALLYSTICK_OPERATOR_KEY is not set: it pays for the deployment")
    operator = operator_account(settings.operator_key)
    gateway = open_chain(settings.endpoints)
    try:
        deployed = deploy_registries(gateway, operator, workspaces=(DEFAULT_WORKSPACE,))
        token = create(gateway, operator, contracts.TEST_USDC) if test_usdc else None
    finally:
        gateway.close()
    tokens = []
    if token is not None:
        asset = f"eip155:{gateway.chain_id}/erc20:{token}"
        tokens = [{"symbol": "USDC", "asset": asset, "decimals": 6, "usd_price": "1"}]
    if as_json:
        found = {"registry": deployed.registry, "anchors": deployed.anchors, "tokens": tokens}
        print_json(found)
        return
    console.print(f"# AnchorRegistry {deployed.anchors}", soft_wrap=True)
    print_line(f"export TALLYSTICK_REGISTRY={deployed.registry}")
    if tokens:
        print_line(f"export TALLYSTICK_TOKENS='{json.dumps(tokens, separators=(',', ':'))}'")


def _embedded_rpc(engine: "Engine") -> "EmbeddedRpc | None":
    from engine.chain.gateway import ChainError
    from engine.errors import CannotStart

    try:
        return engine.serve_embedded_chain()
    except ChainError as error:
        raise CannotStart(f"TALLYSTICK_RPC_PORT: {error.message}") from error


def _where(rpc: "EmbeddedRpc | None", settings: "Settings") -> str:
    if rpc is not None:
        return escape(rpc.url)
    # A hosted endpoint's URL holds its access key, so it is not repeated here.
    return f"the URL{'s' if len(settings.endpoints) > 1 else ''} in TALLYSTICK_CHAIN"


def log_as_json() -> None:
    """One JSON object a line, on standard error."""
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
