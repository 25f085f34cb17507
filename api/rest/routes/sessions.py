"""Sessions: create, consent, list, get, revoke, evidence."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from api.rest.auth import EngineOf, OperatorOf
from api.rest.exact_json import ExactJsonRoute, dumps
from api.rest.schemas import METADATA_BYTES_MAX, Consent, CreateSession
from api.rest.views import session_json
from engine.engine import Engine
from engine.errors import InvalidInput
from engine.policy.identifiers import IdentifierError, normalise_asset
from engine.policy.limits import Limits
from engine.sessions.lifecycle import NewSession, SessionView

REGISTRATION_WAIT_S = 10.0
"""How long a create request waits for the chain before it answers with a pending session."""

router = APIRouter(route_class=ExactJsonRoute, tags=["sessions"])


@router.post("", status_code=201, summary="Create a session")
def create(body: CreateSession, engine: EngineOf, caller: OperatorOf) -> dict[str, Any]:
    """The token in the answer is not shown again."""
    view, secret = engine.create_session(
        caller.workspace_id, _new_session(engine, body), wait_s=REGISTRATION_WAIT_S
    )
    return session_json(engine, view, engine.remaining(view), secret=secret)


@router.get("", summary="List sessions, the newest first")
def list_sessions(engine: EngineOf, caller: OperatorOf) -> list[dict[str, Any]]:
    """Sessions in every state, those that ended too."""
    views = engine.sessions.list(caller.workspace_id)
    remaining = [engine.ledger.remaining(view.id) for view in views]
    return [
        session_json(engine, view, left.result())
        for view, left in zip(views, remaining, strict=True)
    ]


@router.get("/{session_id}", summary="One session")
def get(session_id: str, engine: EngineOf, caller: OperatorOf) -> dict[str, Any]:
    """With what is left of its limits at this moment."""
    return _shown(engine, engine.sessions.get(caller.workspace_id, session_id))


@router.post("/{session_id}/consent", summary="The owner's signature over the grant")
def consent(session_id: str, body: Consent, engine: EngineOf, caller: OperatorOf) -> dict[str, Any]:
    """The signature is over the `typed_data` of the created session (EIP-712)."""
    signature = bytes.fromhex(body.owner_signature[2:])
    return _shown(
        engine,
        engine.consent(caller.workspace_id, session_id, signature, wait_s=REGISTRATION_WAIT_S),
    )


@router.post("/{session_id}/revoke", summary="End a session for good")
def revoke(session_id: str, engine: EngineOf, caller: OperatorOf) -> dict[str, Any]:
    """In force when this answers; the chain is told in the background."""
    engine.revoke_session(caller.workspace_id, session_id, by=caller.key_id)
    return {"success": True}


@router.get("/{session_id}/evidence", summary="The evidence file", response_class=Response)
async def evidence(session_id: str, engine: EngineOf, caller: OperatorOf) -> Response:
    """What `tallystick verify` checks; the bytes matter, so save them as they are."""
    file = await run_in_threadpool(engine.evidence, caller.workspace_id, session_id)
    return Response(
        file,
        media_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="evidence-{session_id}.json"'},
    )


def _shown(engine: Engine, view: SessionView) -> dict[str, Any]:
    return session_json(engine, view, engine.remaining(view))


def _new_session(engine: Engine, body: CreateSession) -> NewSession:
    wallet = body.user_wallet
    metadata = dumps(body.metadata or {})
    if len(metadata.encode()) > METADATA_BYTES_MAX:
        raise InvalidInput("metadata", f"is longer than {METADATA_BYTES_MAX} bytes")
    limits = body.limits
    return NewSession(
        type=body.type,
        label=body.label,
        agent_id=body.agent_id,
        agent_name=body.agent_name,
        user_wallet=wallet,
        owner=wallet.lower() if wallet[:2] in ("0x", "0X") else None,
        limits=Limits(
            per_transaction=limits.max_per_transaction,
            per_day=limits.max_per_day,
            per_week=limits.max_per_week,
            per_month=limits.max_per_month,
            approval_above=limits.require_approval_above,
        ),
        permissions=tuple(dict.fromkeys(body.permissions or ())),
        merchants=tuple(dict.fromkeys(body.allowed_merchants or ())),
        tokens=tuple(dict.fromkeys(_asset(engine, name) for name in body.allowed_tokens or ())),
        chains=tuple(dict.fromkeys(body.allowed_chains or ())),
        duration_ms=body.duration_hours,
        mint_pkp=body.mint_pkp,
        await_consent=body.await_consent,
        metadata_json=metadata,
    )


def _asset(engine: Engine, name: str) -> str:
    """A token by its symbol on the main chain, or by its CAIP-19 id."""
    if (token := engine.token(name.upper(), None)) is not None:
        return token.asset
    try:
        return normalise_asset(name)
    except IdentifierError as error:
        raise InvalidInput(
            "allowed_tokens", f"{name!r} is no configured symbol, and {error}"
        ) from error
