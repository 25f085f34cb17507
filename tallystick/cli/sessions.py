"""`tallystick sessions …`"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tallystick.cli.connection import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    SessionToken,
    Url,
    as_operator,
    as_party,
)
from tallystick.cli.output import console, dollars, fields, minute, print_json, table

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

SessionId = Annotated[str, typer.Argument(help="The session's id.")]
Limit = Annotated[str | None, typer.Option(help="Dollars, or 'none' for unlimited.")]


@app.command()
def create(
    agent_id: Annotated[str, typer.Option(help="The agent that will spend.")],
    wallet: Annotated[str, typer.Option(help="The owner's wallet.")],
    max_per_transaction: Limit = None,
    max_per_day: Limit = None,
    max_per_week: Limit = None,
    max_per_month: Limit = None,
    require_approval_above: Limit = None,
    approvals_required: Annotated[
        int | None, typer.Option(help="How many operators must grant what is above; 1 to 10.")
    ] = None,
    merchant: Annotated[
        list[str] | None, typer.Option(help="An allowed merchant; may be repeated.")
    ] = None,
    token: Annotated[
        list[str] | None, typer.Option(help="An allowed token; may be repeated.")
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="What else bounds it: 'at most 10 payments per hour'; may be repeated."),
    ] = None,
    duration: Annotated[str, typer.Option(help="Hours, at most 168.")] = "24",
    label: Annotated[str | None, typer.Option(help="What the session is for.")] = None,
    mint_pkp: Annotated[
        bool, typer.Option("--mint-pkp", help="Register the session on the chain.")
    ] = False,
    parent: Annotated[
        str | None,
        typer.Option(help="A session to delegate from; its token will do instead of a key."),
    ] = None,
    owner_key_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the owner's private key (hex), to sign the grant here.",
            envvar="TALLYSTICK_OWNER_KEY_FILE",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Create a session and print its token, which is not shown again."""
    limits = {
        "max_per_transaction": max_per_transaction,
        "max_per_day": max_per_day,
        "max_per_week": max_per_week,
        "max_per_month": max_per_month,
        "require_approval_above": require_approval_above,
    }
    sign = None if owner_key_file is None else _signer(owner_key_file, wallet)
    with as_party(url, api_key, session_token if parent else None) as client:
        make = client.create_session if parent is None else partial(client.create_child, parent)
        session = make(
            agent_id=agent_id,
            user_wallet=wallet,
            limits={
                name: None if value == "none" else value
                for name, value in limits.items()
                if value is not None
            },
            allowed_merchants=merchant or None,
            allowed_tokens=token or None,
            conditions=condition or [],
            duration_hours=int(duration) if duration.isdecimal() else duration,
            label=label,
            **({} if approvals_required is None else {"approvals_required": approvals_required}),
            mint_pkp=mint_pkp or (None if parent else False),
            await_consent=sign is not None,
        )
        secret = session["session_token"]
        if sign is not None:
            signature = sign(session["typed_data"])
            session = client.consent(session["id"], signature) | {"session_token": secret}
    if as_json:
        print_json(session)
        return
    _show(session)
    console.print(f"\n[bold]session token[/] (shown once): {secret}", soft_wrap=True)


@app.command("list")
def list_sessions(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List sessions, the newest first, at most a thousand."""
    with as_operator(url, api_key) as client:
        sessions = client.sessions()
    if as_json:
        print_json(sessions)
        return
    if not sessions:
        console.print("no sessions yet")
        return
    table(
        ("STATUS", "ID", "AGENT", "LABEL", "REMAINING TODAY", "EXPIRES"),
        [
            (
                _status(session),
                session["id"],
                session["agent_id"],
                session["label"] or "",
                dollars(session["remaining_today"]),
                minute(session["expires_at"]),
            )
            for session in sessions
        ],
    )


@app.command()
def get(
    session_id: SessionId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Show one session."""
    with as_operator(url, api_key) as client:
        session = client.session(session_id)
    if as_json:
        print_json(session)
    else:
        _show(session)


@app.command()
def restrict(
    session_id: SessionId,
    restriction: Annotated[
        list[str] | None,
        typer.Option(help="A condition: 'never merchant casino'; may be repeated."),
    ] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Lift all restrictions.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Narrow a live session by conditions, in place of earlier ones."""
    from engine.errors import InvalidInput

    if lift == bool(restriction):
        raise InvalidInput("--restriction", "give one or more, or --lift")
    with as_operator(url, api_key) as client:
        session = client.restrict_session(session_id, restriction or [])
    if as_json:
        print_json(session)
    else:
        _show(session)


@app.command()
def revoke(
    session_id: SessionId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """End a session for good."""
    with as_operator(url, api_key) as client:
        if not yes:
            typer.confirm(f"Revoke {session_id}? This cannot be undone.", abort=True)
        client.revoke_session(session_id)
    console.print(f"{session_id} is revoked")


def _show(session: dict[str, Any]) -> None:
    limits = session["limits"]
    rows = [
        ("id", session["id"]),
        ("status", session["status"]),
        ("agent", session["agent_id"]),
        ("label", session["label"] or ""),
        ("owner", session["user_wallet"]),
        ("parent", session["parent_id"] or "none"),
        ("consent", session["consent"]),
        ("on-chain identity", session.get("pkp_address", "none")),
        ("expires", session["expires_at"]),
        ("per transaction", dollars(limits["max_per_transaction"])),
        ("per 24 hours", _left(session["remaining_today"], limits["max_per_day"])),
        ("per 7 days", _left(session["remaining_this_week"], limits["max_per_week"])),
        ("per 30 days", _left(session["remaining_this_month"], limits["max_per_month"])),
        ("approval above", dollars(limits["require_approval_above"])),
        ("approvals required", str(session["approvals_required"])),
        ("merchants", ", ".join(session["allowed_merchants"] or ["any"])),
    ]
    rows += [("condition", sentence) for sentence in session["conditions"]]
    rows += [("restriction", sentence) for sentence in session["restrictions"]]
    rows += [
        ("left", f"{_amount_left(left)} of {left['condition']}")
        for left in session["remaining_by_condition"]
    ]
    fields(rows)


def _status(session: dict[str, Any]) -> str:
    mark = "●" if session["is_active"] else "○"
    return f"{mark} {session['status'].upper().replace('_', ' ')}"


def _left(remaining: float | None, limit: float | None) -> str:
    if limit is None:
        return "unlimited"
    return f"{dollars(remaining)} left of {dollars(limit)}"


def _amount_left(left: dict[str, Any]) -> str:
    return str(left["remaining"]) if left["unit"] == "payments" else dollars(left["remaining"])


def _signer(key_file: Path, wallet: str) -> Callable[[dict[str, Any]], str]:
    """What signs typed data with the key in a file; checked before a session is made for it.

    Raises:
        InvalidInput: no private key is there, or it is another wallet's.
    """
    from eth_account import Account

    from engine.errors import InvalidInput

    option = "--owner-key-file"
    try:
        account = Account.from_key(key_file.read_text().strip())
    except OSError as error:
        raise InvalidInput(option, f"{key_file}: {error.strerror}") from error
    except Exception:  # noqa: BLE001 (the cause could quote the key)
        raise InvalidInput(option, f"{key_file} does not hold a private key") from None
    if account.address.lower() != wallet.lower():
        raise InvalidInput(option, f"{key_file} holds the key of {account.address}, not {wallet}")

    def sign(typed_data: dict[str, Any]) -> str:
        return "0x" + bytes(account.sign_typed_data(full_message=typed_data).signature).hex()

    return sign
