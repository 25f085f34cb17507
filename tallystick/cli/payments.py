"""`tallystick pay`, `capture` and `void`."""

from typing import Annotated, Any

import typer

from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, SessionToken, Url, connect
from tallystick.cli.output import console, dollars, print_json

Payment = Annotated[str, typer.Argument(help="The payment's id.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(pay)
    app.command()(capture)
    app.command()(void)


def pay(
    amount: Annotated[str, typer.Argument(help="Dollars, such as 12.50.")],
    merchant: Annotated[str | None, typer.Option(help="Who is paid.")] = None,
    token: Annotated[str, typer.Option(help="In which token.")] = "USDC",  # noqa: S107 (a currency)
    hold: Annotated[bool, typer.Option(help="Only hold; capture later.")] = False,
    key: Annotated[
        str | None, typer.Option(help="An idempotency key: the same key pays once.")
    ] = None,
    url: Url = DEFAULT_URL,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Pay within a session's limits."""
    with connect(url, session_token=session_token) as client:
        _print(
            client.pay(amount, merchant=merchant, token=token, hold=hold, idempotency_key=key),
            as_json,
        )


def capture(
    payment: Payment,
    amount: Annotated[
        str | None, typer.Argument(help="Dollars; all of the hold by default.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Spend a hold, or part of it."""
    with connect(url, api_key) as client:
        _print(client.capture(payment, amount), as_json)


def void(
    payment: Payment, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Give a hold back."""
    with connect(url, api_key) as client:
        _print(client.void(payment), as_json)


def _print(payment: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(payment)
        return
    console.print(
        f"{payment['id']} {payment['state']}: "
        f"{dollars(payment['captured_usd'])} of {dollars(payment['amount_usd'])} captured, "
        f"{dollars(payment['remaining_today'])} left today",
        soft_wrap=True,
    )
