"""The tables of people who sign in to the Studio: their passkeys, and who is signed in.

A person is an operator without a key that opens REST: a row of `api_keys` whose secret is the
token with which the first passkey is set up.
"""

from sqlalchemy import LargeBinary

from engine.db.columns import Row
from engine.db.columns import big as _big
from engine.db.columns import key as _key
from engine.db.columns import raw as _bytes
from engine.db.columns import text as _text


class Passkey(Row, table=True):
    """A credential of WebAuthn. `id` is the credential's, in base64url, and `public_key` a
    COSE_Key; `sign_count` is what its authenticator said last."""

    __tablename__ = "passkeys"
    workspace_id: str = _text()
    id: str = _key()
    key_id: str = _text()
    public_key: bytes = _bytes()
    backup_eligible: bool
    sign_count: int = _big()
    created_ms: int = _big()


class SignIn(Row, table=True):
    """A browser that is signed in, by the hash of its cookie."""

    __tablename__ = "sign_ins"
    key_id: str = _key()
    secret_hash: bytes = _key(LargeBinary)
    created_ms: int = _big()
    seen_ms: int = _big()


class SpentChallenge(Row, table=True):
    """A challenge that was answered, kept until it would be over: it is not answered again."""

    __tablename__ = "spent_challenges"
    key_id: str = _key()
    challenge: str = _key()
    expires_ms: int = _big()
