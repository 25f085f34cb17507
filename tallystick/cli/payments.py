"""`tallystick pay`, `capture`, `void` and `payments …`"""

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from tallystick.cli.connection import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Key,
    SessionToken,
    Url,
    as_operator,
    as_party,
    as_session,
)
from tallystick.cli.output import console, dollars, fields, minute, print_json, table

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

PaymentId = Annotated[str, typer.Argument(help="The payment's id.")]


def add_to(parent: typer.Typer) -> None:
    """Add the commands that are no group."""
    parent.command()(pay)
    parent.command()(execute)
    parent.command()(capture)
    parent.command()(void)
    parent.command("status")(get)


def pay(
    amount: Annotated[str, typer.Argument(help="Dollars, such as 12.50.")],
    merchant: Annotated[str | None, typer.Option(help="Who is paid.")] = None,
    token: Annotated[str, typer.Option(help="In which token.")] = "USDC",  # noqa: S107 (a currency)
    hold: Annotated[bool, typer.Option("--hold", help="Only hold; capture later.")] = False,
    key: Key = None,
    url: Url = DEFAULT_URL,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Pay within a session's limits."""
    with as_session(url, session_token) as client:
        _print(
            client.pay(amount, merchant=merchant, token=token, hold=hold, idempotency_key=key),
            as_json,
        )


def execute(
    amount: Annotated[str, typer.Argument(help="Dollars, such as 12.50.")],
    session: Annotated[str, typer.Option(help="From which session.")],
    to: Annotated[str, typer.Option(help="To which account: 0x and 40 hex digits.")],
    token: Annotated[str, typer.Option(help="In which token.")] = "USDC",  # noqa: S107 (a currency)
    memo: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Send tokens from a session, within its limits."""
    with as_party(url, api_key, session_token) as client:
        sent = client.execute(session, to, amount, token=token, memo=memo, idempotency_key=key)
        _print(sent, as_json)


def capture(
    payment: PaymentId,
    amount: Annotated[
        str | None, typer.Argument(help="Dollars; all of the hold by default.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Spend a hold, or part of it."""
    with as_party(url, api_key, session_token) as client:
        _print(client.capture(payment, amount), as_json)


def void(
    payment: PaymentId,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Give a hold back."""
    with as_party(url, api_key, session_token) as client:
        _print(client.void(payment), as_json)


@app.command("list")
def list_payments(
    session: Annotated[str | None, typer.Option(help="Only those of this session.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only pending, confirmed, failed or expired ones.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Asked for on this day (UTC) or later; or a time.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Asked for on this day or earlier; or before a time.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """List payments, the newest first.

    With an API key those of the workspace, with a session token its own.
    """
    with as_party(url, api_key, session_token) as client:
        listed = client.each_payment(
            session_id=session, status=status, from_date=since, to_date=until
        )
        payments = list(islice(listed, limit))
    if as_json:
        print_json(payments)
        return
    if not payments:
        console.print("no payments")
        return
    table(
        ("STATE", "ID", "AMOUNT", "CAPTURED", "MERCHANT", "DECISION", "MADE"),
        [
            (
                _state(payment),
                payment["id"],
                dollars(payment["amount_usd"]),
                dollars(payment["captured_usd"]),
                payment["merchant_id"] or "",
                payment["decision"]["code"],
                minute(payment["created_at"]),
            )
            for payment in payments
        ],
    )


@app.command()
def get(
    payment: PaymentId,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Show one payment."""
    with as_party(url, api_key, session_token) as client:
        found = client.payment(payment)
    if as_json:
        print_json(found)
        return
    rows = [
        ("id", found["id"]),
        ("session", found["session_id"]),
        ("state", found["state"]),
        ("decision", found["decision"]["code"]),
        ("reason", found["decision"]["reason"]),
        ("approval", found["approval_id"] or "none"),
        ("amount", dollars(found["amount_usd"])),
        ("captured", dollars(found["captured_usd"])),
        ("merchant", found["merchant_id"] or "none"),
        ("token", found["payment_token"]),
        ("description", found["description"] or ""),
        ("made", found["created_at"]),
        ("hold ends", _hold_ends(found)),
        ("closed", found["closed_at"] or "not yet"),
        ("left today", _left_today(found["remaining_now"])),
    ]
    if "settlement" in found:
        settlement = found["settlement"]
        rows += [
            ("settlement", settlement["state"]),
            ("transaction", settlement["tx_hash"] or "none known"),
            ("paid to", found["terms"]["pay_to"]),
            ("for", found["terms"]["resource"] or "a transfer"),
        ]
    fields(rows)


@app.command()
def accept(
    payment: PaymentId,
    reason: Annotated[str, typer.Option(help="Why; it goes into the log.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Count a payment that the chain contradicts as spent.

    It ends the discrepancy `settlement_contradicted`, once the chain can say nothing else.
    """
    with as_operator(url, api_key) as client:
        ended = client.accept_settlement(payment, reason)
    _print(ended, as_json)


def _state(payment: Mapping[str, Any]) -> str:
    """The state, and of a signed payment how far the chain is with it."""
    state = str(payment["state"]).upper()
    return f"{state}, {payment['settlement']['state']}" if "settlement" in payment else state


def _hold_ends(payment: Mapping[str, Any]) -> str:
    if payment["state"] != "held":
        return "nothing is held"
    return payment["expires_at"] or "when the chain says"


def _left_today(now: Mapping[str, Any] | None) -> str:
    return "unknown" if now is None else dollars(now["today"])


def _print(payment: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(payment)
        return
    console.print(
        f"{payment['id']} {payment['state']}: "
        f"{dollars(payment['captured_usd'])} of {dollars(payment['amount_usd'])} captured, "
        f"{dollars(payment['remaining_today'])} left today",
        soft_wrap=True,
    )
