"""Opening a session: what is asked for, the owner's passkey over its grant, and what its holder is
given.

The owner is the passkey of whoever opens it. It signs the digest of the grant, as `SessionRegistry`
takes it (docs/decisions/0017), so what the page shows, what is signed and what is enforced are one
object. Until then the session pays nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from api.rest.asked import new_session
from api.rest.schemas import CreateSession
from api.rest.views import session_json, time_text, usd
from api.studio import conditions, passkeys
from api.studio.asked import Asked, PageView
from api.studio.configuration import configuration, configuration_text, snippet
from api.studio.forms import lines, plain_dollars, shown, ticked, validated, whole
from api.studio.pages.session import replaced
from api.studio.pages.sessions import budgets_above
from engine.errors import Conflict, Forbidden, InvalidInput, Unauthenticated
from engine.policy.limits import DEFAULT_LIMITS
from engine.sessions.creation import DEFAULT_PERMISSIONS
from engine.sessions.rotation import obstacle
from engine.sessions.session import SessionView

REGISTRATION_WAIT_S = 3.0
"""How long a consent waits for the chain before it is answered."""
HOURS = 3_600_000
_LIMITS = (
    ("max_per_transaction", "per_transaction", "Per payment"),
    ("max_per_day", "per_day", "Per 24 hours"),
    ("max_per_week", "per_week", "Per 7 days"),
    ("max_per_month", "per_month", "Per 30 days"),
    ("require_approval_above", "approval_above", "Approval above"),
)
_TEXTS = ("label", "agent_id", "permissions", "merchants", "duration_hours")
_TITLES = {
    "agent_id": "Agent",
    "label": "Label",
    "duration_hours": "Hours until it expires",
    **{name: title for name, _, title in _LIMITS},
    "approvals_required": "Approvals needed",
    "chains": "Chains",
    "tokens": "Tokens",
    "permissions": "Permissions",
    "merchants": "Merchants",
    "rotates": "End the old one",
    **conditions.TITLES,
}
"""What people know the fields of the form by."""


def new(asked: Asked) -> PageView:
    """The form: empty, or filled as the session is whose place the new one takes."""
    if old_id := asked.query.get("replaces", ""):
        view = asked.engine.sessions.get(asked.who.workspace_id, old_id)
        _check_replaceable(view)
        return _form(asked, view.type, _given_by(view))
    kind = "app" if asked.query.get("type") == "app" else "agent"
    limits = {name: plain_dollars(getattr(DEFAULT_LIMITS, field)) for name, field, _ in _LIMITS}
    given: dict[str, Any] = {
        **dict.fromkeys(_TEXTS, ""),
        **limits,
        **conditions.fields_of(()),
        "agent_id": asked.query.get("agent", ""),
        "permissions": ", ".join(DEFAULT_PERMISSIONS),
        "duration_hours": "24",
        "approvals_required": "1",
        "chains": [],
        "tokens": [],
        "mint_pkp": True,
        "rotates": False,
        "replaces": "",
    }
    return _form(asked, kind, given)


def opened(asked: Asked) -> Response:
    """Make the session, which waits for consent from then on, and show its grant."""
    engine, who, form = asked.engine, asked.who, asked.form
    kind = "app" if form.get("type") == "app" else "agent"
    given: dict[str, Any] = {name: form.get(name, "") for name in _TEXTS}
    for name, _, _ in _LIMITS:
        if name not in form:  # an empty field is no limit, so one that got lost must not be
            raise InvalidInput(name, "is missing")
        given[name] = form[name]
    given.update(
        conditions.asked_for(form),
        approvals_required=form.get("approvals_required", ""),
        chains=ticked(form, "chain"),
        tokens=ticked(form, "token"),
        mint_pkp="mint_pkp" in form,
        replaces=form.get("replaces", ""),
        rotates="rotates" in form,
    )
    said: list[str] = []
    try:
        said = conditions.sentences(given)
        body = validated(CreateSession, _body(asked, kind, given, said))
        asked_for = new_session(
            engine,
            body,
            body.user_wallet,
            mint_pkp=body.mint_pkp,
            approvals_required=body.approvals_required,
            by=who.key_id,
        )
        rotated = given["replaces"] if given["rotates"] else None
        asked_for = replace(asked_for, rotates_id=rotated or None)
        view, token = engine.create_session(who.workspace_id, asked_for)
    except InvalidInput as error:
        page = _form(asked, kind, given)
        wrong = shown(conditions.told(error, said))
        field = wrong["field"].removeprefix("allowed_").partition("[")[0]
        page.data["wrong"] = {**wrong, "field": field}
        return asked.page(page, 422)
    return asked.page(_consent_page(asked, view, token))


def consent(asked: Asked) -> PageView:
    """A grant that waits for its owner's passkey."""
    view = asked.engine.sessions.get(asked.who.workspace_id, asked.path["session_id"])
    return _consent_page(asked, view, None)


def consented(asked: Asked) -> Response:
    """The owner's passkey has signed it: the session is registered, and its holder is provided."""
    engine, who, session_id = asked.engine, asked.who, asked.path["session_id"]
    view = engine.sessions.get(who.workspace_id, session_id)
    token = asked.form.get("token") or None
    if token is not None and engine.access.session_holder(token).session_id != session_id:
        raise Forbidden("the token is another session's", code="invalid_session_token")
    digest = view.grant.digest(engine.sessions.domain)
    people, given = asked.studio.people, asked.form.get("answer", "")
    answer = passkeys.answered(asked.place, digest, who.key_id, given, people)
    if passkeys.owner(answer.credential) != view.grant.owner:
        raise Unauthenticated("the owner is another passkey", code="passkey_refused")
    view = engine.consent(
        who.workspace_id,
        session_id,
        passkeys.owner_signature(answer),
        kind="passkey",
        wait_s=REGISTRATION_WAIT_S,
        by=who.key_id,
    )
    # Not on the record once more: the session's own has the assertion.
    people.prove(who, answer.credential, answer.sign_count, digest.hex(), view.expires_ms)
    if token is None:
        return asked.see(f"/sessions/{session_id}")
    return asked.page(_provisioned(asked, view, token))


def download(asked: Asked) -> Response:
    """The configuration as a file; with the token only where the form brings it."""
    engine, session_id = asked.engine, asked.path["session_id"]
    view = engine.sessions.get(asked.who.workspace_id, session_id)
    token = asked.form.get("token") if asked.request.method == "POST" else None
    if token is not None and engine.access.session_holder(token).session_id != session_id:
        raise Forbidden("the token is another session's", code="invalid_session_token")
    made = configuration(engine, view, asked.place.origin, token)
    return Response(
        configuration_text(made) + "\n",
        media_type="application/json",
        headers={
            "content-disposition": f'attachment; filename="wallet-{session_id}.json"',
            "content-security-policy": "default-src 'none'; sandbox",
        },
    )


def _form(asked: Asked, kind: str, given: Mapping[str, Any]) -> PageView:
    engine = asked.engine
    networks = dict.fromkeys((engine.deployment.chain, *engine.networks.gateways))
    tokens = {each.asset: each.symbol for each in engine.deployment.tokens}
    agents = engine.agents.list(asked.who.workspace_id)
    data = {
        "type": kind,
        "given": dict(given),
        "limits": [name for name, _, _ in _LIMITS],
        "titles": {**_TITLES, "agent_id": "Agent" if kind == "agent" else "Application"},
        # What a session that is replaced has, and this server does not know, stays in the form.
        "chains": list(dict.fromkeys((*networks, *given["chains"]))),
        "tokens": {**dict.fromkeys(given["tokens"]), **tokens},
        "agents": [{"id": each.id, "name": each.name} for each in agents],
        "replaced": _old(asked, given["replaces"]),
        "wrong": None,
    }
    return PageView("new_session.html", f"New {kind} session", data)


def _old(asked: Asked, session_id: str) -> dict[str, Any] | None:
    """The session whose place is taken, and why that cannot be in one transaction, if so."""
    if not session_id:
        return None
    old = asked.engine.sessions.get(asked.who.workspace_id, session_id)
    why = obstacle(old, _owner(asked), signs=True)
    return {"id": old.id, "label": old.label or old.agent_id, "obstacle": why}


def _body(asked: Asked, kind: str, given: Mapping[str, Any], said: Sequence[str]) -> dict[str, Any]:
    """The form as the body of a request."""
    agent_id, old_id = given["agent_id"].strip(), given["replaces"]
    agents = {each.id: each for each in asked.engine.agents.list(asked.who.workspace_id)}
    if kind == "agent" and agent_id not in agents:
        raise InvalidInput("agent_id", "is no registered agent")
    metadata: dict[str, str] = {}
    if old_id:
        _check_replaceable(asked.engine.sessions.get(asked.who.workspace_id, old_id))
        metadata["replaces"] = old_id
    known = agents.get(agent_id)
    return {
        "type": kind,
        "agent_id": agent_id,
        "agent_name": known and known.name,
        "label": given["label"].strip() or None,
        "user_wallet": _owner(asked),
        "limits": {name: given[name].strip() or None for name, _, _ in _LIMITS},
        "allowed_merchants": lines(given["merchants"]) or None,
        "allowed_tokens": given["tokens"] or None,
        "allowed_chains": given["chains"] or None,
        "permissions": [p for p in given["permissions"].replace(",", " ").split() if p] or None,
        "conditions": list(said),
        "duration_hours": given["duration_hours"].strip(),
        "approvals_required": whole(given, "approvals_required") or 1,
        "await_consent": True,
        "mint_pkp": given["mint_pkp"],
        "metadata": metadata,
    }


def _owner(asked: Asked) -> str:
    """The address of the passkey of whoever asks."""
    mine = asked.studio.people.passkeys(asked.who.key_id)
    if not mine:
        raise Conflict("you have no passkey that could consent", code="no_passkey")
    return passkeys.owner(mine[0])


def _consent_page(asked: Asked, view: SessionView, token: str | None) -> PageView:
    if view.state != "awaiting_consent":
        raise Conflict(f"the session is {view.state}", code="consent_not_awaited")
    engine, grant = asked.engine, view.grant
    mine = asked.studio.people.passkeys(asked.who.key_id)
    owners = [each.id for each in mine if passkeys.owner(each) == grant.owner]
    digest = grant.digest(engine.sessions.domain)
    data = {
        "session_id": view.id,
        "rotates": _rotated(asked, view),
        "label": view.label,
        "type": view.type,
        "mint_pkp": view.mint_pkp,
        "grant": {
            **grant.to_json(),
            "limits": [
                {"title": title, "usd": usd(getattr(grant.limits, field))}
                for _, field, title in _LIMITS
            ],
            "valid_from": time_text(grant.valid_from_s * 1000),
            "valid_until": time_text(grant.valid_until_s * 1000),
        },
        "budgets": list(budgets_above(asked, [view.agent_id]).values()),
        "chain": engine.deployment.chain,
        "registry": engine.deployment.registry,
        "digest": "0x" + digest.hex(),
        "mine": bool(owners),
        "options": passkeys.request_options(asked.place, digest, owners) if owners else None,
    }
    page = PageView("consent.html", f"Sign the grant of {view.label or view.agent_id}", data)
    page.private["token"] = token
    return page


def _provisioned(asked: Asked, view: SessionView, token: str) -> PageView:
    left = asked.engine.ledger.left(view.id).result()
    made = configuration(asked.engine, view, asked.place.origin, token)
    data: dict[str, Any] = {"session": session_json(asked.engine, view, left)}
    page = PageView("provisioned.html", f"{view.label or view.agent_id} is signed", data)
    page.private.update(
        token=token,
        configuration=configuration_text(made),
        snippet=snippet(view),
        environment=f"TALLYSTICK_URL={made['url']}\nTALLYSTICK_SESSION_TOKEN={token}",
        replaced=replaced(asked, view),
    )
    return page


def _rotated(asked: Asked, view: SessionView) -> dict[str, Any] | None:
    """The session that the registration of this one revokes."""
    if view.rotates_id is None:
        return None
    old = asked.engine.sessions.get(view.workspace_id, view.rotates_id)
    return {"id": old.id, "label": old.label or old.agent_id}


def _check_replaceable(view: SessionView) -> None:
    if view.parent_id is not None:
        raise Conflict(
            "what is delegated is replaced by whoever holds the session above it",
            code="session_delegated",
        )


def _given_by(view: SessionView) -> dict[str, Any]:
    """The form as it would have to be filled for this session, as it is bound now: what it was
    restricted to, and what its limits were lowered to, stays so."""
    grant, limits = view.grant, view.policy.limits
    lasts_ms = view.expires_ms - view.created_ms
    return {
        "label": view.label or "",
        "agent_id": view.agent_id,
        "permissions": ", ".join(grant.permissions),
        "merchants": "\n".join(grant.merchants),
        **conditions.fields_of(tuple(dict.fromkeys((*grant.conditions, *view.restrictions)))),
        "duration_hours": str(max(1, round(lasts_ms / HOURS))),
        **{name: plain_dollars(getattr(limits, field)) for name, field, _ in _LIMITS},
        "approvals_required": str(view.approvals_required),
        "chains": list(grant.chains),
        "tokens": list(grant.tokens),
        "mint_pkp": view.mint_pkp,
        "replaces": view.id,
        "rotates": False,
    }
