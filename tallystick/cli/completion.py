"""`tallystick completion`: the script that has a shell complete commands and options."""

from typing import Annotated, Literal

import typer

# Typer does not say which of its names are public.
from typer.completion import completion_init, get_completion_script  # type: ignore[attr-defined]

from tallystick.cli.output import print_line

VARIABLE = "_TALLYSTICK_COMPLETE"
"""What the script sets when it asks this program for completions."""


def add_to(app: typer.Typer) -> None:
    """Add the command, and have the program answer its script."""
    completion_init()
    app.command()(completion)


def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish", "powershell"], typer.Argument(help="For which shell.")
    ],
) -> None:
    """Print a script for a shell.

    Such as: `source <(tallystick completion bash)`
    """
    print_line(get_completion_script(prog_name="tallystick", complete_var=VARIABLE, shell=shell))
