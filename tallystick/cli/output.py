"""How the command talks: lines and tables for people, JSON for programs, one line for a failure."""

import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

DENIED_EXIT_CODE = 6
_POLICY_DENIAL_STATUS = 402

_UNBOUNDED_COLUMNS = 10_000

# Output that is not read on a terminal is never folded.
console = Console(highlight=False, width=None if sys.stdout.isatty() else _UNBOUNDED_COLUMNS)
errors = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def dollars(amount: float | None) -> str:
    """An amount as the server sent it, for people."""
    if amount is None:
        return "unlimited"
    return f"${amount:,.2f}" if round(amount, 2) == amount else f"${amount:,.6f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; nothing in it is markup."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, no_wrap=True)
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    console.print(grid)


def fail(error: Exception) -> NoReturn:
    """Say in one line what is wrong and leave with the matching status."""
    code = getattr(error, "code", "error")
    message = getattr(error, "message", str(error))
    errors.print(f"[bold red]{escape(code)}[/]: {escape(message)}", soft_wrap=True)
    denied = getattr(error, "status", None) == _POLICY_DENIAL_STATUS
    sys.exit(DENIED_EXIT_CODE if denied else 1)
