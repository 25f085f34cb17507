"""The `tallystick` command. Heavy libraries are imported by the commands that need them.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 6 denied by the policy; `verify` has its
own (0 verified, 1 tampered, 3 pending, 4 unavailable, 5 unbindable).
"""

import sys

import typer

from tallystick.cli import audit, payments, server, sessions
from tallystick.cli.output import fail

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Audit and policy engine for money that AI agents spend.",
)
server.add_to(app)
app.add_typer(sessions.app, name="sessions", help="Create, list, show and revoke sessions.")
payments.add_to(app)
audit.add_to(app)


def main() -> None:
    """Run the command; every failure is one line."""
    from engine.errors import TallystickError
    from tallystick.client import ApiError

    try:
        app()
    except (TallystickError, ApiError) as error:
        fail(error)
    except BrokenPipeError:
        # The reader went away (`tallystick … | head`); Python would complain again at exit.
        sys.stderr.close()
        sys.exit(1)
