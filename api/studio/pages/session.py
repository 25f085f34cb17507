"""One session: its life, its limits, its payments and records; what may be done with it."""

import json
from typing import Any

from starlette.responses import Response

from api.rest.asked import payee, payment_request
from api.rest.explained import explained_json, simulated_json
from api.rest.schemas import CreatePayment
from api.rest.views import payment_json, time_text, usd
from api.studio.asked import Asked, PageView
from api.studio.charts import DAY_MS, begin_of, chart_of, step_of
from api.studio.forms import validated
from api.studio.gauges import WINDOWS
from api.studio.pages.sessions import budgets_above, session_row
from api.studio.paging import paged
from engine.audit.replay import LIVE_STATES
from engine.errors import NotFound
from engine.policy.decide import Left
from engine.sessions.inventory import Milestone, Told
from engine.sessions.session import SessionView

RECORDS = 25
PAYMENTS = 25
_LIFE = {
    "session.created": "created",
    "session.consented": "consented",
    "session.registered": "anchored on the chain",
    "session.paused": "paused",
    "session.resumed": "resumed",
    "session.restricted": "restricted",
    "session.revoked": "revoked",
    "session.expired": "expired",
    "approval.granted": "approved",
    "approval.denied": "approval denied",
    "paid": "first payment",
    "refused": "first refusal",
}


def one(asked: Asked) -> PageView:
    """Everything about it."""
    engine, who, session_id = asked.engine, asked.who, asked.path["session_id"]
    inventory = asked.studio.inventory
    used = inventory.one(who.workspace_id, session_id)
    view = used.view
    payments, total, payment_pages = paged(
        asked,
        lambda offset, limit: engine.payments.page(
            who.workspace_id, session_id=session_id, offset=offset, limit=limit
        ),
        PAYMENTS,
        "payments",
    )
    records, records_total, record_pages = paged(
        asked,
        lambda offset, limit: inventory.records(session_id, offset=offset, limit=limit),
        RECORDS,
        "records",
    )
    settlements = engine.settlements.of(payments)
    left = engine.ledger.left(session_id).result()
    anchored = engine.ready()["anchored"]
    limits = view.policy.limits
    data: dict[str, Any] = {
        "session": session_row(engine, used, left, budgets_above(asked, [view.agent_id])),
        "payments": [payment_json(each, settlement=settlements.get(each.id)) for each in payments],
        "payments_total": total,
        "payment_pages": payment_pages,
        "records": [_record(each, anchored) for each in records],
        "records_total": records_total,
        "record_pages": record_pages,
        "on_chain": [
            {
                "event": event.name,
                "block": event.block_number,
                "tx_hash": "0x" + event.tx_hash.hex(),
            }
            for event in inventory.on_chain(view)
        ],
        "chain": engine.deployment.chain,
        "registry": engine.deployment.registry,
        "life": _life(inventory.life(session_id, _LIFE), view.created_ms),
        "charts": _charts(asked, view, left),
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


def _charts(asked: Asked, view: SessionView, left: Left) -> list[dict[str, Any]]:
    """What each window with a limit held, from twice its length ago until now."""
    now_ms = asked.now_ms
    found = []
    for (name, window), days in zip(WINDOWS, (1, 7, 30), strict=True):
        limit, rest = getattr(view.policy.limits, name), getattr(left.remaining, name)
        if limit is None or rest is None:
            continue
        begin_ms = begin_of(days, view.created_ms, now_ms)
        spent = asked.studio.inventory.spent(
            view.id, begin_ms - days * DAY_MS, step_of(begin_ms, now_ms)
        )
        used = max(0, limit - rest)
        found.append(
            chart_of(window, days, spent, limit=limit, used=used, begin_ms=begin_ms, now_ms=now_ms)
        )
    return found


def _life(happened: list[Milestone], created_ms: int) -> list[dict[str, str]]:
    """What became of it, the first first; of payments only the first that was paid, and refused."""
    if not happened or happened[0].what != "session.created":
        happened = [Milestone("session.created", created_ms), *happened]
    return [{"what": _LIFE[each.what], "at": time_text(each.at_ms)} for each in happened]
