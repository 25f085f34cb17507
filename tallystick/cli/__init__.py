"""The `tallystick` command. Heavy libraries are imported by the commands that need them.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 6 denied by the policy; `verify` has its
own (0 verified, 1 tampered, 3 pending, 4 unavailable, 5 unbindable), and so have `reconcile` (0 no
discrepancies, 1 critical, 3 warnings, 4 unavailable), `fsck` (0 clean, 1 something was found, 4
cannot be read) and `compare` (0 consistent, 1 split view, 3 not shown, 4 unknown). `fetch` has one
more, 3: paid, and nobody knows whether that arrived. Any command: 70 a defect of ours or of the
machine, 130 interrupted by Ctrl-C, 141 nobody reads the output any more, 143 told to end by
SIGTERM; what goes on until it is stopped (`serve`) ends with 0 by either.
"""

import contextlib
import io
import os
import re
import sys
from importlib import metadata
from typing import Annotated

import typer
from typer.exceptions import TyperException

from tallystick.cli import (
    agent,
    approvals,
    audit,
    backup,
    budgets,
    chain,
    compare,
    completion,
    explanations,
    facilitator,
    fetch,
    fsck,
    fund,
    intents,
    keys,
    mcp,
    payments,
    reconcile,
    server,
    sessions,
    webhooks,
)
from tallystick.cli.options import as_typed
from tallystick.cli.output import ReaderGoneError, fail, failed, print_line
from tallystick.cli.signals import INTERRUPTED_EXIT_CODE, signals_heard

READER_GONE_EXIT_CODE = 141
DEFECT_EXIT_CODE = 70

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut long options off on a narrow terminal
)


def _version(wanted: bool) -> None:
    if wanted:
        print_line(f"tallystick {metadata.version('tallystick')}")
        raise typer.Exit


@app.callback()
def tallystick(
    _wanted: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Audit and policy engine for money that AI agents spend."""


server.add_to(app)
chain.add_to(app)
facilitator.add_to(app)
fund.add_to(app)
app.add_typer(sessions.app, name="sessions", help="Create, show, restrict and revoke sessions.")
app.add_typer(agent.app, name="agent", help="Sessions, keys and figures of agents.")
app.add_typer(keys.app, name="keys", help="Make, list, rotate and revoke keys of operators.")
app.add_typer(budgets.app, name="budgets", help="Set, list and lift budgets above sessions.")
fetch.add_to(app)
payments.add_to(app)
app.add_typer(payments.app, name="payments", help="List and show payments.")
app.add_typer(intents.app, name="intents", help="Payments in two steps.")
explanations.add_to(app)
app.add_typer(approvals.app, name="approvals", help="List, show, grant and deny approvals.")
app.add_typer(webhooks.app, name="webhooks", help="Have events sent to URLs.")
audit.add_to(app)
compare.add_to(app)
reconcile.add_to(app)
fsck.add_to(app)
backup.add_to(app)
mcp.add_to(app)
completion.add_to(app)


def main() -> None:
    """Run the command; every failure is one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character still has to hear the rest.
            stream.reconfigure(errors="backslashreplace")
    with signals_heard():
        sys.exit(_run())


def _run() -> int:
    from engine.errors import TallystickError
    from tallystick.errors import ApiError

    try:
        status = app(prog_name="tallystick", standalone_mode=False)
        print(end="", flush=True)
    except (ReaderGoneError, BrokenPipeError):
        return _without_output(READER_GONE_EXIT_CODE)
    except TyperException as error:
        return _wrong_usage(error)
    except typer.Abort as abort:  # Ctrl-C where somebody is asked, the end of the input, or no
        pressed = isinstance(abort.__context__, KeyboardInterrupt)
        return failed("aborted", "nothing was done", INTERRUPTED_EXIT_CODE if pressed else 1)
    except (TallystickError, ApiError) as error:
        return fail(error, as_typed(error, typer.main.get_command(app)))
    except UnicodeEncodeError as error:
        return failed("usage", f"{error.object!r} cannot be sent: {error.reason}", 2)
    except OSError as error:
        return _without_output(failed("internal_error", str(error), DEFECT_EXIT_CODE))
    except Exception as error:  # noqa: BLE001 (nobody but a developer is helped by a traceback)
        return failed("internal_error", repr(error), DEFECT_EXIT_CODE)
    return status if isinstance(status, int) else 0


def _without_output(status: int) -> int:
    """Python writes what is left at exit, and would fail and complain once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _wrong_usage(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    if context is not None and error.format_message() == context.get_help():
        print(context.get_help(), file=sys.stderr)  # a group without a command
        return error.exit_code
    message = " ".join(error.format_message().split())
    if (below := _amount_below_zero(error)) is not None:
        message = f"AMOUNT: what begins with {below} is no amount"
    command = context.command_path if context is not None else "tallystick"
    return failed("usage", f"{message} (see {command} --help)", error.exit_code)


def _amount_below_zero(error: TyperException) -> str | None:
    """What was read as an option that there is not, where an amount was to be."""
    name, context = getattr(error, "option_name", ""), getattr(error, "ctx", None)
    takes = () if context is None else (each.name for each in context.command.params)
    return name if re.match(r"-[\d.]", name) and "amount" in takes else None
