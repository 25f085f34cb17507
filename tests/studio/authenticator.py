"""An authenticator in software: ES256 passkeys that can be made to answer wrongly."""

import hashlib
import json
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from webauthn.helpers import bytes_to_base64url

ORIGIN = "http://localhost:8402"
UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40


class Authenticator:
    """One passkey of one person."""

    def __init__(self, name: str, *, backed_up: bool = False) -> None:
        self.raw_id = hashlib.sha256(name.encode()).digest()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.handle = b""
        self.count = 0
        self.flags = UP | UV | (BE | BS if backed_up else 0)

    @property
    def public_key(self) -> bytes:
        """As a COSE_Key (RFC 9053, section 7.1.1)."""
        at = self.key.public_key().public_numbers()
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: at.x.to_bytes(32), -3: at.y.to_bytes(32)})

    def create(
        self,
        options: dict[str, Any],
        *,
        client: dict[str, Any] | None = None,
        public_key: bytes | None = None,
        flags: int | None = None,
        rp_id: str = "localhost",
    ) -> dict[str, Any]:
        """What `navigator.credentials.create` gives, or what is like it but for one thing."""
        told = _client_data("webauthn.create", options["challenge"], client)
        attested = bytes(16) + len(self.raw_id).to_bytes(2) + self.raw_id
        data = _authenticator_data(rp_id, (flags or self.flags) | AT, self.count)
        data += attested + (public_key or self.public_key)
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        return self._credential(
            {
                "clientDataJSON": bytes_to_base64url(told),
                "attestationObject": bytes_to_base64url(attestation),
            }
        )

    def get(
        self,
        challenge: str,
        *,
        client: dict[str, Any] | None = None,
        rp_id: str = "localhost",
        flags: int | None = None,
        count: int | None = None,
        handle: bytes | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        extra: bytes = b"",
    ) -> dict[str, Any]:
        """What `navigator.credentials.get` gives, or what is like it but for one thing."""
        self.count += 1
        told = _client_data("webauthn.get", challenge, client)
        data = _authenticator_data(
            rp_id,
            self.flags if flags is None else flags,
            self.count if count is None else count,
        )
        signed = data + hashlib.sha256(told).digest() + extra
        signature = (key or self.key).sign(signed, ec.ECDSA(SHA256()))
        return self._credential(
            {
                "clientDataJSON": bytes_to_base64url(told),
                "authenticatorData": bytes_to_base64url(data),
                "signature": bytes_to_base64url(signature),
                "userHandle": bytes_to_base64url(self.handle if handle is None else handle),
            }
        )

    def _credential(self, response: dict[str, str]) -> dict[str, Any]:
        name = bytes_to_base64url(self.raw_id)
        return {"id": name, "rawId": name, "type": "public-key", "response": response}


def _client_data(kind: str, challenge: str, changes: dict[str, Any] | None = None) -> bytes:
    told = {"type": kind, "challenge": challenge, "origin": ORIGIN, "crossOrigin": False}
    # As browsers do, whose bytes the registry compares (WebAuthn, section 5.8.1.1).
    return json.dumps({**told, **(changes or {})}, separators=(",", ":")).encode()


def _authenticator_data(rp_id: str, flags: int, count: int) -> bytes:
    return hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + count.to_bytes(4)
