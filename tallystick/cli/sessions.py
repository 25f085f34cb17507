"""`tallystick sessions …`"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from engine.errors import InvalidInput
from tallystick.cli.connection import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Key,
    SessionToken,
    Url,
    as_operator,
    as_party,
)
from tallystick.cli.output import console, dollars, minute, print_json, table
from tallystick.cli.prompts import confirmed, given_or_asked
from tallystick.cli.session_views import print_selected, print_session, print_state, state_of

if TYPE_CHECKING:
    from tallystick.client import Client
    from tallystick.fields import LimitFields, RevocationFields, SessionFields

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Sign = Callable[[dict[str, Any]], str]
"""Signs typed data."""
SessionId = Annotated[str, typer.Argument(help="The session's id.")]
Limit = Annotated[str | None, typer.Option(help="Dollars, or 'none' for unlimited.")]
Status = Annotated[str | None, typer.Option(help="Only in this state, such as 'active'.")]
Type = Annotated[Literal["agent", "app"] | None, typer.Option(help="Only of this type.")]
Agent = Annotated[str | None, typer.Option("--agent-id", help="Only of this agent.")]
Label = Annotated[str | None, typer.Option(help="Only with this label.")]
Duration = Annotated[
    str | None, typer.Option(help="Hours, at most 168; else 24, within those of its parent.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def create(
    agent_id: Annotated[str | None, typer.Option(help="The agent that will spend.")] = None,
    wallet: Annotated[str | None, typer.Option(help="The owner's wallet.")] = None,
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
    chain: Annotated[
        list[str] | None, typer.Option(help="An allowed chain (CAIP-2); may be repeated.")
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="What else bounds it: 'at most 10 payments per hour'; may be repeated."),
    ] = None,
    duration: Duration = None,
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
    key: Key = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Create a session and print its token, shown once."""
    if session_token is not None and not (api_key or parent):
        raise InvalidInput("--session-token", "is of use with --parent; a key creates all others")
    agent_id = given_or_asked(agent_id, "--agent-id", "Agent")
    wallet = given_or_asked(wallet, "--wallet", "The owner's wallet")
    limits = _given(
        max_per_transaction=max_per_transaction,
        max_per_day=max_per_day,
        max_per_week=max_per_week,
        max_per_month=max_per_month,
        require_approval_above=require_approval_above,
    )
    sign = None if owner_key_file is None else _signer(owner_key_file, wallet)
    wanted: SessionFields = {
        "agent_id": agent_id,
        "user_wallet": wallet,
        "limits": limits,
        "allowed_merchants": merchant or None,
        "allowed_tokens": token or None,
        "allowed_chains": chain or None,
        "conditions": condition or [],
        "label": label,
        "mint_pkp": mint_pkp or (None if parent else False),
        "await_consent": sign is not None,
    }
    if duration is not None:
        wanted["duration_hours"] = int(duration) if duration.isdecimal() else duration
    if approvals_required is not None:
        wanted["approvals_required"] = approvals_required
    with as_party(url, api_key, session_token if parent else None) as client:
        session = _created(client, parent, wanted, sign, key)
    _show_created(session, as_json=as_json)


def _show_created(session: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(session)
        return
    secret = session["session_token"]
    print_session(session)
    console.print(f"\n[bold]session token[/] (shown once): {secret}", soft_wrap=True)


@app.command("list")
def list_sessions(
    status: Status = None,
    type: Type = None,  # noqa: A002 (the option's name)
    agent_id: Agent = None,
    label: Label = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """List sessions, the newest first, at most a thousand.

    With a session token its own and those beneath it.
    """
    with as_party(url, api_key, session_token) as client:
        sessions = client.sessions(status=status, type=type, agent_id=agent_id, label=label)
    if as_json:
        print_json(sessions)
        return
    if not sessions:
        console.print("no sessions")
        return
    table(
        ("STATUS", "ID", "AGENT", "LABEL", "REMAINING TODAY", "EXPIRES"),
        [
            (
                state_of(session),
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
    session_id: SessionId,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Show one session; a session's token shows its own, `self`."""
    with as_party(url, api_key, session_token) as client:
        session = client.session(session_id)
    if as_json:
        print_json(session)
    else:
        print_session(session)


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
    """Narrow a live session by conditions, or lift them.

    They take the place of earlier ones.
    """
    if lift == bool(restriction):
        raise InvalidInput("--restriction", "give one or more, or --lift")
    with as_operator(url, api_key) as client:
        session = client.restrict_session(session_id, restriction or [])
    if as_json:
        print_json(session)
    else:
        print_session(session)


@app.command()
def pause(
    session_id: SessionId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Stop a session, and all beneath it, until it is resumed."""
    with as_operator(url, api_key) as client:
        session = client.pause_session(session_id)
    print_state(session, as_json)


@app.command()
def resume(
    session_id: SessionId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Let a paused session go on, and what was paused with it."""
    with as_operator(url, api_key) as client:
        session = client.resume_session(session_id)
    print_state(session, as_json)


@app.command()
def revoke(
    session_id: SessionId,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """End a session, and all beneath it, for good."""
    with as_operator(url, api_key) as client:
        confirmed(f"Revoke {session_id}? This cannot be undone.", yes=yes, as_json=as_json)
        client.revoke_session(session_id)
    if as_json:
        print_json({"id": session_id, "status": "revoked"})
    else:
        console.print(f"{session_id} is revoked", markup=False, soft_wrap=True)


@app.command("revoke-many")
def revoke_many(
    status: Status = None,
    type: Type = None,  # noqa: A002 (the option's name)
    agent_id: Agent = None,
    label: Label = None,
    chain: Annotated[
        str | None, typer.Option(help="Only those that may spend on this chain (CAIP-2).")
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="Only those with this in an id, a label or an agent's name.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every live session.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Only show which.")] = False,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """End all sessions that match for good.

    They are shown and counted first, and then all or none is ended. Needs a filter, or --all.
    """
    wanted: RevocationFields = {
        "status": status,
        "type": type,
        "agent_id": agent_id,
        "label": label,
        "chain": chain,
        "search": search,
    }
    if every and any(wanted.values()):
        raise InvalidInput("--all", "is every live session: no filter goes with it")
    if not every and not any(wanted.values()):
        raise InvalidInput("--all", "is needed without a filter: that is every live session")
    with as_operator(url, api_key) as client:
        found = client.preview_revocation(**wanted)
        if not as_json:
            print_selected(found["sessions"])
        if found["count"] and not preview:
            count = f"{found['count']} session{'s' if found['count'] > 1 else ''}"
            question = f"Revoke {count} and all beneath? This cannot be undone."
            confirmed(question, yes=yes, as_json=as_json)
            found = client.revoke_sessions(found["selection"], **wanted)
    if as_json:
        print_json(found)
    else:
        console.print(f"{found['count']} found, {found['revoked']} revoked")


def _given(**limits: str | None) -> "LimitFields":
    """Those that were named; `none` is no limit."""
    named = {name: value for name, value in limits.items() if value is not None}
    found = {name: None if value == "none" else value for name, value in named.items()}
    return cast("LimitFields", found)


def _created(
    client: "Client",
    parent: str | None,
    wanted: "SessionFields",
    sign: "Sign | None",
    key: str | None,
) -> Mapping[str, Any]:
    """A new session with its token, its grant signed by the owner if its key is here."""
    created = (
        client.create_session(idempotency_key=key, **wanted)
        if parent is None
        else client.create_child(parent, idempotency_key=key, **wanted)
    )
    if sign is None:
        return created
    if "typed_data" not in created:  # asked again with its key, after it was consented to
        return created
    signed = client.consent(created["id"], sign(created["typed_data"]))
    return {**signed, "session_token": created["session_token"]}


def _signer(key_file: Path, wallet: str) -> Sign:
    """What signs typed data with the key in a file; checked before a session is made for it.

    Raises:
        InvalidInput: no private key is there, or it is another wallet's.
    """
    from eth_account import Account

    option = "--owner-key-file"
    try:
        account = Account.from_key(key_file.read_text().strip())
    except OSError as error:
        raise InvalidInput(option, f"{key_file}: {error.strerror}") from error
    except Exception:  # noqa: BLE001 (the cause could quote the key)
        raise InvalidInput(option, f"{key_file} does not hold a private key") from None
    if account.address.lower() != wallet.lower():
        raise InvalidInput(option, f"{key_file} holds the key of {account.address}, not {wallet}")

    def sign(typed_data: Mapping[str, Any]) -> str:
        return "0x" + bytes(account.sign_typed_data(full_message=typed_data).signature).hex()

    return sign
