"""No byte of an evidence file is idle: change any one, and it is tampered."""

from collections.abc import Callable

import pytest

from engine.audit.canonical import CanonicalError
from engine.audit.verify import Verdict
from tests.evidence.story import Story, read, story

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


@pytest.mark.parametrize(
    ("substitute", "which", "step"),
    [(flipped, "small", 3), (plausible, "small", 11), (flipped, "small_blind", 17)],
    ids=["bits", "digits", "bits of a withheld file"],
)
def test_a_changed_byte_is_noticed_wherever_it_stands(
    told: Story, substitute: Callable[[int, int], int], which: str, step: int
) -> None:
    original: bytes = getattr(told, which)
    file = bytearray(original)
    unnoticed = []
    for place in range(0, len(original), step):
        byte = original[place]
        file[place] = substitute(byte, place)
        assert file[place] != byte
        if told.verify(bytes(file)).verdict is not Verdict.TAMPERED:
            unnoticed.append(place)
        file[place] = byte
    assert unnoticed == []
    assert told.verify(bytes(file)).verdict is Verdict.VERIFIED


def test_a_changed_byte_of_a_record_is_noticed_though_the_operator_seals_it(told: Story) -> None:
    """The seal hides nothing: bytes of every entry, its record, its opening and its proof."""
    original = told.small_blind
    start, end = original.index(b'"records":['), original.index(b'"registration":{')
    unnoticed = []
    for place in range(start, end, 7):
        file = bytearray(original)
        file[place] = plausible(file[place], place)
        try:
            resealed = told.seal(read(bytes(file)))
        except CanonicalError:
            continue
        if told.verify(resealed).verdict is not Verdict.TAMPERED:
            unnoticed.append(place)
    assert unnoticed == []


@pytest.mark.parametrize(("which", "step"), [("small", 11), ("small_blind", 31)])
def test_every_cut_is_noticed(told: Story, which: str, step: int) -> None:
    """From the end, from the beginning, and a byte out of the middle."""
    original: bytes = getattr(told, which)
    for place in range(0, len(original), step):
        for file in (
            original[:place],
            original[place + 1 :],
            original[:place] + original[place + 1 :],
        ):
            assert told.verify(file).verdict is Verdict.TAMPERED
