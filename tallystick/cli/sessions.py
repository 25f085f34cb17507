"""`tallystick sessions …`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, Url, connect
from tallystick.cli.output import console, dollars, print_json, table

app = typer.Typer(no_args_is_help=True, add_completion=False)

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
    merchant: Annotated[
        list[str] | None, typer.Option(help="An allowed merchant; may be repeated.")
    ] = None,
    token: Annotated[
        list[str] | None, typer.Option(help="An allowed token; may be repeated.")
    ] = None,
    duration: Annotated[str, typer.Option(help="Hours, at most 168.")] = "24",
    label: Annotated[str | None, typer.Option(help="What the session is for.")] = None,
    mint_pkp: Annotated[bool, typer.Option(help="Register the session on the chain.")] = False,
    owner_key_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the owner's private key (hex), to sign the grant here.",
            envvar="TALLYSTICK_OWNER_KEY_FILE",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
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
    with connect(url, api_key) as client:
        session = client.create_session(
            agent_id=agent_id,
            user_wallet=wallet,
            limits={
                name: None if value == "none" else value
                for name, value in limits.items()
                if value is not None
            },
            allowed_merchants=merchant or None,
            allowed_tokens=token or None,
            duration_hours=int(duration) if duration.isdecimal() else duration,
            label=label,
            mint_pkp=mint_pkp,
            await_consent=owner_key_file is not None,
        )
        secret = session["session_token"]
        if owner_key_file is not None:
            signature = _sign(owner_key_file, session["typed_data"])
            session = client.consent(session["id"], signature) | {"session_token": secret}
    if as_json:
        print_json(session)
        return
    _show(session)
    console.print(f"\n[bold]session token[/] (shown once): {secret}", soft_wrap=True)


@app.command("list")
def list_sessions(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List all sessions, the newest first."""
    with connect(url, api_key) as client:
        sessions = client.sessions()
    if as_json:
        print_json(sessions)
        return
    table(
        ("", "ID", "AGENT", "LABEL", "REMAINING TODAY", "EXPIRES"),
        [
            (
                "● ACTIVE" if session["is_active"] else f"○ {session['status'].upper()}",
                session["id"],
                session["agent_id"],
                session["label"] or "",
                dollars(session["remaining_today"]),
                session["expires_at"],
            )
            for session in sessions
        ],
    )


@app.command()
def get(
    session_id: str, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Show one session."""
    with connect(url, api_key) as client:
        session = client.session(session_id)
    if as_json:
        print_json(session)
    else:
        _show(session)


@app.command()
def revoke(
    session_id: str,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """End a session for good."""
    if not yes:
        typer.confirm(f"Revoke {session_id}? This cannot be undone.", abort=True)
    with connect(url, api_key) as client:
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
        ("consent", session["consent"]),
        ("on-chain identity", session.get("pkp_address", "none")),
        ("expires", session["expires_at"]),
        ("per transaction", dollars(limits["max_per_transaction"])),
        ("per 24 hours", _left(session["remaining_today"], limits["max_per_day"])),
        ("per 7 days", _left(session["remaining_this_week"], limits["max_per_week"])),
        ("per 30 days", _left(session["remaining_this_month"], limits["max_per_month"])),
        ("approval above", dollars(limits["require_approval_above"])),
        ("merchants", ", ".join(session["allowed_merchants"] or ["any"])),
    ]
    table(("", ""), rows)


def _left(remaining: float | None, limit: float | None) -> str:
    if limit is None:
        return "unlimited"
    return f"{dollars(remaining)} left of {dollars(limit)}"


def _sign(key_file: Path, typed_data: dict[str, Any]) -> str:
    from eth_account import Account

    from engine.errors import InvalidInput

    try:
        account = Account.from_key(key_file.read_text().strip())
    except Exception:  # noqa: BLE001 (the cause could quote the key)
        raise InvalidInput("--owner-key-file", f"{key_file} does not hold a private key") from None
    signature = account.sign_typed_data(full_message=typed_data).signature
    return "0x" + bytes(signature).hex()
