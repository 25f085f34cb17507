"""`tallystick intents …`"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from tallystick.cli.connection import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Key,
    SessionToken,
    Url,
    as_party,
    as_session,
)
from tallystick.cli.output import console, dollars, fields, minute, print_json, table
from tallystick.cli.prompts import given_or_asked

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

IntentId = Annotated[str, typer.Argument(help="The intent's id.")]


@app.command()
def create(
    amount: Annotated[str | None, typer.Option(help="Dollars, such as 12.50.")] = None,
    currency: Annotated[Literal["USD"], typer.Option(help="In which currency.")] = "USD",
    merchant: Annotated[str | None, typer.Option(help="Who is paid.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    capture: Annotated[
        Literal["automatic", "manual"], typer.Option(help="Spend at once, or hold until captured.")
    ] = "automatic",
    agent_id: Annotated[str | None, typer.Option(help="For which agent.")] = None,
    expires_in: Annotated[
        int | None, typer.Option(help="Seconds until it cannot be confirmed any more.")
    ] = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Create a payment that is confirmed later."""
    del currency  # there is no other
    amount = given_or_asked(amount, "--amount", "Dollars")
    with as_party(url, api_key, session_token) as client:
        made = client.intents.create(
            amount,
            merchant=merchant,
            description=description,
            capture_method=capture,
            agent_id=agent_id,
            expires_in_seconds=expires_in,
            idempotency_key=key,
        )
    _show(made, as_json)


@app.command("list")
def list_intents(
    status: Annotated[str | None, typer.Option(help="Only in this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="After so many.")] = 0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """List intents, the newest first.

    With an API key those of the workspace, with a session token those that it made or confirmed.
    """
    with as_party(url, api_key, session_token) as client:
        found = client.intents.list(status=status, limit=limit, offset=offset)
    if as_json:
        print_json(found)
        return
    if not found:
        console.print("no intents")
        return
    table(
        ("STATUS", "ID", "AMOUNT", "CAPTURE", "PAYMENT", "EXPIRES"),
        [
            (
                each["status"].upper().replace("_", " "),
                each["id"],
                dollars(each["amount"]),
                each["capture_method"],
                each.get("payment_id") or "",
                minute(each["expires_at"]),
            )
            for each in found
        ],
    )


@app.command()
def get(
    intent: IntentId,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Show one intent."""
    with as_party(url, api_key, session_token) as client:
        found = client.intents.get(intent)
    _show(found, as_json)


@app.command()
def confirm(
    intent: IntentId,
    wallet: Annotated[str | None, typer.Option(help="The wallet that pays.")] = None,
    client_secret: Annotated[
        str | None, typer.Option(help="The intent's secret.", envvar="TALLYSTICK_CLIENT_SECRET")
    ] = None,
    url: Url = DEFAULT_URL,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Pay an intent, by a session and within its limits."""
    secret = given_or_asked(client_secret, "--client-secret", "The intent's secret", hidden=True)
    wallet = given_or_asked(wallet, "--wallet", "The wallet that pays")
    with as_session(url, session_token) as client:
        paid = client.intents.confirm(intent, secret, wallet)
    _show(paid, as_json)


@app.command()
def capture(
    intent: IntentId,
    amount: Annotated[
        str | None, typer.Argument(help="Dollars; all of the hold by default.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Spend what a confirmed intent holds, or part of it."""
    with as_party(url, api_key, session_token) as client:
        found = client.intents.capture(intent, amount)
    _show(found, as_json)


@app.command()
def cancel(
    intent: IntentId,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Give an intent up."""
    with as_party(url, api_key, session_token) as client:
        found = client.intents.cancel(intent)
    _show(found, as_json)


def _show(intent: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(intent)
        return
    rows = [
        ("id", intent["id"]),
        ("status", _status(intent)),
        ("amount", f"{dollars(intent['amount'])} {intent['currency']}"),
        ("description", intent.get("description") or ""),
        ("capture", intent["capture_method"]),
        ("captured", dollars(intent["amount_captured"])),
        ("agent", intent.get("agent_id") or "any"),
        ("payment", intent.get("payment_id") or "none"),
        ("made", intent["created_at"]),
        ("expires", intent["expires_at"]),
    ]
    fields(rows)
    if "client_secret" in intent:  # in one line, to be copied
        secret = f"\n[bold]client secret[/] (shown once): {intent['client_secret']}"
        console.print(secret, soft_wrap=True)


def _status(intent: Mapping[str, Any]) -> str:
    code = intent["code"]
    return str(intent["status"]) if code is None else f"{intent['status']}, {code}"
