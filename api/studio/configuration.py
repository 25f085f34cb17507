"""What the software that holds a session needs: a file to keep, and lines to begin with."""

import json
from typing import Any

from api.rest.views import time_text, usd
from engine.engine import Engine
from engine.policy.money import plain_decimals
from engine.sessions.session import SessionView

VERSION = 1
_HOUR_MS = 3_600_000


def configuration(engine: Engine, view: SessionView, url: str, token: str | None) -> dict[str, Any]:
    """A session as `tallystick.Wallet.from_configuration` takes it: `session` is what another like
    it is opened with. Without a `token` it has to be given one: it was shown when the session was
    made. `identity` is what the chain has of it."""
    grant, limits = view.grant, view.grant.limits
    hours = (view.expires_ms - view.created_ms) / _HOUR_MS
    return {
        "version": VERSION,
        "url": url,
        "session_id": view.id,
        "session_token": token,
        "expires_at": time_text(view.expires_ms),
        "session": {
            "agent_id": view.agent_id,
            "agent_name": view.agent_name,
            "user_wallet": view.user_wallet,
            "label": view.label,
            "type": view.type,
            "limits": {
                "max_per_transaction": usd(limits.per_transaction),
                "max_per_day": usd(limits.per_day),
                "max_per_week": usd(limits.per_week),
                "max_per_month": usd(limits.per_month),
                "require_approval_above": usd(limits.approval_above),
            },
            "allowed_merchants": list(grant.merchants) or None,
            "allowed_tokens": list(grant.tokens) or None,
            "allowed_chains": list(grant.chains) or None,
            "conditions": list(grant.conditions),
            "approvals_required": view.approvals_required,
            "mint_pkp": view.mint_pkp,
            "metadata": json.loads(view.metadata_json),
            "permissions": list(grant.permissions),
            "duration_hours": f"{max(hours, 0.01):.2f}",
        },
        "restrictions": list(view.restrictions),
        "identity": {
            "chain": engine.deployment.chain,
            "registry": engine.deployment.registry,
            "address": view.pkp_address,
            "grant_hash": "0x" + view.grant_hash.hex(),
        },
    }


def configuration_text(made: dict[str, Any]) -> str:
    """A configuration as it is kept: JSON, its amounts without exponents."""
    return plain_decimals(json.dumps(made, indent=2))


def snippet(view: SessionView) -> str:
    """The first payment, in Python. Nothing of it is what somebody named: it is code."""
    merchant = (
        '"books"' if not view.grant.merchants else 'wallet["session"]["allowed_merchants"][0]'
    )
    return f"""import json
import tallystick

with open("wallet-{view.id}.json") as file:
    wallet = json.load(file)
with tallystick.Client(wallet["url"], session_token=wallet["session_token"]) as client:
    payment = client.pay("1.00", merchant={merchant})
    print(payment["id"], payment["remaining_today"])
"""
