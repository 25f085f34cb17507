"""A passkey as a browser has one: WebAuthn assertions over a challenge, with P-256."""

import hashlib
from base64 import urlsafe_b64encode

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tests.contracts.deployed import assertion

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
USER_PRESENT_AND_VERIFIED = b"\x05"


class Passkey:
    """The key with this number, of an authenticator that asked for its user."""

    def __init__(self, number: int) -> None:
        self._key = ec.derive_private_key(number, ec.SECP256R1())
        numbers = self._key.public_key().public_numbers()
        self.x, self.y = numbers.x, numbers.y

    def sign(self, challenge: bytes) -> bytes:
        """What the registry takes as this passkey's signature over a digest (WebAuthn §6.3.3)."""
        encoded = urlsafe_b64encode(challenge).rstrip(b"=").decode()
        client_data = (
            f'{{"type":"webauthn.get","challenge":"{encoded}",'
            '"origin":"http://localhost","crossOrigin":false}'
        )
        authenticator_data = (
            hashlib.sha256(b"localhost").digest() + USER_PRESENT_AND_VERIFIED + bytes(4)
        )
        r, s = self.raw(authenticator_data, client_data.encode())
        indexes = client_data.index('"challenge"'), client_data.index('"type"')
        parts = (r.to_bytes(32), s.to_bytes(32), *indexes, authenticator_data, client_data)
        return assertion(self.x, self.y, parts)

    def raw(self, authenticator_data: bytes, client_data: bytes) -> tuple[int, int]:
        """The bare signature of an assertion, with low s."""
        signed = authenticator_data + hashlib.sha256(client_data).digest()
        r, s = decode_dss_signature(
            self._key.sign(signed, ec.ECDSA(SHA256(), deterministic_signing=True))
        )
        return r, min(s, ORDER - s)  # authenticators do not care, the registry does
