"""Challenges for passkeys (WebAuthn): each is a hash of exactly what an answer to it consents to.

Nothing is kept while one is open: the page carries its nonce, its end and a seal of ours, and what
comes back with the answer must give the same challenge again. That it is answered once is written
down by `engine.workspaces.people`.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.audit.canonical import encode
from engine.errors import Unauthenticated

TTL_MS = 5 * 60_000
_DOMAIN = b"tallystick/studio/challenge/1\n"


@dataclass(frozen=True, slots=True)
class Challenge:
    """32 bytes to sign. `act` says what is consented to and `key_id` who may, None: whoever."""

    act: Mapping[str, str]
    key_id: str | None
    nonce: str
    expires_ms: int

    @property
    def told(self) -> dict[str, Any]:
        """Everything that the answer consents to."""
        return {
            "act": dict(self.act),
            "key_id": self.key_id,
            "nonce": self.nonce,
            "expires_ms": self.expires_ms,
        }

    @property
    def raw(self) -> bytes:
        """What the passkey signs."""
        return hashlib.sha256(_DOMAIN + encode(self.told)).digest()


class Challenges:
    """Makes and recognises challenges, with a `key` of 32 bytes that every process has."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, act: Mapping[str, str], key_id: str | None, now_ms: int) -> Challenge:
        """A fresh one."""
        return Challenge(act, key_id, secrets.token_hex(16), now_ms + TTL_MS)

    def fields(self, challenge: Challenge) -> dict[str, str]:
        """What the form carries beside the act."""
        return {
            "nonce": challenge.nonce,
            "expires_ms": str(challenge.expires_ms),
            "seal": self._seal(challenge),
        }

    def recognised(
        self, act: Mapping[str, str], key_id: str | None, form: Mapping[str, str], now_ms: int
    ) -> Challenge:
        """The challenge that a form answers, if it was made here for this act and this person.

        Raises:
            Unauthenticated: it was not, or it is over.
        """
        expires = form.get("expires_ms", "")
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 15):
            raise _not_ours()
        challenge = Challenge(act, key_id, form.get("nonce", ""), int(expires))
        if not hmac.compare_digest(self._seal(challenge).encode(), form.get("seal", "").encode()):
            raise _not_ours()
        if now_ms >= challenge.expires_ms:
            raise Unauthenticated("it took too long; try again", code="challenge_expired")
        return challenge

    def _seal(self, challenge: Challenge) -> str:
        return hmac.new(self._key, challenge.raw, hashlib.sha256).hexdigest()


def _not_ours() -> Unauthenticated:
    return Unauthenticated("this was not asked for here, or not so", code="challenge_unknown")
