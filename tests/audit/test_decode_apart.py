"""A document whose long lists are read item by item is held to the same form as any other."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine.audit.canonical import (
    INTEGER_MAX,
    CanonicalError,
    decode,
    decode_apart,
    decode_object,
    encode,
    encode_own,
    encode_own_behind,
)

DOCUMENT: dict[str, Any] = {
    "a": {"b": [1, {"c": None}]},
    "made": -12,
    "records": [{"index": 0, "record": '{"x":"é"}'}, [], "x", 7, {"records": [1]}],
    "tail": [],
    "z": "é\n",
}
NAMES = ("records", "tail")
INSTEAD = b'{}[]",:0123456789-.eE \n\t\\uabcx\x00\x7f\x80\xff'


def whole(data: bytes) -> Any:
    """What the usual way reads; None if it refuses."""
    try:
        return decode_object(data)
    except CanonicalError:
        return None


def apart(data: bytes | memoryview) -> Any:
    """The same of `decode_apart` and of each item."""
    try:
        found = decode_apart(data, *NAMES)
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
    assert apart(data) == DOCUMENT
    accepted = 0
    for edited in edits(data):
        found = whole(edited)
        assert apart(edited) == found, edited
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
    assert apart(data) == whole(data)


def test_items_are_left_as_they_stand() -> None:
    data = encode({**DOCUMENT, "records": [DOCUMENT] * 3})
    found = decode_apart(memoryview(data), *NAMES)
    assert [bytes(item) for item in found["records"]] == [encode(DOCUMENT)] * 3
    assert found["tail"] == []
    assert encode_own(found) == data
    assert encode_own_behind(b"domain\n", found) == b"domain\n" + data


@pytest.mark.parametrize("number", [INTEGER_MAX, -INTEGER_MAX, INTEGER_MAX + 1, -INTEGER_MAX - 1])
@pytest.mark.parametrize("depth", [0, 1, 6, 7, 8, 9, 31])
def test_numbers_are_bound_at_every_depth(number: int, depth: int) -> None:
    data = b"[" * depth + b"%d" % number + b"]" * depth
    if abs(number) > INTEGER_MAX:
        with pytest.raises(CanonicalError, match="2\\^53"):
            decode(data)
    else:
        assert encode(decode(data)) == data
