"""What of a record can be withheld, and how it stays bound: salted commitments.

The model is SD-JWT (RFC 9901 section 4.2). What is withheld together is a group: the fields of a
record's body that tell one thing, in a JSON object of the body's own shape. What the log hashes of
a group is its commitment,

    commitment = SHA-256("tallystick/commitment/1\\n" ‖ field salt ‖ canonical JSON of the group)
    field salt = HMAC-SHA256(key: the record's private salt, message: the group's name)

so whoever is shown one group (its field salt and value) can check it, and learns nothing of another
though its values be few. A group has every field that its value could be guessed from by trying.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Literal, get_args

import msgspec

from engine.audit import canonical

FIELD_SALT_BYTES = 32
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_COMMITMENT = sha256(b"tallystick/commitment/1\n")
"""A begun hash: to copy it takes less time than to begin another."""
_HASH_BLOCK_BYTES = 64
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))

Fields = Mapping[str, "Fields | None"]
"""The fields of a group: None where the whole field belongs to it, or which fields within do."""

_DIGEST: Fields = {"digest": None}

GROUPS: Mapping[str, Mapping[str, Fields]] = {
    "session.created": {
        "label": {"label": None},
        "user_wallet": {"user_wallet": None},
    },
    "payment.decided": {
        "merchant": {
            "decision": {"evidence": None, "reason": None, "remaining": {"merchant": None}},
            "request": {"merchant": None, "terms": {"resource": None, "body_sha256": None}},
            "request_digest": None,
            "idempotency_key": None,
        },
    },
    "payment.refused": {
        "merchant": {
            "resource": None,
            "body_sha256": None,
            "reasons": None,
            "idempotency_key": None,
        },
    },
    "approval.requested": {"merchant": _DIGEST},
    "approval.granted": {"merchant": _DIGEST},
    "approval.denied": {"merchant": {**_DIGEST, "reason": None}},
    "approval.expired": {"merchant": _DIGEST},
    "approval.refused": {"merchant": _DIGEST},
}
"""The groups of each kind of record; of any other kind nothing can be withheld.

The digest of a request is there because it is of few values: trying merchants would find theirs.
"""

PERHAPS = frozenset(("terms",))
"""Fields that not every record of a kind has; a group has them if, and only if, the rest has."""

Withholdable = Literal["label", "merchant", "user_wallet"]
"""The names of all groups."""
WITHHOLDABLE: tuple[str, ...] = get_args(Withholdable)
"""The same, sorted."""


class Opening(msgspec.Struct, frozen=True):
    """What shows a group: its field salt and its value."""

    salt: bytes
    value: Mapping[str, Any]

    def commitment(self, encode: Callable[[object], bytes]) -> bytes:
        """The 32 bytes that stand for the group; `encode` makes canonical JSON."""
        return commitment(self.salt, self.value, encode)


def commitment(salt: bytes, value: object, encode: Callable[[object], bytes]) -> bytes:
    """The 32 bytes that stand for a group with this field salt and value."""
    digest = _COMMITMENT.copy()
    digest.update(salt + encode(value))
    return digest.digest()


def field_salt(private_salt: bytes, group: str) -> bytes:
    """The salt of one group of a record: it tells nothing of the others'.

    HMAC (RFC 2104) is written out: to set up the library's takes longer than the four hashes.
    """
    key = private_salt.ljust(_HASH_BLOCK_BYTES, b"\0")
    assert len(key) == _HASH_BLOCK_BYTES, "a longer key would have to be hashed first"
    inner = sha256(key.translate(_INNER) + group.encode()).digest()
    return sha256(key.translate(_OUTER) + inner).digest()


def members(data: bytes) -> dict[str, msgspec.Raw]:
    """The members of an object in canonical JSON with ASCII keys; their values stay as they are.

    Raises:
        canonical.CanonicalError: it is something else, as far as its values are not looked at.
    """
    try:
        found = _MEMBERS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise canonical.CanonicalError(f"not an object: {error}") from error
    if canonical.encode_own(found) != data:
        raise canonical.CanonicalError("not in canonical form")
    return found


def split(
    body: Mapping[str, Any] | msgspec.Raw, fields: Fields
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A body without a group, and the group.

    Of a body that is still JSON only what has to be looked at is decoded.

    Raises:
        KeyError, TypeError, ValueError: a field of the group is not there.
    """
    if type(body) is dict:
        kept: dict[str, Any] = body.copy()
    elif type(body) is msgspec.Raw:
        kept = members(bytes(body))
    else:
        raise TypeError("it is no object")
    taken = {}
    for name, within in fields.items():
        if within is None:
            taken[name] = kept.pop(name)
        elif name in kept or name not in PERHAPS:
            kept[name], taken[name] = split(kept[name], within)
    return kept, taken


def join(kept: Mapping[str, Any], taken: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """The inverse of `split`.

    Raises:
        KeyError, TypeError, ValueError: the two are not the halves of one body.
    """
    if taken.keys() != {name for name in fields if name in kept or name not in PERHAPS}:
        raise ValueError("it does not have the fields of its group")
    check_absent(kept, fields)
    body = dict(kept)
    for name, value in taken.items():
        within = fields[name]
        body[name] = value if within is None else join(kept[name], value, within)
    return body


def check_absent(kept: Mapping[str, Any], fields: Fields) -> None:
    """A body has none of a group's fields, and all that they are fields of.

    Raises:
        KeyError, TypeError, ValueError: it is otherwise.
    """
    for name, within in fields.items():
        if within is not None:
            if name in PERHAPS and name not in kept:
                continue
            if not isinstance(kept[name], dict):
                raise TypeError(f"{name} is no object")
            check_absent(kept[name], within)
        elif name in kept:
            raise ValueError(f"{name} is told beside its commitment")
