"""The tools that both ways in have: what a session may spend, and asking operators for more."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from api.mcp.answers import Approval, Budget, Inventory, InventorySession, Simulation, Windows
from api.mcp.arguments import (
    Nothing,
    PaymentOfSession,
    PaymentToApprove,
    WhichApproval,
    WhichSession,
)
from api.mcp.rest import OWN, SESSIONS, Refused, Rest, digits, dollars
from api.mcp.tool import Tool

_APPROVAL_REQUIRED = "APPROVAL_REQUIRED"
_WINDOWS = ("today", "this_week", "this_month")


def windows(body: Mapping[str, Any]) -> Windows:
    """What remains over the three windows, from any answer of the API that says so."""
    today, this_week, this_month = (dollars(body[f"remaining_{name}"]) for name in _WINDOWS)
    return {"today": today, "this_week": this_week, "this_month": this_month}


async def _inventory(rest: Rest, _asked: Nothing) -> Inventory:
    found = await rest.ask("GET", SESSIONS)
    return {
        "sessions": [_listed(session) for session in found.body],
        "total": int(found.headers["X-Total-Count"]),
    }


def _listed(session: Mapping[str, Any]) -> InventorySession:
    return {
        "session_id": session["id"],
        "parent_id": session["parent_id"],
        "label": session["label"],
        "agent_id": session["agent_id"],
        "status": session["status"],
        "is_active": session["is_active"],
        "remaining_limit": dollars(_least(session[f"remaining_{name}"] for name in _WINDOWS)),
        "remaining": windows(session),
        "expires_at": session["expires_at"],
    }


def _least(amounts: Iterable[int | Decimal | None]) -> int | Decimal | None:
    return min((amount for amount in amounts if amount is not None), default=None)


async def _budget(rest: Rest, asked: WhichSession) -> Budget:
    session = (await rest.ask("GET", f"{SESSIONS}/{asked.session_id}")).body
    limits: Any = {name: dollars(amount) for name, amount in session["limits"].items()}
    return {
        "session_id": session["id"],
        "label": session["label"],
        "status": session["status"],
        "is_active": session["is_active"],
        "expires_at": session["expires_at"],
        "limits": limits,
        "remaining": windows(session),
        "remaining_by_condition": [
            {
                "condition": cap["condition"],
                "remaining": digits(cap["remaining"]),
                "unit": cap["unit"],
            }
            for cap in session["remaining_by_condition"]
        ],
        "allowed_merchants": session["allowed_merchants"],
    }


async def _simulate(rest: Rest, asked: PaymentOfSession) -> Simulation:
    payment = asked.model_dump(exclude={"session_id"}, exclude_none=True)
    found = (await rest.ask("POST", f"{SESSIONS}/{asked.session_id}/simulate", payment)).body
    decision = found["decision"]
    return {
        "session_id": found["session_id"],
        "allowed": decision["allowed"],
        "code": decision["code"],
        "rule": decision["rule"],
        "reason": decision["reason"],
        "objections": [
            {"rule": rule["rule"], "code": rule["code"], "reason": rule["reason"]}
            for rule in found["rules"]
            if not rule["passes"]
        ],
        "limits": [
            {
                "name": limit["name"],
                "budget": limit["budget"],
                "unit": limit["unit"],
                "limit": digits(limit["limit"]),
                "used": digits(limit["used"]),
                "remaining": digits(limit["remaining"]),
            }
            for limit in found["limits"]
        ],
        "allowed_at": found["allowed_at"],
    }


async def _request_approval(rest: Rest, asked: PaymentToApprove) -> Approval:
    payment = asked.model_dump(exclude_none=True)
    found = (await rest.ask("POST", f"{SESSIONS}/{OWN}/simulate", payment)).body
    decision = found["decision"]
    if decision["allowed"]:
        raise Refused("approval_not_required", "the policy allows this payment as it is")
    if decision["code"] != _APPROVAL_REQUIRED:  # and no approval would help
        raise Refused(decision["code"], decision["reason"], rule=decision["rule"])
    try:
        made = await rest.ask(
            "POST", "/api/v1/payments", {**payment, "capture_method": "automatic"}
        )
    except Refused as denial:
        approval_id = denial.facts.get("approval_id")
        if approval_id is None:
            raise
        return await _approval(rest, approval_id)
    # Only if the threshold went up in between, which was the policy's to do.
    why = "the policy allowed the payment by the time it was asked for, and it is made"
    raise Refused("approval_not_required", why, payment_id=made.body["payment_id"])


async def _check_approval(rest: Rest, asked: WhichApproval) -> Approval:
    return await _approval(rest, asked.approval_id)


async def _approval(rest: Rest, approval_id: str) -> Approval:
    found = (await rest.ask("GET", f"/api/v1/approvals/{approval_id}")).body
    return {
        "approval_id": found["id"],
        "state": found["state"],
        "code": found["code"],
        "reason": found["reason"],
        "payment_id": found["payment_id"],
        "amount": digits(found["amount_usd"]),
        "merchant_id": found["merchant_id"],
        "description": found["description"],
        "grants": sum(each["counts"] for each in found["grants"]),
        "approvals_required": found["approvals_required"],
        "expires_at": found["expires_at"],
    }


SESSION_TOOLS = (
    Tool(
        name="check_session_inventory",
        title="Sessions and what remains of them",
        description=(
            "List the spending sessions that you may see, the newest first, with label, status, "
            "remaining limit and expiry. With a session's token: that session and those opened "
            "beneath it."
        ),
        arguments=Nothing,
        answer=Inventory,
        run=_inventory,
    ),
    Tool(
        name="check_budget",
        title="What may still be spent",
        description=(
            "Say what the limits and conditions of one session leave now. Budgets above the "
            "session are not in it: simulate_payment has those that bind a certain payment."
        ),
        arguments=WhichSession,
        answer=Budget,
        run=_budget,
    ),
    Tool(
        name="simulate_payment",
        title="Would a payment be allowed?",
        description=(
            "Say what would be decided on a payment now and why, every rule that is against it, "
            "and when it would be allowed. Nothing is paid, held or recorded."
        ),
        arguments=PaymentOfSession,
        answer=Simulation,
        run=_simulate,
    ),
    Tool(
        name="request_approval",
        title="Ask operators for a payment above the threshold",
        description=(
            "Ask people to approve a payment that only the session's approval threshold is "
            "against. Nothing is held meanwhile. Once they grant it, it is made: its amount is "
            "spent from the session's budget. Look with check_approval. A payment by x402 needs "
            "no request: the denial of pay_x402 names the approval that it waits for, and "
            "pay_x402 asked again after the grant pays."
        ),
        arguments=PaymentToApprove,
        answer=Approval,
        run=_request_approval,
        reads=False,
    ),
    Tool(
        name="check_approval",
        title="What became of an approval",
        description="Say whether an approval waits, and what became of the payment if not.",
        arguments=WhichApproval,
        answer=Approval,
        run=_check_approval,
    ),
)
