"""Passkeys (WebAuthn Level 3): what browsers are asked, and whether what they answer is right.

Only ES256 and only with user verification. The library checks the signature, the challenge, the
origin, the RP ID, the flags and the counter; what it leaves out is checked here: that the page was
in no frame of another origin, whose credential it is, the user handle, and that the eligibility for
backup is what it was.
"""

import json
from typing import Any, NamedTuple, NoReturn

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, parse_authenticator_data
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from api.studio.challenges import TTL_MS, Challenge
from api.studio.place import Place
from engine.errors import Unauthenticated
from engine.workspaces.people import Credential, People, Person

ANSWER_CHARACTERS_MAX = 16_384
_ES256 = [COSEAlgorithmIdentifier.ECDSA_SHA_256]
_NAME = "Tallystick"


class Answer(NamedTuple):
    """An assertion that is right: by which passkey, and what its counter says now."""

    credential: Credential
    sign_count: int


def creation_options(place: Place, person: Person, challenge: Challenge) -> str:
    """What `navigator.credentials.create` takes, as JSON."""
    return options_to_json(
        generate_registration_options(
            rp_id=place.rp_id,
            rp_name=_NAME,
            user_id=person.key_id.encode(),
            user_name=person.name or person.key_id,
            challenge=challenge.raw,
            timeout=TTL_MS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            supported_pub_key_algs=_ES256,
        )
    )


def request_options(place: Place, challenge: Challenge, credential_ids: list[str]) -> str:
    """What `navigator.credentials.get` takes, as JSON; without ids any passkey may answer."""
    allowed = [PublicKeyCredentialDescriptor(base64url_to_bytes(each)) for each in credential_ids]
    return options_to_json(
        generate_authentication_options(
            rp_id=place.rp_id,
            challenge=challenge.raw,
            timeout=TTL_MS,
            allow_credentials=allowed or None,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
    )


def created(place: Place, challenge: Challenge, answer: str) -> Credential:
    """The passkey that a browser made.

    Raises:
        Unauthenticated: it is not what was asked for.
    """
    given = _read(answer)
    try:
        _check_frame(given)
        found = verify_registration_response(
            credential=given,
            expected_challenge=challenge.raw,
            expected_rp_id=place.rp_id,
            expected_origin=place.origin,
            require_user_verification=True,
            supported_pub_key_algs=_ES256,
        )
    except (WebAuthnException, KeyError, TypeError, ValueError, AttributeError) as error:
        _refuse(error)
    return Credential(
        id=bytes_to_base64url(found.credential_id),
        key_id="",
        public_key=found.credential_public_key,
        backup_eligible=found.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
        sign_count=found.sign_count,
    )


def answered(place: Place, challenge: Challenge, answer: str, people: People) -> Answer:
    """Who answered a challenge, which is not spent by this.

    Raises:
        Unauthenticated: the answer is not right, or not of the person who was asked.
    """
    given = _read(answer)
    credential = people.credential(str(given.get("id", "")))
    if credential is None:
        raise Unauthenticated("nobody here has this passkey", code="passkey_refused")
    if challenge.key_id not in (None, credential.key_id):
        raise Unauthenticated("it is somebody else's passkey", code="passkey_refused")
    try:
        _check_frame(given)
        _check_same(given["response"], credential)
        found = verify_authentication_response(
            credential=given,
            expected_challenge=challenge.raw,
            expected_rp_id=place.rp_id,
            expected_origin=place.origin,
            credential_public_key=credential.public_key,
            credential_current_sign_count=credential.sign_count,
            require_user_verification=True,
        )
    except (WebAuthnException, KeyError, TypeError, ValueError, AttributeError) as error:
        _refuse(error)
    return Answer(credential, found.new_sign_count)


def _read(answer: str) -> dict[str, Any]:
    try:
        given = json.loads(answer[: ANSWER_CHARACTERS_MAX + 1])
    except (ValueError, RecursionError) as error:
        _refuse(error)
    if not isinstance(given, dict) or not isinstance(given.get("response"), dict):
        raise Unauthenticated("that is no answer of a passkey", code="passkey_refused")
    return given


def _check_frame(given: dict[str, Any]) -> None:
    data = json.loads(base64url_to_bytes(given["response"]["clientDataJSON"]))
    if data.get("crossOrigin", False) is not False or "topOrigin" in data:
        raise ValueError("it was asked for in a frame of another page")


def _check_same(response: dict[str, Any], credential: Credential) -> None:
    handle = response.get("userHandle")
    if handle is not None and base64url_to_bytes(handle) != credential.key_id.encode():
        raise ValueError("the user handle is another person's")
    data = parse_authenticator_data(base64url_to_bytes(response["authenticatorData"]))
    if data.flags.be != credential.backup_eligible:
        raise ValueError("whether it can be backed up is not as it was")


def _refuse(error: Exception) -> NoReturn:
    raise Unauthenticated(
        f"the passkey's answer is not right: {error}", code="passkey_refused"
    ) from error
