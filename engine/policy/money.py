"""US dollars as integers of micro-USD (10^-6 USD).

An amount enters as text or as a whole number and is parsed as a decimal from its text, so no float
ever takes part: `parse_usd("19.99") == 19_990_000`.
"""

import re
from decimal import Decimal

MICRO_USD_PER_USD = 1_000_000

AMOUNT_MAX_MICRO_USD = 10**15 - 1
"""The largest amount, $999,999,999.999999: 15 significant digits.

Every decimal of up to 15 digits survives a trip through an IEEE 754 double (10^15 < 2^53), so an
amount stays exact even in a JSON client that knows no other number.
"""

SUM_MAX_MICRO_USD = 2**53 - 1
"""The largest sum that is written as a number and read back exact by every JSON client (RFC 8785):
$9,007,199,254.740991. It bounds what a window without a limit can hold."""

_FRACTION_DIGITS_MAX = 6
_WHOLE_DIGITS_MAX = 9
_EXPONENT = re.compile(r"[0-9]e-0?[56]")
_TEXT_OR_EXPONENT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(-?[0-9.]+e-0?[56](?![0-9]))')
_DECIMAL = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?")


class AmountError(ValueError):
    """A value that is not an amount of money. The message names no field: the caller adds it."""


def parse_usd(value: str | int) -> int:
    """Turn US dollars into micro-USD, between 1 and `AMOUNT_MAX_MICRO_USD`.

    `value` is a whole number, or decimal text of ASCII digits with up to 6 digits after the point:
    no sign, exponent, separator, space or leading zero. Anything else raises `AmountError`; a float
    does too, because it has already lost what its author wrote.
    """
    if isinstance(value, str):
        micro = _micro_usd(value)
    elif type(value) is int:  # a bool is an int to isinstance
        micro = value * MICRO_USD_PER_USD
    else:
        raise AmountError("an amount must be a whole number or decimal text")
    if micro <= 0:
        raise AmountError("an amount must be more than zero")
    if micro > AMOUNT_MAX_MICRO_USD:
        raise AmountError(f"an amount must be at most {format_usd(AMOUNT_MAX_MICRO_USD)}")
    return micro


def _micro_usd(text: str) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise AmountError("an amount must be a plain decimal number such as 12.50")
    whole, fraction = match[1], match[2] or ""
    if len(fraction) > _FRACTION_DIGITS_MAX:
        raise AmountError(f"an amount has at most {_FRACTION_DIGITS_MAX} digits after the point")
    if len(whole) > _WHOLE_DIGITS_MAX:  # before int(), whose cost grows with the square of digits
        return AMOUNT_MAX_MICRO_USD + 1
    return int(whole + fraction.ljust(_FRACTION_DIGITS_MAX, "0"))


def micro_usd_of(amount: int, decimals: int) -> int:
    """What an amount in a token's smallest unit counts against limits in dollars, at one dollar a
    token, rounded up.

    Raises:
        ValueError: it is above the largest amount that there is.
    """
    micro = -(-amount * MICRO_USD_PER_USD // int(10**decimals))
    if micro > AMOUNT_MAX_MICRO_USD:
        raise ValueError("the amount is above what can be paid at all")
    return micro


def usd_number(micro: int) -> int | float:
    """Micro-USD as a JSON number of dollars: an int when whole, else the nearest double.

    Up to `AMOUNT_MAX_MICRO_USD` the double prints as the exact amount, in its fewest digits. Below
    $0.0001 that can be with an exponent (`5e-05`), which `parse_usd` refuses: `plain_decimals`.
    """
    dollars, rest = divmod(micro, MICRO_USD_PER_USD)
    return micro / MICRO_USD_PER_USD if rest else dollars


def plain_decimals(json_text: str) -> str:
    """The same JSON with numbers as small as amounts can be in digits alone: `0.00005`.

    Who sends an amount back as it came must not have sent an exponent.
    """
    # Almost always there is none, and the first question takes a tenth of the second's time.
    if "e-" not in json_text or not _EXPONENT.search(json_text):
        return json_text
    return _TEXT_OR_EXPONENT.sub(
        lambda match: match[0] if match[1] is None else format(Decimal(match[1]), "f"), json_text
    )


def plain_usd(micro: int) -> str:
    """Micro-USD (zero or more) as the one decimal without trailing zeros: `1234.5`, `20`."""
    assert micro >= 0
    dollars, rest = divmod(micro, MICRO_USD_PER_USD)
    return f"{dollars}.{rest:06}".rstrip("0").rstrip(".")


def format_usd(micro: int) -> str:
    """Micro-USD (zero or more) for people: `$1,234.50`, with 2 to 6 digits after the point."""
    assert micro >= 0
    dollars, rest = divmod(micro, MICRO_USD_PER_USD)
    fraction = f"{rest:06}"
    return f"${dollars:,}.{fraction[:2]}{fraction[2:].rstrip('0')}"
