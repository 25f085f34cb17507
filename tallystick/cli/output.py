"""How the command talks: lines and tables for people, JSON for programs, one line for a failure."""

import json
import shlex
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from engine.errors import InvalidInput, TallystickError
from engine.policy.money import plain_decimals
from tallystick.errors import ApiError

DENIED_EXIT_CODE = 6
USAGE_EXIT_CODE = 2
_POLICY_DENIAL_STATUS = 402
_NOT_PUBLIC = "an address that is not public"
_NO_CONDITION = "is none of the sentences that a condition can be"

_UNBOUNDED_COLUMNS = 10_000


class ReaderGoneError(Exception):
    """Nobody reads the output any more (`tallystick … | head`)."""


class _Console(Console):
    """Rich and Typer each have an exit status of their own for this; `main` has one for both."""

    def on_broken_pipe(self) -> None:
        raise ReaderGoneError


# Output that is not read on a terminal is never folded. Without any output, stdout is None.
_terminal = getattr(sys.stdout, "isatty", bool)()
console = _Console(highlight=False, width=None if _terminal else _UNBOUNDED_COLUMNS)
errors = _Console(stderr=True, highlight=False)


def print_line(text: str) -> None:
    """Text as it is, for programs."""
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        raise ReaderGoneError from error


def print_json(value: Any) -> None:
    """One JSON document on standard output, its amounts without exponents."""
    print_line(plain_decimals(json.dumps(value, indent=2, ensure_ascii=False)))


def dollars(amount: float | Decimal | None) -> str:
    """An amount as the server sent it, for people."""
    if amount is None:
        return "unlimited"
    whole, _, rest = f"{amount:,.6f}".partition(".")
    return f"${whole}.{rest.rstrip('0').ljust(2, '0')}"


def minute(time: str) -> str:
    """A time as the server sent it, to the minute, for a column."""
    return time[:16].replace("T", " ") + "Z"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One line per row; on a terminal that is too narrow, a few lines per row, and nothing cut off.

    The first two columns say what a row is.
    """
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, no_wrap=True)
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    unbounded = console.options.update(max_width=_UNBOUNDED_COLUMNS)
    if Measurement.get(console, unbounded, grid).maximum <= console.width:
        console.print(grid)
        return
    margin = max(len(row[0]) for row in rows) + 2
    for row in rows:
        facts = zip(columns[2:], row[2:], strict=True)
        below = " · ".join(f"{column.lower()} {cell}" for column, cell in facts if cell)
        block = Table.grid(padding=(0, 0))
        block.add_column(width=margin)
        block.add_column(overflow="fold")
        block.add_row(Text(row[0]), Text(row[1]))
        block.add_row("", Text(below, style="dim"))
        console.print(block)


def fields(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values, one below the other; a long value is folded."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, escape(value))
    console.print(grid)


def failed(code: str, message: str, status: int) -> int:
    """Say in one line what is wrong; returns the exit status."""
    line = " ".join(message.split())
    errors.print(f"[bold red]{escape(code)}[/]: {escape(line)}", soft_wrap=True)
    return status


def fail(error: TallystickError | ApiError, told: str | None = None) -> int:
    """Say in one line what is wrong, `told` in place of its message; returns the exit status."""
    code, message = error.code, error.message if told is None else told
    if next_step := _what_next(error):
        message = f"{message.removesuffix('.')}: {next_step}"
    if isinstance(error, InvalidInput):  # found here, before anything was asked of a server
        return failed(code, message, USAGE_EXIT_CODE)
    denied = getattr(error, "status", None) == _POLICY_DENIAL_STATUS
    return failed(code, message, DENIED_EXIT_CODE if denied else 1)


def _what_next(error: Exception) -> str:
    if not isinstance(error, ApiError):
        return ""
    if (approval := error.body.get("approval_id")) is not None:
        return f"{approval} waits to be granted"
    if error.code == "unreachable":
        return "is `tallystick serve` running? TALLYSTICK_URL or --url names it"
    if error.is_unknown and error.idempotency_key is not None:
        key = shlex.quote(error.idempotency_key)
        return f"it may have been done; to do it once, ask again with --key {key}"
    if error.is_unknown and error.code != "chain_unavailable":  # which says what was not done
        return "it may have been done"
    if error.code == "http_error":
        return "TALLYSTICK_URL or --url names one"
    if error.code == "session_not_registered":
        return "only one that was created with --mint-pkp has"
    if error.message.endswith(_NOT_PUBLIC):
        return "TALLYSTICK_WEBHOOK_NETWORKS of the server can allow it"
    if error.message.endswith(_NO_CONDITION):
        return "'never merchant casino' is one; docs/api.md#conditions has them all"
    return ""
