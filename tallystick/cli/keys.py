"""`tallystick keys …`: of operators."""

from typing import Annotated, Literal

import typer

from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, Key, Url, as_operator
from tallystick.cli.output import console, minute, print_json, print_line, table
from tallystick.cli.prompts import confirmed, given_or_asked

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

KeyId = Annotated[str, typer.Argument(help="The key's id.")]
AdminKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="TALLYSTICK_API_KEY", help="The admin's key."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_keys(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the keys of operators, the oldest first.

    Those of the workspace, revoked ones too.
    """
    with as_operator(url, api_key) as client:
        found = client.keys.list()
    if as_json:
        print_json(found)
        return
    table(
        ("STATE", "ID", "KEY", "NAME", "ROLE", "MADE"),
        [
            (
                "● ACTIVE" if each["is_active"] else "○ REVOKED",
                each["id"],
                each["key_prefix"] + "…",
                each["name"] or "",
                each["role"],
                minute(each["created_at"]),
            )
            for each in found
        ],
    )


@app.command()
def create(
    name: Annotated[str | None, typer.Option(help="Whose key it is.")] = None,
    mode: Annotated[
        Literal["test", "live"], typer.Option(help="What its prefix says; it may do the same.")
    ] = "test",
    workspace: Annotated[
        str | None, typer.Option(help="Of which workspace; without, the own one.")
    ] = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a key for one more operator.

    Of all operators only the admin can. The key is shown once.
    """
    name = given_or_asked(name, "--name", "Whose key it is")
    with as_operator(url, api_key) as client:
        made = client.keys.create(name, mode=mode, workspace_id=workspace, idempotency_key=key)
    if as_json:
        print_json(made)
        return
    print_line(f"id   {made['id']}")
    print_line(f"key  {made['full_key']}")


@app.command()
def rotate(
    key_id: KeyId,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Put a new key in the place of one.

    That is not valid any more then. The new one is shown once.
    """
    with as_operator(url, api_key) as client:
        confirmed(f"Rotate {key_id}? It is not valid any more then.", yes=yes, as_json=as_json)
        made = client.keys.rotate(key_id)
    if as_json:
        print_json(made)
        return
    print_line(f"id   {made['id']}")
    print_line(f"key  {made['full_key']}")


@app.command()
def revoke(
    key_id: KeyId,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """End an operator's key at once."""
    with as_operator(url, api_key) as client:
        confirmed(f"Revoke {key_id}? This cannot be undone.", yes=yes, as_json=as_json)
        client.keys.revoke(key_id)
    if as_json:
        print_json({"id": key_id, "is_active": False})
    else:
        console.print(f"{key_id} is revoked", markup=False, soft_wrap=True)
