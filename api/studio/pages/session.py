"""One session: its life, its limits, its payments and records; what may be done with it."""

import json
from typing import Any

from starlette.responses import Response

from api.rest.asked import payee, payment_request
from api.rest.explained import explained_json, simulated_json
from api.rest.schemas import CreatePayment
from api.rest.views import payment_json, time_text, usd
from api.studio.asked import Asked, PageView
from api.studio.charts import chart_of
from api.studio.forms import validated
from api.studio.pages.sessions import WINDOWS, session_row
from engine.audit.replay import LIVE_STATES
from engine.errors import NotFound
from engine.sessions.inventory import Told
from engine.sessions.session import SessionView

RECORDS = 50
PAYMENTS = 200
_LIFE = {
    "session.created": "created",
    "session.consented": "consented",
    "session.registered": "anchored on the chain",
    "session.paused": "paused",
    "session.resumed": "resumed",
    "session.revoked": "revoked",
    "session.expired": "expired",
    "approval.granted": "approved",
    "approval.denied": "approval denied",
}


def one(asked: Asked) -> PageView:
    """Everything about it."""
    engine, who, session_id = asked.engine, asked.who, asked.path["session_id"]
    used = asked.studio.inventory.one(who.workspace_id, session_id)
    view = used.view
    payments, total = engine.payments.page(
        who.workspace_id, session_id=session_id, offset=0, limit=PAYMENTS
    )
    settlements = engine.settlements.of(payments)
    shown = session_row(engine, used, engine.ledger.left(session_id).result())
    anchored = engine.ready()["anchored"]
    records = asked.studio.inventory.records(session_id, RECORDS)
    limits = view.policy.limits
    spent = [
        (each.decided_ms, each.captured if each.state == "captured" else each.amount)
        for each in payments
        if each.state in ("held", "captured")
    ]
    data: dict[str, Any] = {
        "session": shown,
        "payments": [
            payment_json(each, settlement=settlements.get(each.id)) for each in payments[:25]
        ],
        "payments_total": total,
        "records": [_record(each, anchored) for each in records],
        "on_chain": [
            {
                "event": event.name,
                "block": event.block_number,
                "tx_hash": "0x" + event.tx_hash.hex(),
            }
            for event in asked.studio.inventory.on_chain(view)
        ],
        "chain": engine.deployment.chain,
        "registry": engine.deployment.registry,
        "life": _life(records, shown["created_at"]),
        "charts": [
            chart_of(window, days, spent, limit, view.created_ms, engine.clock())
            for (name, window), days in zip(WINDOWS, (1, 7, 30), strict=True)
            if (limit := getattr(limits, name)) is not None
        ],
        "replaces": replaced(asked, view),
        "rotation": _rotation(asked, view),
        "per_transaction_usd": usd(limits.per_transaction),
        "approval_above_usd": usd(limits.approval_above),
    }
    return PageView("session.html", view.label or view.agent_id, data)


def explained(asked: Asked) -> PageView:
    """Why a payment was decided as it was; its records are replayed for it."""
    engine, who, path = asked.engine, asked.who, asked.path
    payment = engine.payments.get(who.workspace_id, path["payment_id"])
    if payment.session_id != path["session_id"]:
        raise NotFound("no such payment", code="payment_not_found")
    settlement = engine.settlements.of([payment]).get(payment.id)
    data = {
        "payment": payment_json(payment, settlement=settlement),
        "why": explained_json(payment, engine.explanations.explain(payment)),
    }
    return PageView("payment.html", "A decision", data)


def tried(asked: Asked) -> PageView:
    """What would be decided on a payment now; nothing is held or recorded."""
    engine, session_id = asked.engine, asked.path["session_id"]
    view = engine.sessions.get(asked.who.workspace_id, session_id)
    given = {name: asked.query.get(name, "") for name in ("amount", "merchant_id", "token")}
    result = None
    if given["amount"]:
        said = {name: value for name, value in given.items() if value}
        body = validated(CreatePayment, said)
        request = payment_request(engine, body, payee(body))
        found = engine.ledger.simulate(session_id, request).result()
        result = simulated_json(session_id, found)
    data = {
        "session_id": session_id,
        "label": view.label or view.agent_id,
        "asked_for": given,
        "result": result,
    }
    return PageView("try.html", "Try a payment", data)


def pause(asked: Asked) -> Response:
    """Stop it for a while."""
    session_id, who = asked.path["session_id"], asked.who
    asked.engine.sessions.pause(who.workspace_id, session_id, by=who.key_id)
    return asked.see(f"/sessions/{session_id}")


def resume(asked: Asked) -> Response:
    """Let it go on, which raises authority: by passkey."""
    session_id, who = asked.path["session_id"], asked.who
    asked.check_proof({"act": "resume", "session": session_id})
    asked.engine.sessions.resume(who.workspace_id, session_id, by=who.key_id)
    return asked.see(f"/sessions/{session_id}")


def revoke(asked: Asked) -> Response:
    """End it for good."""
    session_id, who = asked.path["session_id"], asked.who
    asked.engine.revoke_session(who.workspace_id, session_id, by=who.key_id)
    return asked.see(f"/sessions/{session_id}")


def evidence(asked: Asked) -> Response:
    """The file, to be kept and not to be opened here."""
    session_id = asked.path["session_id"]
    return Response(
        asked.engine.evidence(asked.who.workspace_id, session_id),
        media_type="application/json",
        headers={
            "content-disposition": f'attachment; filename="evidence-{session_id}.json"',
            "content-security-policy": "default-src 'none'; sandbox",
        },
    )


def replaced(asked: Asked, view: SessionView) -> dict[str, Any] | None:
    """The session whose place this one takes, which its metadata names. One that it `rotates` ends
    in the transaction that registers this one."""
    named = json.loads(view.metadata_json).get("replaces")
    if not isinstance(named, str):
        return None
    try:
        found = asked.engine.sessions.get(view.workspace_id, named)
    except NotFound:  # metadata is whatever its maker says
        return None
    live = found.state in LIVE_STATES and asked.now_ms < found.expires_ms
    rotates = found.id == view.rotates_id
    return {**_named(found), "live": live, "rotates": rotates}


def _rotation(asked: Asked, view: SessionView) -> dict[str, Any]:
    """The sessions on both sides of it, as the chain links them; None: there was no rotation."""
    sides = asked.studio.inventory.rotated(view)
    names = ("from", "to")
    return {name: each and _named(each) for name, each in zip(names, sides, strict=True)}


def _named(view: SessionView) -> dict[str, str]:
    return {"id": view.id, "label": view.label or view.agent_id}


def _record(told: Told, anchored: int) -> dict[str, Any]:
    record, leaf = told.record, told.leaf
    proof = "pending" if leaf is None else "anchored" if leaf < anchored else "in the log"
    body = record.body
    about = body.get("payment") or body.get("approval") or body.get("by") or ""
    return {
        "seq": record.seq,
        "kind": record.kind,
        "time": time_text(record.time_ms),
        "leaf": leaf,
        "proof": proof,
        "about": str(about),
    }


def _life(records: list[Told], created_at: str) -> list[dict[str, str]]:
    """What became of it, the first first; of payments only the first that was paid, and refused."""
    found: list[dict[str, str]] = []
    seen: set[str] = set()
    for told in reversed(records):
        record = told.record
        name = _LIFE.get(record.kind)
        if record.kind == "payment.decided":
            allowed = record.body["decision"]["allowed"]
            name = "first payment" if allowed else "first refusal"
            if name in seen:
                continue
        if name is not None:
            seen.add(name)
            found.append({"what": name, "at": time_text(record.time_ms)})
    if "created" not in seen:
        found.insert(0, {"what": "created", "at": created_at})
    return found
