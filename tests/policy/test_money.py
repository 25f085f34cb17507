import json
import math
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.policy.money import (
    AMOUNT_MAX_MICRO_USD,
    AmountError,
    format_usd,
    micro_usd_of,
    parse_usd,
    plain_decimals,
    usd_number,
)
from tests.policy.oracle import micro_usd


@pytest.mark.parametrize(
    ("value", "micro"),
    [
        ("1", 1_000_000),
        ("1.0", 1_000_000),
        ("1.000000", 1_000_000),
        ("0.000001", 1),
        ("0.1", 100_000),
        ("4.02", 4_020_000),
        ("19.99", 19_990_000),
        ("10", 10_000_000),
        ("999999999.999999", 10**15 - 1),
        (1, 1_000_000),
        (1_000_000, 10**12),
        (999_999_999, 999_999_999_000_000),
    ],
)
def test_amounts(value: str | int, micro: int) -> None:
    assert parse_usd(value) == micro


NOT_DECIMAL = "an amount must be a plain decimal number such as 12.50"
NOT_POSITIVE = "an amount must be more than zero"
TOO_PRECISE = "an amount has at most 6 digits after the point"
TOO_LARGE = "an amount must be at most $999,999,999.999999"
NOT_AN_AMOUNT = "an amount must be a whole number or decimal text"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *[
            (text, NOT_DECIMAL)
            for text in [
                *[
                    "",
                    " ",
                    ".",
                    "-",
                    "1e3",
                    "1E3",
                    "1e-3",
                    "\uff11\uff12",
                    "\u0661",
                    "²",
                    "1_000",
                    "1,000",
                ],
                *["-1", "+1", "-0", "NaN", "nan", "Infinity", "inf", " 1", "1 ", "1\n", "\t1"],
                *["0x10", "0b1", "1.", ".5", "01", "00", "00.1", "1.2.3", "1.-2", "1.+2", "1. 2"],
                *["$1", "1usd", "1/2", "1.\uff11", "1\0", "1\ud800", "true", "null", "\u22121"],
            ]
        ],
        ("0", NOT_POSITIVE),
        ("0.0", NOT_POSITIVE),
        ("0.000000", NOT_POSITIVE),
        (0, NOT_POSITIVE),
        (-1, NOT_POSITIVE),
        (-(2**256), NOT_POSITIVE),
        ("1.0000000", TOO_PRECISE),
        ("0.0000001", TOO_PRECISE),
        ("0.0000005", TOO_PRECISE),
        ("1." + "0" * 100_000, TOO_PRECISE),
        ("1000000000", TOO_LARGE),
        ("1000000000.000001", TOO_LARGE),
        ("9" * 100_000, TOO_LARGE),
        (str(2**256), TOO_LARGE),
        (1_000_000_000, TOO_LARGE),
        (10**15 - 1, TOO_LARGE),
        (10**15, TOO_LARGE),
        (10**30, TOO_LARGE),
        (2**53 + 1, TOO_LARGE),
        (2**63 - 1, TOO_LARGE),
        (2**63, TOO_LARGE),
        (2**64, TOO_LARGE),
        (2**128, TOO_LARGE),
        (2**256 - 1, TOO_LARGE),
        (2**256, TOO_LARGE),
        *[
            (value, NOT_AN_AMOUNT)
            for value in (True, False, 1.5, 1.0, float("nan"), None, b"1", Decimal(1), [1], (1,))
        ],
    ],
)
def test_what_is_not_an_amount_is_refused_with_a_plain_message(value: object, message: str) -> None:
    with pytest.raises(AmountError) as refused:
        parse_usd(value)  # type: ignore[arg-type]  # callers hand over whatever JSON held
    assert str(refused.value) == message


@given(
    st.one_of(
        st.from_regex(r"\A[0-9]{0,11}(\.[0-9]{0,8})?\Z"),
        st.text(alphabet="0123456789.+-eE_ \uff11", max_size=18),
        st.text(max_size=6),
    )
)
def test_text_is_read_like_the_oracle_reads_it(text: str) -> None:
    expected = micro_usd(text)
    if expected is None:
        with pytest.raises(AmountError):
            parse_usd(text)
    else:
        assert parse_usd(text) == expected


@given(st.integers(1, AMOUNT_MAX_MICRO_USD))
@example(1)
@example(99)
@example(100)
@example(AMOUNT_MAX_MICRO_USD)
@example(999_999_999_999_998)
def test_json_numbers_are_exact_and_as_short_as_can_be(micro: int) -> None:
    text = json.dumps(usd_number(micro))
    dollars = Decimal(text)
    assert dollars * 1_000_000 == micro
    if micro % 1_000_000:
        assert dollars.as_tuple().digits[-1] != 0
        assert Decimal(repr(json.loads(text))) == dollars
    else:
        assert text == str(micro // 1_000_000)


@given(st.integers(1, AMOUNT_MAX_MICRO_USD))
def test_what_people_read_parses_back(micro: int) -> None:
    text = format_usd(micro)
    assert text[0] == "$"
    assert len(text.partition(".")[2]) >= 2
    assert parse_usd(text[1:].replace(",", "")) == micro


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000001"),
        (10_000, "$0.01"),
        (100_000, "$0.10"),
        (1_234_500_000, "$1,234.50"),
        (1_001_000, "$1.001"),
        (10**15 - 1, "$999,999,999.999999"),
    ],
)
def test_amounts_for_people(micro: int, text: str) -> None:
    assert format_usd(micro) == text


def test_there_is_no_text_for_a_negative_amount() -> None:
    with pytest.raises(AssertionError):
        format_usd(-1)


@given(st.integers(1, 10**34), st.integers(0, 18))
@example(10**15 - 1, 6)
@example(10**15, 6)
@example(10**27 - 10**12, 18)
@example(10**27 - 10**12 + 1, 18)
@example(1, 18)
def test_dollars_are_never_less_than_the_tokens(amount: int, decimals: int) -> None:
    counted = math.ceil(Fraction(amount * 10**6, 10**decimals))
    if counted > AMOUNT_MAX_MICRO_USD:
        with pytest.raises(ValueError, match="above what can be paid"):
            micro_usd_of(amount, decimals)
    else:
        assert micro_usd_of(amount, decimals) == counted


@given(st.integers(1, AMOUNT_MAX_MICRO_USD) | st.integers(1, 200))
@example(1)
@example(99)
def test_an_amount_is_accepted_as_it_was_emitted(micro: int) -> None:
    emitted = usd_number(micro)
    for text in (json.dumps(emitted), msgspec.json.encode(emitted).decode()):
        assert parse_usd(plain_decimals(text)) == micro


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('{"a":5e-05,"b":[1e-06,9e-6]}', '{"a":0.00005,"b":[0.000001,0.000009]}'),
        ('{"a":-1.25e-05}', '{"a":-0.0000125}'),
        ('["5e-05", 5e-05]', '["5e-05", 0.00005]'),
        ('["\\"5e-05", "\\\\",5e-6]', '["\\"5e-05", "\\\\",0.000005]'),
        ("[1e-60,1e-50,1e+05,1e300,5e-07]", "[1e-60,1e-50,1e+05,1e300,5e-07]"),
        ('{"5e-06":"re-6","n":12.5}', '{"5e-06":"re-6","n":12.5}'),
    ],
)
def test_only_numbers_as_small_as_amounts_are_written_in_digits(text: str, plain: str) -> None:
    assert plain_decimals(text) == plain
    assert json.loads(text) == json.loads(plain)


@given(
    st.recursive(
        st.text()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.sampled_from([5e-06, "5e-06"]),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_json_means_is_not_changed(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert json.loads(plain_decimals(text)) == value
