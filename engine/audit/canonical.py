"""The one encoding that is hashed or signed: canonical JSON (RFC 8785, JCS) for a strict subset.

The subset has no floats. Numbers are integers within ±(2^53 - 1), which every JSON reader holds
exactly; a larger number, and every amount of a token, travels as a decimal string. With floats
gone, RFC 8785 is: no white space, keys in the order of their UTF-16 code units (§3.2.3), the
shortest string escapes (§3.2.2.2), UTF-8 without a byte order mark (§3.2.4). Strings are taken
as they are: no Unicode normalisation, so the NFC and NFD forms of a word are different values.

    >>> encode({"b": [1, None], "a": "x"})
    b'{"a":"x","b":[1,null]}'
"""

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import msgspec

__all__ = [
    "DEPTH_MAX",
    "INTEGER_MAX",
    "CanonicalError",
    "Integer",
    "Json",
    "Natural",
    "Plain",
    "decode",
    "decode_object",
    "encode",
    "encode_own",
    "reader",
]

Form = TypeVar("Form")
Json = dict[str, "Json"] | list["Json"] | str | int | bool | None

INTEGER_MAX = 2**53 - 1
Integer = Annotated[int, msgspec.Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
DEPTH_MAX = 32
"""Containers inside one another: a scalar has depth 0, `[]` has depth 1."""


class CanonicalError(ValueError):
    """A value has no canonical form, or bytes are not one.

    `path` says where (`$.body.amount`, `$.items[2]`), `reason` says what is wrong there.
    """

    def __init__(self, reason: str, path: str = "$") -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason
        self.path = path


def encode(value: object) -> bytes:
    """Return the canonical bytes of `value` (RFC 8785).

    Exact types only: dict with str keys, list, tuple (written as an array), str, bool, None and
    int within ±INTEGER_MAX. Subclasses are refused, enumerations too: a record holds plain data.

    Raises:
        CanonicalError: any other type, a key that is not a str, an integer out of range, a lone
            surrogate, or more than DEPTH_MAX containers inside one another.
    """
    # UTF-8 bytes and UTF-16 code units order ASCII keys alike, so the C encoder may sort them.
    return _SORTING.encode(value) if _check(value, 0) else _KEEPING.encode(_in_order(value))


def encode_own(value: object) -> bytes:
    """`encode` for plain data with ASCII keys that the caller has made itself, from checked parts.

    Nothing is looked at, which is the whole cost of `encode`: a float would be written as one.
    """
    return _SORTING.encode(value)


def reader(form: type[Form]) -> Callable[[bytes], Form | None]:
    """A quick `decode` of the canonical bytes of objects that are all of one form, or of lists.

    `form` is a `msgspec.Struct` with the types of plain data (`Integer`, `Plain` …). What of it is
    `msgspec.Raw` is JSON, but nobody has looked whether it is canonical. Where the reader answers
    None the bytes may be canonical or not, of that form or not: ask `decode`.
    """
    decode_form, encode_sorted = msgspec.json.Decoder(form).decode, _SORTING.encode

    def read(data: bytes) -> Form | None:
        # See `_decode_plain`. Keys are ASCII if everything is.
        if not data.isascii():
            return None
        try:
            value = decode_form(data)
            return value if encode_sorted(value) == data else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    return read


def decode(data: bytes) -> Json:
    """Return the value whose canonical form is exactly `data`; arrays come back as lists.

    `encode(decode(data)) == data` holds whenever this returns, so two different byte strings
    never mean the same record. No other exception escapes, whatever the bytes.

    Raises:
        CanonicalError: not UTF-8, not JSON, a duplicate key, a number that is not an integer
            within ±INTEGER_MAX, too deep, trailing data, or any form but the canonical one.
    """
    if not isinstance(data, bytes):
        raise CanonicalError(f"bytes expected, not {type(data).__name__}")
    value: Json
    try:
        if (value := _decode_plain(data)) is not None:
            return value
        value = _DECODER.decode(data.decode())
        canonical = encode(value)
    except UnicodeDecodeError:
        raise CanonicalError("not UTF-8") from None
    except json.JSONDecodeError:
        raise CanonicalError("not JSON") from None
    except RecursionError:
        raise CanonicalError(_TOO_DEEP) from None
    if canonical != data:
        raise CanonicalError("not in canonical form")
    return value


def decode_object(data: bytes) -> dict[str, Any]:
    """`decode` for bytes that must hold an object.

    Raises:
        CanonicalError: as `decode`, or it is no object.
    """
    value = decode(data)
    if not isinstance(value, dict):
        raise CanonicalError("not an object")
    return value


_TOO_DEEP = f"more than {DEPTH_MAX} levels deep"
_TOO_LARGE = "an integer beyond 2^53 - 1 must be written as a string"


def _decode_plain(data: bytes) -> Json:
    """`decode` of most of what is canonical, ten times as fast; None: the slow way has to tell.

    What comes out of the C decoder and goes back in as the same bytes has no white space, no key
    twice, and the order and the escapes of the C encoder: those of RFC 8785 if its keys are ASCII.
    """
    try:
        value: Json = _C_DECODER.decode(data)
        if _SORTING.encode(value) != data:
            return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return value if data.isascii() or _has_ascii_keys(value) else None


def _has_ascii_keys(value: Json) -> bool:
    within: Iterable[Json] = ()
    if isinstance(value, dict):
        if not all(map(str.isascii, value)):
            return False
        within = value.values()
    elif isinstance(value, list):
        within = value
    return all(_has_ascii_keys(item) for item in within if isinstance(item, dict | list))


def _check(value: Any, depth: int) -> bool:
    """Refuse what has no canonical form; return whether every key within is ASCII."""
    kind = type(value)
    if kind is str:
        _check_text(value)
        return True
    if kind is int:
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise CanonicalError(_TOO_LARGE)
        return True
    if value is None or kind is bool:
        return True

    ascii_keys = True
    children: Iterable[tuple[str | int, Any]]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise CanonicalError(f"a key is {type(key).__name__}, not str")
            _check_text(key)
            ascii_keys &= key.isascii()
        children = value.items()
    elif kind is list or kind is tuple:
        children = enumerate(value)
    else:
        raise CanonicalError(f"{kind.__name__} has no canonical form")
    if depth == DEPTH_MAX:
        raise CanonicalError(_TOO_DEEP)
    for step, item in children:
        if item is None or (type(item) is str and item.isascii()):
            continue  # most are such, and a call for each would be most of the cost
        try:
            ascii_keys &= _check(item, depth + 1)
        except CanonicalError as error:
            # The path is built on the way out: values that are right pay nothing for it.
            raise CanonicalError(error.reason, f"${_step(step)}{error.path[1:]}") from None
    return ascii_keys


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise CanonicalError("a lone surrogate has no UTF-8 form") from None


def _step(step: str | int) -> str:
    """One step of a path. Keys that are not plain words are escaped: the message gets logged."""
    if isinstance(step, str) and step.isascii() and step.isidentifier():
        return f".{step}"
    return f"[{step!a}]"


def _in_order(value: Any) -> Any:
    """A copy whose keys are inserted in the order of their UTF-16 code units (RFC 8785 §3.2.3)."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return {key: _in_order(value[key]) for key in keys}
    if isinstance(value, list | tuple):
        return [_in_order(item) for item in value]
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise CanonicalError("an object has the same key twice")
    return members


def _integer(digits: str) -> int:
    # Length first: converting a million digits takes long, and CPython refuses beyond 4300.
    if len(digits) > len(str(-INTEGER_MAX)):
        raise CanonicalError(_TOO_LARGE)
    return int(digits)


def _no_float(_text: str) -> NoReturn:
    raise CanonicalError("a number must be an integer, without fraction or exponent")


# Its escapes are those of RFC 8785 §3.2.2.2: a test holds every character against another encoder.
_SORTING = msgspec.json.Encoder(order="sorted")
_KEEPING = msgspec.json.Encoder()


def _plain(levels: int) -> Any:
    """The type of plain data with so many containers inside one another, for msgspec to check."""
    if not levels:
        return _SCALAR
    inner: Any = _plain(levels - 1)
    return _SCALAR | dict[str, inner] | list[inner]


_SCALAR = str | Integer | bool | None
if TYPE_CHECKING:
    Plain = dict[str, Any]
else:
    Plain = dict[str, _plain(6)]
"""An object of plain data, for `reader`."""
_C_DECODER: msgspec.json.Decoder[Json] = msgspec.json.Decoder(_plain(7))
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_no_float, parse_constant=_no_float
)
