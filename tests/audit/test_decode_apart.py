"""A document whose long lists are read item by item is held to the same form as any other."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from engine.audit.canonical import (
    INTEGER_MAX,
    CanonicalError,
    decode,
    decode_apart,
    decode_object,
    encode,
    encode_own,
)

DOCUMENT: dict[str, Any] = {
    "a": {"b": [1, {"c": None}]},
    "made": -12,
    "records": [{"index": 0, "record": '{"x":"é"}'}, [], "x", 7, {"records": [1]}],
    "tail": [],
    "z": "é\n",
}


class Form(msgspec.Struct, forbid_unknown_fields=True):
    """The same without what is in it."""

    a: msgspec.Raw
    made: msgspec.Raw
    records: list[msgspec.Raw]
    tail: list[msgspec.Raw]
    z: msgspec.Raw


class Lists(msgspec.Struct, forbid_unknown_fields=True):
    """A document that is nothing but long lists."""

    records: list[msgspec.Raw]
    tail: list[msgspec.Raw]


NAMES = ("records", "tail")
INSTEAD = b'{}[]",:0123456789-.eE \n\t\\uabcx\x00\x7f\x80\xff'


def whole(data: bytes) -> Any:
    """What the usual way reads; None if it refuses."""
    try:
        return decode_object(data)
    except CanonicalError:
        return None


def apart(data: bytes, form: type[msgspec.Struct]) -> Any:
    """The same of `decode_apart` and of each item."""
    try:
        found = decode_apart(data, form)
        for name in NAMES:
            if isinstance(found.get(name), list):
                found[name] = [
                    item if isinstance(item, (dict, list, str, int)) else decode(bytes(item))
                    for item in found[name]
                ]
    except CanonicalError:
        return None
    return found


def edits(data: bytes) -> Iterator[bytes]:
    """Everything that is one byte away, with the bytes that mean something to JSON."""
    for at in range(len(data) + 1):
        for byte in INSTEAD:
            yield data[:at] + bytes([byte]) + data[at:]
            yield data[:at] + bytes([byte]) + data[at + 1 :]
        yield data[:at] + data[at + 1 :]


def test_one_byte_away_both_ways_agree() -> None:
    data = encode(DOCUMENT)
    assert apart(data, Form) == DOCUMENT
    accepted = 0
    for edited in edits(data):
        found = whole(edited)
        assert apart(edited, Form) == found, edited
        accepted += found is not None
    assert accepted > 100


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b'{"records":[],"tail":[] }',
        b'{"records":[ ],"tail":[]}',
        b'{"records":[1, 2],"tail":[]}',
        b'{"records":[1,2 ],"tail":[]}',
        b'{"tail":[],"records":[]}',
        b'{"records":[],"records":[],"tail":[]}',
        b'{"r\\u0065cords":[],"tail":[]}',
        b'{"records":{},"tail":[]}',
        b'{"records":null,"tail":[]}',
        b'{"records":[]}',
        b'{"records":[],"tail":[]}x',
        b'{"records":[1.5],"tail":[]}',
        b'{"records":[9007199254740992],"tail":[]}',
        b'{"x":9007199254740992,"records":[],"tail":[]}',
        '{"records":[],"tail":[],"é":1}'.encode(),
        b'\xef\xbb\xbf{"records":[],"tail":[]}',
    ],
)
def test_what_is_irregular_is_read_or_refused_alike(data: bytes) -> None:
    assert apart(data, Lists) == whole(data)


@pytest.mark.parametrize("end", [b"", b" ", b"\n", b"\n\n", b"\t", b"x\n"])
def test_nothing_but_the_end_may_stand_behind_a_document(end: bytes) -> None:
    data = encode({"records": [1], "tail": []}) + end
    if end == b"\n":
        assert decode_apart(data, Lists, end=b"\n")["tail"] == []
    else:
        with pytest.raises(CanonicalError):
            decode_apart(data, Lists, end=b"\n")


def test_items_are_left_as_they_stand() -> None:
    data = encode({**DOCUMENT, "records": [DOCUMENT] * 3})
    found = decode_apart(data + b"\n", Form, end=b"\n")
    assert [bytes(item) for item in found["records"]] == [encode(DOCUMENT)] * 3
    assert found["tail"] == []
    assert encode_own(found) == data


@pytest.mark.parametrize("number", [INTEGER_MAX, -INTEGER_MAX, INTEGER_MAX + 1, -INTEGER_MAX - 1])
@pytest.mark.parametrize("depth", [0, 1, 6, 7, 8, 9, 31])
def test_numbers_are_bound_at_every_depth(number: int, depth: int) -> None:
    data = b"[" * depth + b"%d" % number + b"]" * depth
    if abs(number) > INTEGER_MAX:
        with pytest.raises(CanonicalError, match="2\\^53"):
            decode(data)
    else:
        assert encode(decode(data)) == data
