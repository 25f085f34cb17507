"""A new session: its identity, its grant, its rows and its first record."""

from dataclasses import dataclass, field

from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from engine.audit.canonical import encode
from engine.audit.rest import rest_hash
from engine.db.tables import Session, SessionKey, table
from engine.grant import ZERO_ADDRESS, Grant
from engine.identifiers import Identifiers, secret_hash
from engine.ledger.batch import Batch
from engine.ledger.stream import Stream
from engine.sessions.session import DURATION_MS, NewSession
from engine.sessions.vault import Vault
from engine.workspaces.access import SESSION_TOKEN_PREFIX

DEFAULT_PERMISSIONS = ("pay",)

_sessions = table(Session)
_session_keys = table(SessionKey)


@dataclass(frozen=True, slots=True)
class Identity:
    """What is drawn for a session before anything is written. `token` is its holder's secret."""

    session_id: str
    token: str = field(repr=False)
    public_key: bytes
    """64 bytes: x ‖ y."""
    address: str
    sealed_key: bytes
    salt: bytes


def draw_identity(identifiers: Identifiers, vault: Vault) -> Identity:
    """A new id, token and key pair; the private key leaves this function sealed."""
    secret = identifiers.random_bytes(32)
    public_key = PrivateKey(secret).public_key
    session_id = identifiers.new("sess")
    return Identity(
        session_id=session_id,
        token=identifiers.secret(SESSION_TOKEN_PREFIX),
        public_key=public_key.to_bytes(),
        address=public_key.to_address(),
        sealed_key=vault.seal(secret, session_id),
        salt=identifiers.random_bytes(32),
    )


def make_grant(
    new: NewSession,
    identity: Identity,
    *,
    workspace_id: str,
    audit_log: bytes,
    parent: bytes,
    now_ms: int,
) -> Grant:
    """The parameters of a session that begins at `now_ms`; it lasts to the end of a second."""
    duration_ms = DURATION_MS if new.duration_ms is None else new.duration_ms
    return Grant(
        owner=new.owner or ZERO_ADDRESS,
        session_key=identity.address,
        audit_log=audit_log,
        parent=parent,
        workspace=workspace_id,
        agent_id=new.agent_id,
        permissions=new.permissions or DEFAULT_PERMISSIONS,
        merchants=new.merchants,
        tokens=new.tokens,
        chains=new.chains,
        limits=new.limits,
        conditions=new.conditions,
        valid_from_s=now_ms // 1000,
        valid_until_s=-(-(now_ms + duration_ms) // 1000),
        salt=identity.salt,
    )


def write_session(
    batch: Batch,
    new: NewSession,
    identity: Identity,
    grant: Grant,
    *,
    state: str,
) -> None:
    """Insert the session, its sealed key and its first record.

    A child whose owner is not asked has the authority of its parent: its consent is `delegated`.
    """
    consent = "none" if new.parent_id is None or new.await_consent else "delegated"
    token_hash = secret_hash(identity.token)
    stream = Stream(grant.workspace, identity.session_id, new.type, new.label)
    batch.insert(
        _sessions,
        {
            "workspace_id": stream.workspace_id,
            "id": stream.id,
            "parent_id": new.parent_id,
            "rotates_id": new.rotates_id,
            "type": new.type,
            "label": new.label,
            "agent_id": new.agent_id,
            "agent_name": new.agent_name,
            "user_wallet": new.user_wallet,
            "metadata_json": new.metadata_json,
            "state": state,
            "paused_by": None,
            "consent": consent,
            "grant_json": encode(grant.to_json()).decode(),
            "grant_hash": grant.hash(),
            "restrictions_json": "[]",
            "restrictions_above_json": "{}",
            "lowered_json": "[]",
            "policy_version": 1,
            "approvals_required": new.approvals_required or 1,
            "owner_signature": None,
            "public_key": b"\x04" + identity.public_key,
            "token_id": keccak(identity.public_key),
            "mint_pkp": new.mint_pkp,
            "secret_hash": token_hash,
            "created_ms": batch.now_ms,
            "expires_ms": grant.valid_until_s * 1000,
            "ended_ms": None,
        },
    )
    key = {"address": identity.address, "sealed": identity.sealed_key}
    batch.insert(_session_keys, {**stream.columns(), "session_id": stream.id, **key})
    batch.record(
        stream,
        "session.created",
        {
            "type": new.type,
            "label": new.label,
            "user_wallet": new.user_wallet,
            "grant": grant.to_json(),
            "grant_hash": grant.hash().hex(),
            "mint_pkp": new.mint_pkp,
            "parent_id": new.parent_id,
            "approvals_required": new.approvals_required or 1,
            "consent": consent,
            "state": state,
            "by": new.by,
            "rest_hash": rest_hash(
                agent_name=new.agent_name,
                metadata_json=new.metadata_json,
                secret_hash=token_hash,
            ),
            "sealed_key_hash": rest_hash(sealed=identity.sealed_key),
            **({} if new.rotates_id is None else {"rotates": new.rotates_id}),
        },
    )
