"""`tallystick approvals …`"""

from collections.abc import Mapping
from itertools import islice
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
from tallystick.cli.output import (
    DENIED_EXIT_CODE,
    console,
    dollars,
    failed,
    fields,
    minute,
    print_json,
    table,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

ApprovalId = Annotated[str, typer.Argument(help="The approval's id.")]


@app.command("list")
def list_approvals(
    session: Annotated[str | None, typer.Option(help="Only those of this session.")] = None,
    state: Annotated[
        str | None, typer.Option(help="waiting, granted, denied, expired or refused.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List approvals, the newest first."""
    with as_operator(url, api_key) as client:
        listed = client.each_approval(session_id=session, state=state)
        approvals = list(islice(listed, limit))
    if as_json:
        print_json(approvals)
        return
    if not approvals:
        console.print("no approvals yet")
        return
    table(
        ("STATE", "ID", "AMOUNT", "MERCHANT", "GRANTS", "EXPIRES"),
        [
            (
                approval["state"].upper(),
                approval["id"],
                dollars(approval["amount_usd"]),
                approval["merchant_id"] or "",
                _grants(approval),
                minute(approval["expires_at"]),
            )
            for approval in approvals
        ],
    )


@app.command()
def show(
    approval: ApprovalId,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    session_token: SessionToken = None,
    as_json: AsJson = False,
) -> None:
    """Show one approval; a session's token shows its own."""
    with as_party(url, api_key, session_token) as client:
        found = client.approval(approval)
    if as_json:
        print_json(found)
        return
    rows = [
        ("id", found["id"]),
        ("session", found["session_id"]),
        ("state", found["state"]),
        ("amount", dollars(found["amount_usd"])),
        ("merchant", found["merchant_id"] or "none"),
        ("token", found["payment_token"]),
        ("description", found["description"] or ""),
        ("digest", found["digest"]),
        ("grants", _grants(found)),
    ]
    rows += [
        ("granted by", f"{each['key_id']} at {each['granted_at']}{_unless_it_counts(each)}")
        for each in found["grants"]
    ]
    rows += [
        ("denied by", found["denied_by"] or "nobody"),
        ("reason", found["reason"] or found["code"] or ""),
        ("payment", found["payment_id"] or "none"),
        ("asked for", found["created_at"]),
        ("expires", found["expires_at"]),
        ("ended", found["ended_at"] or "not yet"),
    ]
    fields(rows)


@app.command()
def grant(
    approval: ApprovalId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> int:
    """Grant an approval; the last grant that is needed pays."""
    with as_operator(url, api_key) as client:
        found = client.grant_approval(approval)
    if found["state"] == "refused":
        return failed(
            str(found["code"]), f"{approval} is refused: nothing is paid", DENIED_EXIT_CODE
        )
    if as_json:
        print_json(found)
    elif found["state"] == "granted":
        console.print(f"{approval} is granted: {found['payment_id']}", soft_wrap=True)
    else:
        console.print(f"{approval} has {_grants(found)} grants", soft_wrap=True)
    return 0


@app.command()
def deny(
    approval: ApprovalId,
    reason: Annotated[str | None, typer.Option(help="Kept in the log.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Deny an approval."""
    with as_operator(url, api_key) as client:
        found = client.deny_approval(approval, reason)
    if as_json:
        print_json(found)
    else:
        console.print(f"{approval} is denied", soft_wrap=True)


def _grants(approval: Mapping[str, Any]) -> str:
    counting = sum(each["counts"] for each in approval["grants"])
    return f"{counting} of {approval['approvals_required']}"


def _unless_it_counts(grant: Mapping[str, Any]) -> str:
    return "" if grant["counts"] else ", does not count: the key is revoked"
