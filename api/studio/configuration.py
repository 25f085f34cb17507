"""What the software that holds a session needs: a file to keep, and lines to begin with."""

from typing import Any

from api.rest.views import time_text, usd
from engine.engine import Engine
from engine.sessions.session import SessionView

VERSION = 1


def configuration(engine: Engine, view: SessionView, url: str, token: str | None) -> dict[str, Any]:
    """A session as an agent's wallet is configured with it. Without a `token` it has to be given
    one: it was shown when the session was made."""
    grant, limits = view.grant, view.grant.limits
    return {
        "version": VERSION,
        "url": url,
        "session_id": view.id,
        "session_token": token,
        "type": view.type,
        "label": view.label,
        "agent_id": view.agent_id,
        "agent_name": view.agent_name,
        "chain": engine.deployment.chain,
        "registry": engine.deployment.registry,
        "address": view.pkp_address,
        "grant_hash": "0x" + view.grant_hash.hex(),
        "limits": {
            "max_per_transaction": usd(limits.per_transaction),
            "max_per_day": usd(limits.per_day),
            "max_per_week": usd(limits.per_week),
            "max_per_month": usd(limits.per_month),
            "require_approval_above": usd(limits.approval_above),
        },
        "permissions": list(grant.permissions),
        "allowed_merchants": list(grant.merchants) or None,
        "allowed_tokens": list(grant.tokens) or None,
        "allowed_chains": list(grant.chains) or None,
        "conditions": list(grant.conditions),
        "expires_at": time_text(view.expires_ms),
    }


def snippet(view: SessionView) -> str:
    """The first payment, in Python. Nothing of it is what somebody named: it is code."""
    merchant = '"books"' if not view.grant.merchants else 'session["allowed_merchants"][0]'
    return f"""import json
import tallystick

with open("wallet-{view.id}.json") as file:
    session = json.load(file)
with tallystick.Client(session["url"], session_token=session["session_token"]) as client:
    payment = client.pay("1.00", merchant={merchant})
    print(payment["id"], payment["remaining_today"])
"""
