"""`tallystick budgets …`"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, Url, as_operator
from tallystick.cli.output import console, dollars, minute, print_json, table

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Agent = Annotated[
    str | None, typer.Option("--agent", help="A registered agent; without one, the workspace.")
]
Limit = Annotated[str | None, typer.Option(help="Dollars.")]
Count = Annotated[int | None, typer.Option(help="A number of payments.")]

_COLUMNS = {
    "max_payments_per_hour": "payments per hour",
    "max_payments_per_day": "payments per 24 hours",
    "max_per_day": "per 24 hours",
    "max_per_week": "per 7 days",
    "max_per_month": "per 30 days",
    "max_lifetime": "ever",
}


@app.command("set")
def set_budget(
    agent: Agent = None,
    max_payments_per_hour: Count = None,
    max_payments_per_day: Count = None,
    max_per_day: Limit = None,
    max_per_week: Limit = None,
    max_per_month: Limit = None,
    max_lifetime: Limit = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Limit all sessions of an agent or the workspace together."""
    with as_operator(url, api_key) as client:
        budget = client.set_budget(
            agent,
            max_payments_per_hour=max_payments_per_hour,
            max_payments_per_day=max_payments_per_day,
            max_per_day=max_per_day,
            max_per_week=max_per_week,
            max_per_month=max_per_month,
            max_lifetime=max_lifetime,
        )
    if as_json:
        print_json(budget)
    else:
        console.print(f"{budget['id']}: {_limits(budget)}", markup=False, soft_wrap=True)


@app.command("list")
def list_budgets(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the budgets that there are, and what is used of them."""
    with as_operator(url, api_key) as client:
        budgets = client.budgets()
    if as_json:
        print_json(budgets)
        return
    if not budgets:
        console.print("no budgets yet")
        return
    table(
        ("BUDGET", "USED AND LIMITS", "SINCE"),
        [(budget["id"], _limits(budget), minute(budget["updated_at"])) for budget in budgets],
    )


@app.command()
def clear(
    agent: Agent = None, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Lift a budget."""
    with as_operator(url, api_key) as client:
        client.clear_budget(agent)
    if as_json:
        print_json({"agent_id": agent, "limits": None})
        return
    whose = "the workspace" if agent is None else f"agent {agent}"
    console.print(f"the budget of {whose} is lifted", markup=False)


def _limits(budget: Mapping[str, Any]) -> str:
    used = budget.get("used") or {}
    told = []
    for name, limit in budget["limits"].items():
        if limit is not None:
            shown = str if name.startswith("max_payments") else dollars
            some = used.get(name.removeprefix("max_"))
            told.append(
                f"{'?' if some is None else shown(some)} of {shown(limit)} {_COLUMNS[name]}"
            )
    return ", ".join(told)
