"""`tallystick agent keys …`"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, Key, Url, as_operator
from tallystick.cli.output import console, minute, print_json, print_line, table
from tallystick.cli.prompts import confirmed, given_or_asked

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command()
def create(
    name: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    agent_id: Annotated[str | None, typer.Option(help="Whose software has it.")] = None,
    scopes: Annotated[
        str, typer.Option(help="What it opens, with commas between, such as read_only.")
    ] = "create_payments",
    rate_limit: Annotated[int, typer.Option(help="Requests in any hour.")] = 1000,
    allow_ip: Annotated[
        list[str] | None,
        typer.Option(help="An address or network it may be used from; may be repeated."),
    ] = None,
    expires_in: Annotated[
        int | None, typer.Option(help="Seconds that it is valid; without, until it is revoked.")
    ] = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a key for an agent's software, and show it once."""
    name = given_or_asked(name, "--name", "What the key is for")
    agent_id = given_or_asked(agent_id, "--agent-id", "Agent")
    with as_operator(url, api_key) as client:
        made = client.agent_keys.create(
            name,
            agent_id,
            scopes=[scope.strip() for scope in scopes.split(",")],
            rate_limit_per_hour=rate_limit,
            ip_allowlist=allow_ip or (),
            expires_in_seconds=expires_in,
            idempotency_key=key,
        )
    if as_json:
        print_json(made)
        return
    print_line(f"id   {made['id']}")
    print_line(f"key  {made['full_key']}")


@app.command("list")
def list_keys(
    agent_id: Annotated[str | None, typer.Option(help="Only of this agent.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List keys, the newest first, revoked ones too; at most a thousand."""
    with as_operator(url, api_key) as client:
        found = client.agent_keys.list(agent_id=agent_id)
    if as_json:
        print_json(found)
        return
    if not found:
        console.print("no keys yet")
        return
    table(
        ("STATE", "ID", "KEY", "NAME", "AGENT", "SCOPES", "PER HOUR", "REQUESTS", "LAST USED"),
        [
            (
                _state(each),
                each["id"],
                each["key_prefix"] + "…",
                each["name"],
                each["agent_id"],
                " ".join(each["scopes"]),
                str(each["rate_limit_per_hour"]),
                str(each["request_count"]),
                "never" if each["last_used_at"] is None else minute(each["last_used_at"]),
            )
            for each in found
        ],
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """End a key at once."""
    with as_operator(url, api_key) as client:
        confirmed(f"Revoke {key_id}? This cannot be undone.", yes=yes, as_json=as_json)
        client.agent_keys.revoke(key_id)
    if as_json:
        print_json({"id": key_id, "is_active": False})
    else:
        console.print(f"{key_id} is revoked", markup=False, soft_wrap=True)


def _state(key: Mapping[str, Any]) -> str:
    if key["is_active"]:
        return "● ACTIVE"
    return "○ EXPIRED" if key["revoked_at"] is None else "○ REVOKED"
