"""`tallystick agent …`: its sessions, the keys of its software, what it spent."""

from typing import Annotated

import typer

from tallystick.cli import agent_keys, sessions
from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, Url, as_operator
from tallystick.cli.output import console, dollars, fields, print_json, table

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.add_typer(sessions.app, name="sessions", help="The same as `tallystick sessions`.")
app.add_typer(agent_keys.app, name="keys", help="Make, list and revoke keys of agents' software.")


@app.command()
def analytics(
    days: Annotated[int, typer.Option(help="Of so many days, with today (UTC); at most 90.")] = 30,
    agent_id: Annotated[str | None, typer.Option(help="Only of this agent.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show what agents paid, by token and by day.

    Days on which nothing was paid are in --json alone.
    """
    with as_operator(url, api_key) as client:
        found = client.agent_analytics(days=days, agent_id=agent_id)
    if as_json:
        print_json(found)
        return
    rows = [
        ("payments", str(found["total_payments"])),
        ("volume", dollars(found["total_volume_usd"])),
        ("average payment", dollars(found["average_payment_usd"])),
        ("success rate", f"{found['success_rate']:.1%}"),
        ("active sessions", str(found["active_sessions"])),
    ]
    rows += [(name, str(count)) for name, count in found["payments_by_token"].items()]
    fields(rows)
    if by_day := [each for each in found["payments_by_day"] if each["count"]]:
        console.print()
        table(
            ("DATE", "PAYMENTS", "VOLUME"),
            [(each["date"], str(each["count"]), dollars(each["volume_usd"])) for each in by_day],
        )
