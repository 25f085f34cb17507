"""`tallystick reconcile`."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, Url, as_operator
from tallystick.cli.output import console, errors, failed, minute, print_json, table
from tallystick.errors import ApiError

if TYPE_CHECKING:
    from tallystick.client import Client

CRITICAL_EXIT_CODE = 1
WARNING_EXIT_CODE = 3
UNAVAILABLE_EXIT_CODE = 4

_EXIT_CODES = {"critical": CRITICAL_EXIT_CODE, "warning": WARNING_EXIT_CODE}
_LONG_RANGE_BLOCKS = 2_000
_POLL_S = 0.2


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reconcile)


def reconcile(
    from_block: Annotated[
        int | None,
        typer.Option(
            min=0, help="Only what the chain holds from this block on; all of it if left out."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Compare the ledger with the chain, and list what differs.

    Exit status, by the worst that is open: 0 nothing or infos, 1 critical, 3 warnings, 4 the chain
    does not answer or contradicts itself, so that nothing is known.
    """
    with as_operator(url, api_key) as client:
        try:
            state = _with_progress(client, from_block)
        except ApiError as error:
            if error.code != "chain_unavailable":
                raise
            raise typer.Exit(failed(error.code, error.message, UNAVAILABLE_EXIT_CODE)) from error
    if as_json:
        print_json(state)
    else:
        _print(state)
    severities = {found["severity"] for found in state["open"]}
    for severity, status in _EXIT_CODES.items():
        if severity in severities:
            raise typer.Exit(status)


def _with_progress(client: "Client", from_block: int | None) -> Mapping[str, Any]:
    """Reconcile; on a terminal, show how far it has come if that takes a while."""
    if not errors.is_terminal:
        return client.reconcile(from_block=from_block)
    asked: Future[Mapping[str, Any]] = Future()

    def ask() -> None:
        try:
            asked.set_result(client.reconcile(from_block=from_block))
        except Exception as error:  # noqa: BLE001 (it is raised where the answer is waited for)
            asked.set_exception(error)

    # Whoever interrupts must not wait for the answer, as the end of a pool would.
    threading.Thread(target=ask, daemon=True).start()
    _show(client, asked)
    return asked.result()


def _show(client: "Client", asked: Future[Mapping[str, Any]]) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("blocks"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = None
        while not wait((asked,), timeout=_POLL_S).done:
            try:
                running = client.reconciliation()["running"]
            except ApiError:
                return  # the answer itself will tell
            if running is None:
                continue
            total = running["last_block"] - running["first_block"] + 1
            if task is None and total > _LONG_RANGE_BLOCKS:
                task = bar.add_task("blocks", total=total)
            if task is not None:
                read = running["reached_block"] - running["first_block"] + 1
                bar.update(task, total=total, completed=read)


def _print(state: Mapping[str, Any]) -> None:
    last, chain = state["last"], state["chain"]
    if state["open"]:
        table(
            ("SEVERITY", "KIND", "SUBJECT", "SINCE", "MEANING"),
            [
                (
                    found["severity"],
                    found["kind"],
                    found["subject"],
                    minute(found["first_seen_at"]),
                    found["meaning"],
                )
                for found in state["open"]
            ],
        )
    count = len(state["open"])
    said = "no discrepancies" if count == 0 else f"{count} open"
    lag = chain["lag_blocks"]
    behind = "" if lag is None else f", the index is {lag} behind the chain"
    console.print(
        f"{said}; blocks {last['from_block']} to {last['to_block']} compared{behind}; "
        f"{last['filed']} new, {last['resolved']} resolved, "
        f"{last['sessions_tightened']} sessions tightened",
        soft_wrap=True,
    )
