"""How owners consent to a grant, judged as `SessionRegistry` judges it (docs/decisions/0017).

eip712    65 bytes r ‖ s ‖ v: a secp256k1 signature over the grant (EIP-712)
erc1271   whatever the owner, which is a contract, takes for one (ERC-1271): only the chain can tell
passkey   x ‖ y ‖ abi.encode(r, s, challengeIndex, typeIndex, authenticatorData, clientDataJSON): a
          WebAuthn assertion with user verification, whose challenge is the grant's digest

A passkey's owner is an address made from its key, so whoever shows the key is known by it.
"""

from base64 import urlsafe_b64encode
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from engine.audit.chain import ChainView, Registration
from engine.audit.report import tampered
from engine.grant import Domain, Grant

KINDS = ("eip712", "erc1271", "passkey")
SIGNATURE_BYTES_MAX = 8_192
"""The most bytes of a signature; an assertion has some 500, a wallet with several owners more."""

_WORD = 32
_POINT_BYTES = 2 * _WORD
_HALF_ORDER = 0x7FFFFFFF800000007FFFFFFFFFFFFFFFDE737D56D38BCF4279DCE5617E3192A8
"""Half the order of P-256."""
_USER_PRESENT, _USER_VERIFIED, _BACKUP_ELIGIBLE, _BACKED_UP = 0x01, 0x04, 0x08, 0x10
_FLAGS_AT = 32
_AUTHENTICATOR_DATA_BYTES_MIN = 37


def signer(kind: str, signature: bytes, grant: Grant, domain: Domain) -> str:
    """The lower-case address whose signature over the grant it is, by EIP-712 or with a passkey.

    Raises:
        ValueError: it is nobody's, or not of that kind; the message says why.
    """
    if kind == "passkey":
        return _passkey_signer(signature, grant.digest(domain))
    if kind != "eip712":
        raise ValueError(f"who signed by {kind} cannot be told from the signature")
    return grant.signer(signature, domain)


def passkey_owner(x: bytes, y: bytes) -> str:
    """The lower-case address that stands for a passkey; the coordinates have 32 bytes each."""
    from eth_utils.crypto import keccak

    return "0x" + keccak(b"Tallystick passkey" + x + y)[-20:].hex()


def check_consent(
    grant: Grant,
    kind: str,
    signature: bytes,
    chain: ChainView,
    domain: Domain,
    registration: Registration | None,
) -> str:
    """Check that the owner consented to a grant, and say who did and how.

    What a wallet accepts can change, so an ERC-1271 signature needs the registration: the registry
    asked the wallet in that transaction. Raises `Finding`, and `ChainSilent` as its chain does.
    """
    if registration is not None and registration.consent != kind:
        raise tampered(f"the chain records consent: {registration.consent}")
    if kind == "erc1271":
        return _check_wallet(grant, signature, chain, domain, registration)
    try:
        found = signer(kind, signature, grant, domain)
    except ValueError as error:
        raise tampered(str(error)) from error
    if found != grant.owner:
        raise tampered(f"the grant was signed by {found}, not by its owner")
    return f"signed by {found} ({'EIP-712' if kind == 'eip712' else 'passkey'})"


def _check_wallet(
    grant: Grant,
    signature: bytes,
    chain: ChainView,
    domain: Domain,
    registration: Registration | None,
) -> str:
    if registration is None:
        raise tampered("a wallet's consent counts on the chain only, and the chain has none")
    block, digest = registration.block_number, grant.digest(domain)
    # What the wallet's state was within the block cannot be asked: before it or after it must do.
    answers = [
        chain.accepts_signature(grant.owner, digest, signature, number)
        for number in (block, block - 1)
    ]
    said = f"the contract {grant.owner} in block {block} (ERC-1271)"
    if True in answers:
        return f"accepted by {said}"
    if None in answers:
        return f"accepted by {said}, says the registry: no endpoint has the wallet's state of then"
    raise tampered(f"the signature in the file is not what the registry saw accepted by {said}")


def _passkey_signer(signature: bytes, digest: bytes) -> str:
    """The owner whose assertion over `digest` it is (WebAuthn Level 2 §7.2, steps 11 to 20).

    The layout and every comparison are those of the contracts' `OwnerSignature` and `WebAuthn`.
    """
    x, y = signature[:_WORD], signature[_WORD:_POINT_BYTES]
    r, s, challenge_at, type_at, authenticator_data, client_data = _decoded(signature)
    kind = b'"type":"webauthn.get"'
    if client_data[type_at : type_at + len(kind)] != kind:
        raise ValueError("the assertion is not of type webauthn.get")
    encoded = urlsafe_b64encode(digest).rstrip(b"=")
    challenge = b'"challenge":"' + encoded + b'"'
    if client_data[challenge_at : challenge_at + len(challenge)] != challenge:
        raise ValueError("the challenge of the assertion is not the digest of this grant")
    if len(authenticator_data) < _AUTHENTICATOR_DATA_BYTES_MIN:
        raise ValueError("the authenticator's data is cut off")
    flags = authenticator_data[_FLAGS_AT]
    if not flags & _USER_PRESENT or not flags & _USER_VERIFIED:
        raise ValueError("the authenticator did not verify its user")
    if flags & _BACKED_UP and not flags & _BACKUP_ELIGIBLE:
        raise ValueError("the flags of the authenticator contradict each other")
    if s > _HALF_ORDER:
        raise ValueError("the signature's s is in the upper half of the order of P-256")
    try:
        point = ec.EllipticCurvePublicNumbers(
            int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()
        ).public_key()
        message = authenticator_data + sha256(client_data).digest()
        point.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
    except (ValueError, InvalidSignature):
        raise ValueError("the assertion was not made by the passkey that it names") from None
    return passkey_owner(x, y)


def _decoded(signature: bytes) -> tuple[int, int, int, int, bytes, bytes]:
    """What follows the point, by the Solidity ABI: four words and two byte strings."""
    data = signature[_POINT_BYTES:]
    if len(data) < 6 * _WORD:
        raise ValueError("an assertion is cut off")
    r, s, challenge_at, type_at, *places = (_word(data, at) for at in range(0, 6 * _WORD, _WORD))
    strings = []
    for place in places:
        if place > len(data) - _WORD:
            raise ValueError("an assertion is cut off")
        begin, length = place + _WORD, _word(data, place)
        if length > len(data) - begin:
            raise ValueError("an assertion is cut off")
        strings.append(data[begin : begin + length])
    return r, s, challenge_at, type_at, strings[0], strings[1]


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + _WORD])
