"""A record is exactly its canonical bytes: one form, or none."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audit import canonical
from engine.audit.canonical import INTEGER_MAX, CanonicalError
from engine.audit.record import (
    FORMAT,
    Head,
    decode_record,
    encode_record,
    read_hex,
    record_hash,
)

SALT = bytes(range(16))
FIELDS: dict[str, Any] = {
    "log": "tallystick/1",
    "workspace": "default",
    "stream": "sess_1",
    "head": Head(3, b"\xab" * 32),
    "time_ms": 1_800_000_000_000,
    "kind": "payment.captured",
    "body": {"amount": 1, "note": "データ"},
    "salt": SALT,
}
RAW, HASH = encode_record(**FIELDS)


def with_field(name: str, value: object) -> bytes:
    return canonical.encode({**canonical.decode_object(RAW), name: value})


def test_a_record_reads_back_as_it_was_written() -> None:
    record = decode_record(RAW)
    assert (record.raw, record.hash) == (RAW, hashlib.sha256(b"\x00" + RAW).digest())
    assert record.hash == HASH == record_hash(RAW)
    assert (record.log, record.workspace, record.stream) == ("tallystick/1", "default", "sess_1")
    assert (record.seq, record.prev) == (3, b"\xab" * 32)
    assert (record.time_ms, record.kind) == (FIELDS["time_ms"], FIELDS["kind"])
    assert record.body == FIELDS["body"]


def test_the_first_record_of_a_stream_has_no_hash_before_it() -> None:
    first = decode_record(encode_record(**{**FIELDS, "head": Head()})[0])
    assert (first.seq, first.prev) == (0, None)


def test_its_bytes_are_what_the_format_says() -> None:
    assert encode_record(**{**FIELDS, "head": Head(), "body": {}})[0] == (
        b'{"body":{},"kind":"payment.captured","log":"tallystick/1","prev":null,'
        b'"salt":"000102030405060708090a0b0c0d0e0f","seq":0,"stream":"sess_1",'
        b'"time_ms":1800000000000,"v":"tallystick.record/2","workspace":"default"}'
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
keys = st.text(st.characters(max_codepoint=127), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(
    body=st.dictionaries(keys, values, max_size=4),
    stream=texts,
    time_ms=st.integers(0, INTEGER_MAX),
    seq=st.integers(0, INTEGER_MAX),
    prev=st.none() | st.binary(min_size=32, max_size=32),
)
def test_whatever_is_written_reads_back(
    body: dict[str, Any], stream: str, time_ms: int, seq: int, prev: bytes | None
) -> None:
    head = Head(seq, prev)
    changes = {"body": body, "stream": stream, "time_ms": time_ms, "head": head}
    record = decode_record(encode_record(**{**FIELDS, **changes})[0])
    assert (record.body, record.stream, record.time_ms) == (body, stream, time_ms)
    assert (record.seq, record.prev) == (seq, prev)


def test_the_salt_changes_the_hash() -> None:
    other = decode_record(encode_record(**{**FIELDS, "salt": bytes(16)})[0])
    assert other.hash != decode_record(RAW).hash


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("v", "tallystick.record/1"),
        ("v", None),
        ("log", 1),
        ("workspace", None),
        ("stream", ["sess_1"]),
        ("kind", True),
        ("seq", -1),
        ("seq", "3"),
        ("seq", True),
        ("seq", None),
        ("time_ms", -1),
        ("time_ms", False),
        ("time_ms", "1800000000000"),
        ("body", None),
        ("body", []),
        ("body", "{}"),
        ("prev", ""),
        ("prev", "ab" * 31),
        ("prev", "AB" * 32),
        ("prev", "0x" + "ab" * 32),
        ("prev", "ab " * 32),
        ("prev", "zz" * 32),
        ("prev", 0),
        ("salt", None),
        ("salt", ""),
        ("salt", "00" * 15),
        ("salt", "00" * 17),
        ("salt", "AB" * 16),
        ("extra", 1),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_field_of_another_form_is_refused(name: str, value: object) -> None:
    with pytest.raises(CanonicalError):
        decode_record(with_field(name, value))


@pytest.mark.parametrize("name", canonical.decode_object(RAW))
def test_a_missing_field_is_refused(name: str) -> None:
    fields = canonical.decode_object(RAW)
    del fields[name]
    with pytest.raises(CanonicalError, match=FORMAT):
        decode_record(canonical.encode(fields))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(RAW + b"\n", id="newline"),
        pytest.param(b" " + RAW, id="space"),
        pytest.param(RAW.replace(b'"amount":1', b'"amount":1.0'), id="1.0"),
        pytest.param(RAW.replace(b'"amount":1', b'"amount":1e0'), id="exponent"),
        pytest.param(RAW.replace(b'"amount":1', b'"amount":-0'), id="minus zero"),
        pytest.param(RAW.replace(b'"amount":1', b'"amount":1,"amount":1'), id="the same key twice"),
        pytest.param(RAW.replace(b'"seq":3', b'"seq":9007199254740993'), id="beyond 2^53"),
        pytest.param(RAW.replace("データ".encode(), rb"\u30c7\u30fc\u30bf"), id="escaped"),
        pytest.param(RAW.replace("データ".encode(), rb"\ud800"), id="lone surrogate"),
        pytest.param(b"\xef\xbb\xbf" + RAW, id="byte order mark"),
        pytest.param(RAW.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(RAW[:-1] + b',"a":1}', id="keys out of order"),
        pytest.param(RAW[:-1], id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"[" * 100_000, id="very deep"),
        pytest.param(b"9" * 100_000, id="very long number"),
    ],
)
def test_bytes_of_another_form_are_refused(raw: bytes) -> None:
    assert raw != RAW
    with pytest.raises(CanonicalError):
        decode_record(raw)


def test_two_spellings_of_one_word_are_two_records() -> None:
    composed, decomposed = (
        decode_record(encode_record(**{**FIELDS, "body": {"note": word}})[0])
        for word in ("\u00e9", "e\u0301")
    )
    assert composed.hash != decomposed.hash


@given(raw=st.binary(min_size=4, max_size=4))
def test_hexadecimal_has_one_spelling(raw: bytes) -> None:
    assert read_hex(raw.hex(), 4) == raw
    for other in (raw.hex().upper(), f" {raw.hex()}", f"0x{raw.hex()}", raw.hex()[:-2], raw):
        if other != raw.hex():
            with pytest.raises(ValueError, match="hexadecimal"):
                read_hex(other, 4)
