"""No byte of an evidence file is idle: change any one, and it is tampered."""

from collections.abc import Callable

import pytest

from engine.audit.verify import Verdict
from tests.evidence.story import Story, story

DIGITS = b"0123456789abcdef"


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


def flipped(byte: int, place: int) -> int:
    """One bit is another; which one, goes round."""
    return byte ^ 1 << place % 8


def plausible(byte: int, place: int) -> int:
    """A byte that fits where it stands, so that more than the form must notice."""
    if byte in DIGITS:
        return DIGITS[(DIGITS.index(byte) + 1 + place % 3) % (10 if byte in b"0123456789" else 16)]
    return byte ^ 0x20 if chr(byte).isalpha() else ord("0")


@pytest.mark.parametrize("substitute", [flipped, plausible], ids=["bit", "digit"])
def test_every_changed_byte_is_noticed(told: Story, substitute: Callable[[int, int], int]) -> None:
    file = bytearray(told.small)
    unnoticed = []
    for place, byte in enumerate(told.small):
        file[place] = substitute(byte, place)
        assert file[place] != byte
        if told.verify(bytes(file)).verdict is not Verdict.TAMPERED:
            unnoticed.append(place)
        file[place] = byte
    assert unnoticed == []
    assert told.verify(bytes(file)).verdict is Verdict.VERIFIED


def test_every_cut_is_noticed(told: Story) -> None:
    """From the end, from the beginning, and a byte out of the middle."""
    size = len(told.small)
    for place in range(0, size, 5):
        for file in (
            told.small[:place],
            told.small[place + 1 :],
            told.small[:place] + told.small[place + 1 :],
        ):
            assert told.verify(file).verdict is Verdict.TAMPERED
