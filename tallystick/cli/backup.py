"""`tallystick backup`."""

from pathlib import Path
from typing import Annotated

import typer

from tallystick.cli.connection import AsJson
from tallystick.cli.output import USAGE_EXIT_CODE, failed, print_json, print_line

FAILED_EXIT_CODE = 1


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(backup)


def backup(
    target: Annotated[Path, typer.Argument(help="A new or empty directory.")],
    data_dir: Annotated[Path | None, typer.Option(help="Overrides TALLYSTICK_DATA_DIR.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the data directory, beside a running server.

    An embedded chain is its server's alone: stop that first.

    The keys are copied, too: keep the copy as safe as the original. Where the file is missing that
    opens them, all else is copied, and that is an error. Not for a database that
    TALLYSTICK_DATABASE names: copy that with PostgreSQL's own pg_dump, and keep TALLYSTICK_KEK.
    """
    from engine.db.backup import CannotBackUp, back_up
    from engine.errors import CannotStart
    from engine.settings import load_settings

    try:
        settings = load_settings()
    except CannotStart as error:
        raise typer.Exit(failed(error.code, error.message, USAGE_EXIT_CODE)) from error
    if settings.database is not None and data_dir is None:
        message = "the ledger is in TALLYSTICK_DATABASE: copy it with pg_dump, and TALLYSTICK_KEK"
        raise typer.Exit(failed(CannotBackUp.code, message, USAGE_EXIT_CODE))
    source = (data_dir or settings.data_dir).resolve()
    try:
        copies = back_up(source, target)
    except CannotBackUp as error:
        raise typer.Exit(failed(error.code, error.message, FAILED_EXIT_CODE)) from error
    if as_json:
        print_json({"source": str(source), "copies": [str(copy) for copy in copies]})
        return
    print_line(f"copied from {source}:")
    for copy in copies:
        print_line(str(copy))
