"""What people get to see of sessions: one of them, or a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from tallystick.cli.output import console, dollars, fields, minute, print_json, table


def print_state(session: Mapping[str, Any], as_json: bool) -> None:
    """In which state it is now."""
    if as_json:
        print_json(session)
    else:
        console.print(f"{session['id']} is {session['status']}", soft_wrap=True)


def print_selected(sessions: Sequence[Mapping[str, Any]]) -> None:
    """Those that a revocation of many would end."""
    if sessions:
        table(
            ("STATUS", "ID", "AGENT", "LABEL", "EXPIRES"),
            [
                (
                    each["status"].upper().replace("_", " "),
                    each["id"],
                    each["agent_id"],
                    each["label"] or "",
                    minute(each["expires_at"]),
                )
                for each in sessions
            ],
        )


def print_session(session: Mapping[str, Any]) -> None:
    """All that people ask about it."""
    limits = session["limits"]
    rows = [
        ("id", session["id"]),
        ("status", _status(session)),
        ("agent", session["agent_id"]),
        ("label", session["label"] or "none"),
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
        ("tokens", ", ".join(session["allowed_tokens"] or ["any"])),
        ("chains", ", ".join(session["allowed_chains"] or ["any"])),
    ]
    rows += [("condition", sentence) for sentence in session["conditions"]]
    rows += [("restriction", sentence) for sentence in session["restrictions"]]
    rows += [
        ("left", f"{_amount_left(left)} of {left['condition']}")
        for left in session["remaining_by_condition"]
    ]
    fields(rows)


def state_of(session: Mapping[str, Any]) -> str:
    """Its status, and whether it pays, for a column."""
    mark = "●" if session["is_active"] else "○"
    return f"{mark} {session['status'].upper().replace('_', ' ')}"


def _status(session: Mapping[str, Any]) -> str:
    until = session["resumes_at"]
    return str(session["status"]) if until is None else f"{session['status']} until {until}"


def _left(remaining: float | None, limit: float | None) -> str:
    if limit is None:
        return "unlimited"
    return f"{dollars(remaining)} left of {dollars(limit)}"


def _amount_left(left: Mapping[str, Any]) -> str:
    return str(left["remaining"]) if left["unit"] == "payments" else dollars(left["remaining"])
