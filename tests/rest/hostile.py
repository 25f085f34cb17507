"""Spellings that are no amount of money, as they stand in a request body."""

import json

_TEXTS = {
    "exponent": "1e3",
    "capital exponent": "1E-3",
    "full width digits": "\uff11\uff12",
    "mixed digits": "1\uff12",
    "mixed fraction": "1.\u0665",
    "arabic digits": "\u0663",
    "superscript": "\u00b2",
    "fraction": "\u00bd",
    "underscore": "1_000",
    "comma": "1,000",
    "currency": "$1",
    "minus": "-1",
    "unicode minus": "\u22121",
    "plus": "+1",
    "hexadecimal": "0x10",
    "no fraction digits": "1.",
    "no whole digits": ".5",
    "two points": "1.2.3",
    "leading zero": "01",
    "seven decimals": "1.0000001",
    "NaN": "NaN",
    "infinity": "Infinity",
    "word": "true",
    "empty": "",
    "space before": " 1",
    "space after": "1 ",
    "newline after": "1\n",
    "nul after": "1\0",
    "zero width space": "1\u200b",
    "long fraction": "1." + "0" * 5_000,
}
_NUMBERS = {
    "exponent": "1e3",
    "capital exponent": "1E-3",
    "exponent of an amount": "1.0e0",
    "beyond every double": "1e400",
    "seven decimals": "1.0000001",
    "minus one": "-1",
    "minus zero": "-0",
    "minus zero point zero": "-0.0",
    "NaN": "NaN",
    "infinity": "Infinity",
    "minus infinity": "-Infinity",
    "true": "true",
    "false": "false",
    "array": "[1]",
    "object": '{"amount":1}',
}
_LARGE = {
    "one too much": "1000000000",
    "a millionth too much": "999999999.9999991",
    "2^53+1": str(2**53 + 1),
    "2^63": str(2**63),
    "2^64": str(2**64),
    "2^256": str(2**256),
    "10^30": str(10**30),
    "5000 digits": "9" * 5_000,
}

NOT_AMOUNTS = {
    **{f"text {name}": json.dumps(text) for name, text in _TEXTS.items()},
    **{f"number {name}": text for name, text in _NUMBERS.items()},
    **{f"number {name}": text for name, text in _LARGE.items()},
    **{f"text {name}": f'"{text}"' for name, text in _LARGE.items()},
}
"""JSON, or nearly (NaN), by what is wrong with it."""

ZEROS = {"0": "0", "0.0": "0.0", "text 0": '"0"', "text 0.00": '"0.00"'}

NOT_JSON = ("01", "+1", ".5", "1.", "0x10", "1_000", "\uff11", "nan", "undefined", "'1'", "")
"""What JSON has no place for, so that nobody can say which field it was."""
