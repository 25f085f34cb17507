"""`tallystick resume-chain`."""

import typer

from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, Url, as_operator
from tallystick.cli.output import console, print_json


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(resume_chain)


def resume_chain(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Read all of the chain again after a deep reorganisation.

    Needs an admin key. Sessions follow what the chain is now; look at `GET /readyz` first.
    """
    with as_operator(url, api_key) as client:
        given_up = client.resume_chain()
    if as_json:
        print_json(given_up)
        return
    console.print(
        f"block {given_up['block_number']} ({given_up['block_hash']}) is given up; "
        "the chain is read again from the first block of this installation",
        soft_wrap=True,
    )
