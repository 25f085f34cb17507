"""`tallystick explain` and `backtest`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from engine.errors import InvalidInput
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

if TYPE_CHECKING:
    from tallystick.client import Client

DIFFERS_EXIT_CODE = 1
_SPANS = {
    3_600_000: "1 hour",
    86_400_000: "24 hours",
    604_800_000: "7 days",
    2_592_000_000: "30 days",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(explain)
    app.command()(backtest)


def explain(
    payment: Annotated[str, typer.Argument(help="The payment's id.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Say why a payment was decided as it was.

    It is decided again from the records before it. Exit status: 1 if it comes out differently.
    """
    with as_party(url, api_key, session_token) as client:
        found = client.explanation(payment)
    if as_json:
        print_json(found)
    else:
        _print_explanation(found)
    if not found["matches"]:
        raise typer.Exit(DIFFERS_EXIT_CODE)


def backtest(
    policy: Annotated[
        Path,
        typer.Option(help="A JSON file: limits, lists, conditions; what it leaves out stays."),
    ],
    session: Annotated[str | None, typer.Option(help="On the log of this session.")] = None,
    every: Annotated[bool, typer.Option("--all", help="On the logs of all sessions.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Try a draft of a policy on the real log.

    It names what would have been decided otherwise. A payment that both allow is captured as it
    was. One that only the draft allows counts as captured in full, one that it denies for nothing;
    what budgets above the session would say to it is not known. Differences are in the order in
    which the payments were asked for.
    """
    if (session is None) != every:
        raise InvalidInput("--session", "name one session, or --all of them")
    draft = _draft(policy)
    with as_operator(url, api_key) as client:
        found = [
            client.backtest(session_id, draft)
            for session_id in (_sessions(client) if session is None else [session])
        ]
    if not as_json:
        _print_backtest(found)
    elif every:
        first = next(iter(_in_time(found)), None)
        print_json({"first_difference": first, "sessions": found})
    else:
        print_json(found[0])


def _draft(file: Path) -> Mapping[str, Any]:
    """A draft as it is written in a file; amounts keep their digits.

    Raises:
        InvalidInput: it cannot be read, or is no JSON object.
    """
    try:
        draft = json.loads(file.read_text(encoding="utf-8"), parse_float=str, parse_constant=str)
    except OSError as error:
        raise InvalidInput("--policy", f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("--policy", f"{file}: is not JSON: {error}") from error
    if not isinstance(draft, dict):
        raise InvalidInput("--policy", f"{file}: is not a JSON object")
    return draft


def _sessions(client: "Client") -> Iterator[str]:
    """All sessions; each once, also when new ones push others to the next page."""
    seen: set[str] = set()
    for page in count(1):
        found = [session["id"] for session in client.sessions(page=page)]
        yield from (session_id for session_id in found if session_id not in seen)
        seen.update(found)
        if not found:
            return


def _print_explanation(found: Mapping[str, Any]) -> None:
    recorded, again = found["recorded"], found["decision"]
    if found["matches"]:
        said = "the same, byte for byte, from the records before it"
    else:
        console.print(f"[bold white on red] DIFFERS [/] {escape(found['differs'])}", soft_wrap=True)
        said = "DIFFERS: " + ("nothing" if again is None else _outcome(again))
    colour = "green" if recorded["allowed"] else "red"
    console.print(f"[bold {colour}]{recorded['code']}[/] {escape(recorded['reason'])}")
    payee = f" to {found['merchant_id']}" if found["merchant_id"] else ""
    rows = [
        ("payment", found["payment_id"]),
        ("session", found["session_id"]),
        ("asked", f"{dollars(found['amount_usd'])}{payee} at {found['created_at']}"),
        ("decided by", recorded["rule"]),
        ("again", said),
    ]
    if not recorded["allowed"] and found["allowed_at"]:
        rows.append(("allowed from", f"{found['allowed_at']}, had nothing else happened"))
    fields(rows)
    _print_rules(found["rules"])
    _print_limits(found["limits"])


def _print_rules(rules: Sequence[Mapping[str, Any]]) -> None:
    if not rules:
        return
    console.print()
    passing = [rule["rule"] for rule in rules if rule["passes"]]
    against = [(f"✗ {rule['rule']}", rule["reason"]) for rule in rules if not rule["passes"]]
    fields([*against, ("✓ passed", ", ".join(passing) or "none")])


def _print_limits(limits: Sequence[Mapping[str, Any]]) -> None:
    if not limits:
        return
    console.print()
    rows = []
    for limit in limits:
        shown = str if limit["unit"] == "payments" else dollars
        name = limit["name"] if limit["budget"] is None else f"{limit['budget']} {limit['name']}"
        amounts = [shown(limit[part]) for part in ("used", "remaining", "limit")]
        rows.append((name, _SPANS.get(limit["window_ms"], "ever"), *amounts))
    table(("LIMIT", "IN", "USED", "LEFT", "OF"), rows)


def _print_backtest(found: Sequence[Mapping[str, Any]]) -> None:
    differences = _in_time(found)
    decisions = sum(each["decisions"] for each in found)
    for name in ("recorded", "drafted"):
        allowed = sum(each[name]["allowed"] for each in found)
        amount = sum(Decimal(str(each[name]["amount_usd"])) for each in found)
        console.print(f"{name:8}  {allowed} of {decisions} allowed, {dollars(Decimal(amount))}")
    if any(each["budgets_above_unknown"] for each in found):
        console.print(
            "What only the draft allows is counted without budgets above the sessions: "
            "of agents, of the workspace, of sessions that delegate.",
            soft_wrap=True,
        )
    if not differences:
        console.print("no differences")
        return
    number = f"{len(differences)} differences" if differences[1:] else "1 difference"
    console.print(f"{number}, the first is {differences[0]['payment_id']}\n")
    table(
        ("PAYMENT", "AMOUNT", "RECORDED", "DRAFTED", "MADE"),
        [
            (
                difference["payment_id"],
                dollars(difference["amount_usd"]),
                *(_outcome(difference[by]) for by in ("recorded", "drafted")),
                minute(difference["created_at"]),
            )
            for difference in differences
        ],
    )


def _in_time(found: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The differences of all sessions, the first that was asked for first."""
    differences = (difference for each in found for difference in each["differences"])
    return sorted(differences, key=lambda difference: difference["created_at"])


def _outcome(outcome: Mapping[str, Any]) -> str:
    return f"{outcome['code']} ({outcome['rule']})"
