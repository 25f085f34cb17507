"""A session that takes the place of another on the chain, in one transaction: `SessionRegistry`
registers the one and revokes the other (docs/decisions/0018).
"""

from engine.db.database import Read
from engine.errors import InvalidInput
from engine.sessions.chain_facts import chain_facts
from engine.sessions.session import NewSession, SessionView

_ROTATABLE = ("active", "paused")


def obstacle(old: SessionView, owner: str, *, signs: bool) -> str | None:
    """Why a session of `owner` cannot take the place of `old` in one transaction; None: it can.

    `signs` says whether the owner signs the new grant. The registry refuses what this does.
    """
    if old.state not in _ROTATABLE:
        return f"it is {old.state.replace('_', ' ')}"
    if old.parent_id is not None:
        return "it is delegated"
    if not old.mint_pkp:
        return "it has no identity on the chain"
    if old.grant.owner != owner:
        return f"one owner has both, and the signature of {old.grant.owner} would be missing"
    if old.consent != "none" and not signs:
        return "its owner signed it, and has to sign the new one, too"
    return None


def check_rotation(old: SessionView, new: NewSession, owner: str) -> None:
    """A new session may take the place of `old`.

    Raises:
        InvalidInput: it cannot be registered so.
    """
    why = obstacle(old, owner, signs=new.await_consent)
    if why is None and (not new.mint_pkp or new.parent_id is not None):
        why = "the new one needs an identity on the chain, too, and nothing above it"
    if why is not None:
        raise InvalidInput("rotates", f"cannot be rotated on the chain: {why}")


def may_rotate_now(read: Read, old: SessionView) -> bool:
    """Whether a session is there on the chain to be revoked: it may have ended meanwhile."""
    facts = chain_facts(read, old.token_id)
    there = facts.registration is not None and facts.revocation is None
    return there and old.state in _ROTATABLE
