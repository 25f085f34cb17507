"""Passkeys (WebAuthn Level 3): what browsers are asked, and whether what they answer is right.

Only ES256 and only with user verification. The library checks the signature, the challenge, the
origin, the RP ID, the flags and the counter; what it leaves out is checked here: that the page was
in no frame of another origin, whose credential it is, the user handle, and that the eligibility for
backup is what it was. It is imported when the first answer comes: that takes a fifth of a second.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, NamedTuple, NoReturn

from api.studio.challenges import TTL_MS
from api.studio.place import Place
from engine.audit.consent import passkey_owner
from engine.errors import Unauthenticated
from engine.workspaces.people import Assertion, Credential, People, Person

ANSWER_CHARACTERS_MAX = 16_384
_ES256 = -7
"""Of the IANA registry of COSE algorithms."""
_P256 = 1
"""Of that of COSE elliptic curves."""
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NAME = "Tallystick"
_ID = re.compile("[A-Za-z0-9_-]{1,1364}")
"""A credential's id: at most 1023 bytes (WebAuthn, section 4), in base64url."""
_WRONG = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
"""What reading an answer comes upon that is none, beside what the library says of it."""


class Answer(NamedTuple):
    """An assertion that is right: by which passkey, and what its counter says now."""

    credential: Credential
    sign_count: int
    assertion: Assertion


def creation_options(place: Place, person: Person, challenge: bytes) -> str:
    """What `PublicKeyCredential.parseCreationOptionsFromJSON` takes (WebAuthn, section 5.1.9)."""
    name = person.name or person.key_id
    options = {
        "rp": {"id": place.rp_id, "name": _NAME},
        "user": {"id": encoded(person.key_id.encode()), "name": name, "displayName": name},
        "challenge": encoded(challenge),
        "pubKeyCredParams": [{"type": "public-key", "alg": _ES256}],
        "timeout": TTL_MS,
        "authenticatorSelection": {
            "residentKey": "required",
            "requireResidentKey": True,
            "userVerification": "required",
        },
        "attestation": "none",
    }
    return json.dumps(options)


def request_options(place: Place, challenge: bytes, credential_ids: list[str]) -> str:
    """What `parseRequestOptionsFromJSON` takes; without ids any passkey may answer."""
    options = {
        "challenge": encoded(challenge),
        "rpId": place.rp_id,
        "timeout": TTL_MS,
        "userVerification": "required",
        "allowCredentials": [{"type": "public-key", "id": each} for each in credential_ids],
    }
    return json.dumps(options)


def created(place: Place, challenge: bytes, answer: str) -> Credential:
    """The passkey that a browser made.

    Raises:
        Unauthenticated: it is not what was asked for.
    """
    from webauthn import verify_registration_response
    from webauthn.helpers.cose import COSEAlgorithmIdentifier
    from webauthn.helpers.exceptions import WebAuthnException
    from webauthn.helpers.structs import CredentialDeviceType

    given = _read(answer)
    try:
        _check_frame(given)
        found = verify_registration_response(
            credential=given,
            expected_challenge=challenge,
            expected_rp_id=place.rp_id,
            expected_origin=place.origin,
            require_user_verification=True,
            supported_pub_key_algs=[COSEAlgorithmIdentifier(_ES256)],
        )
        _check_point(found.credential_public_key)
    except (WebAuthnException, *_WRONG) as error:
        _refuse(error)
    return Credential(
        id=encoded(found.credential_id),
        key_id="",
        public_key=found.credential_public_key,
        backup_eligible=found.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
        sign_count=found.sign_count,
    )


def answered(
    place: Place, challenge: bytes, key_id: str | None, answer: str, people: People
) -> Answer:
    """Who answered a challenge, which is not spent by this. `key_id` None: anybody may.

    Raises:
        Unauthenticated: the answer is not right, or not of the person who was asked.
    """
    from webauthn import verify_authentication_response
    from webauthn.helpers.exceptions import WebAuthnException

    given = _read(answer)
    credential = people.credential(_id(given))
    if credential is None:
        raise Unauthenticated("nobody here has this passkey", code="passkey_refused")
    if key_id not in (None, credential.key_id):
        raise Unauthenticated("it is somebody else's passkey", code="passkey_refused")
    try:
        _check_frame(given)
        _check_same(given["response"], credential)
        found = verify_authentication_response(
            credential=given,
            expected_challenge=challenge,
            expected_rp_id=place.rp_id,
            expected_origin=place.origin,
            credential_public_key=credential.public_key,
            credential_current_sign_count=credential.sign_count,
            require_user_verification=True,
        )
        response = given["response"]
        assertion = Assertion(
            client_data=decoded(response["clientDataJSON"]).decode(),
            authenticator_data=decoded(response["authenticatorData"]),
            signature=decoded(response["signature"]),
        )
    except (WebAuthnException, *_WRONG) as error:
        _refuse(error)
    return Answer(credential, found.new_sign_count, assertion)


def credential_id(answer: str) -> str | None:
    """Which passkey an answer says to be of; None if it is no answer."""
    try:
        return _id(_read(answer))
    except Unauthenticated:
        return None


def owner(credential: Credential) -> str:
    """The lower-case address that stands for a passkey where it consents to grants."""
    return passkey_owner(*point(credential.public_key))


def owner_signature(answer: Answer) -> bytes:
    """What `SessionRegistry` takes as consent: the point and the assertion, with low s.

    Raises:
        Unauthenticated: the browser did not write its client data as WebAuthn says (5.8.1.1).
    """
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from eth_abi.abi import encode

    told = answer.assertion
    client_data = told.client_data.encode()
    if b'"challenge":"' not in client_data or b'"type":"webauthn.get"' not in client_data:
        raise Unauthenticated("the registry could not read this answer", code="passkey_refused")
    r, s = decode_dss_signature(told.signature)
    parts = (
        r.to_bytes(32),
        min(s, _P256_ORDER - s).to_bytes(32),
        client_data.index(b'"challenge"'),
        client_data.index(b'"type"'),
        told.authenticator_data,
        told.client_data,
    )
    types = ("bytes32", "bytes32", "uint256", "uint256", "bytes", "string")
    return b"".join(point(answer.credential.public_key)) + encode(types, parts)


def encoded(raw: bytes) -> str:
    """Base64url without padding (RFC 4648, section 5)."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The inverse, with or without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def point(public_key: bytes) -> tuple[bytes, bytes]:
    """The coordinates of a key of ours, a COSE_Key (RFC 9053, section 7.1.1); 32 bytes each.

    Raises:
        ValueError: it is a key of another kind, which is never set up.
    """
    from webauthn.helpers import decode_credential_public_key
    from webauthn.helpers.decode_credential_public_key import DecodedEC2PublicKey

    key = decode_credential_public_key(public_key)
    if not isinstance(key, DecodedEC2PublicKey) or key.crv != _P256:
        raise ValueError("it is no key of P-256")
    return key.x, key.y


def _read(answer: str) -> dict[str, Any]:
    try:
        given = json.loads(answer[: ANSWER_CHARACTERS_MAX + 1])
    except (ValueError, RecursionError) as error:
        _refuse(error)
    if not isinstance(given, dict) or not isinstance(given.get("response"), dict):
        raise Unauthenticated("that is no answer of a passkey", code="passkey_refused")
    return given


def _id(given: dict[str, Any]) -> str:
    found = given.get("id")
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise Unauthenticated("that is no answer of a passkey", code="passkey_refused")
    return found


def _check_point(public_key: bytes) -> None:
    """It can be verified with, and its owner has an address."""
    from cryptography.hazmat.primitives.asymmetric import ec

    x, y = point(public_key)
    if (len(x), len(y)) != (32, 32):
        raise ValueError("its coordinates have not 32 bytes each")
    ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()).public_key()


def _check_frame(given: dict[str, Any]) -> None:
    data = json.loads(decoded(given["response"]["clientDataJSON"]))
    if data.get("crossOrigin", False) is not False or "topOrigin" in data:
        raise ValueError("it was asked for in a frame of another page")


def _check_same(response: dict[str, Any], credential: Credential) -> None:
    from webauthn.helpers import parse_authenticator_data

    handle = response.get("userHandle")
    if handle is not None and decoded(handle) != credential.key_id.encode():
        raise ValueError("the user handle is another person's")
    data = parse_authenticator_data(decoded(response["authenticatorData"]))
    if data.flags.be != credential.backup_eligible:
        raise ValueError("whether it can be backed up is not as it was")


def _refuse(error: Exception) -> NoReturn:
    raise Unauthenticated(
        f"the passkey's answer is not right: {error}", code="passkey_refused"
    ) from error
