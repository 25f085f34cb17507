"""What counts as paid in a transaction in which other things were done, too."""

from typing import Any

import pytest

from engine.chain.contracts import AUTHORIZATION_USED, ERC20_TRANSFER
from engine.chain.gateway import Log, Receipt
from engine.payments.authorization import Authorization
from engine.selling.witness import Witness

TOKEN, OTHER_TOKEN = "0x" + "70" * 20, "0x" + "71" * 20
PAYER, PAYEE, SOMEBODY = ("0x" + digit * 40 for digit in "123")
OURS, THEIRS = b"\1" * 32, b"\2" * 32
AMOUNT = 100
Event = tuple[str, tuple[bytes, ...], bytes]


def padded(address: str) -> bytes:
    return bytes.fromhex(address[2:]).rjust(32, b"\0")


def used(payer: str = PAYER, nonce: bytes = OURS) -> Event:
    return TOKEN, (AUTHORIZATION_USED, padded(payer), nonce), b""


def moved(
    payer: str = PAYER, pay_to: str = PAYEE, amount: int = AMOUNT, token: str = TOKEN
) -> Event:
    return token, (ERC20_TRANSFER, padded(payer), padded(pay_to)), amount.to_bytes(32)


THEIR_USE = used(SOMEBODY, THEIRS)
PAID: dict[str, list[Event]] = {
    "alone": [used(), moved()],
    "the token says it the other way round": [moved(), used()],
    "another before": [THEIR_USE, moved(SOMEBODY, amount=1), used(), moved()],
    "another after": [used(), moved(), THEIR_USE, moved(SOMEBODY)],
    "another of the payer's": [used(nonce=THEIRS), moved(), used(), moved()],
    "a gift": [moved(SOMEBODY), used(), moved()],
    "another token between": [used(), moved(token=OTHER_TOKEN), moved()],
}
UNPAID: dict[str, list[Event]] = {
    "nothing moved": [used()],
    "nothing used": [moved()],
    "less": [used(), moved(amount=AMOUNT - 1)],
    "to somebody else": [used(), moved(pay_to=SOMEBODY)],
    "by somebody else": [used(), moved(SOMEBODY)],
    "of another token": [used(), moved(token=OTHER_TOKEN)],
    "the transfer is the other's": [used(), moved(pay_to=SOMEBODY), used(nonce=THEIRS), moved()],
    "the transfer was the other's": [used(nonce=THEIRS), moved(), used(), moved(pay_to=SOMEBODY)],
    "something between": [used(), THEIR_USE, moved()],
    "and back": [used(), moved(), moved(PAYEE, PAYER)],
    "and away": [THEIR_USE, used(), moved(), moved(PAYEE, SOMEBODY, 1)],
}


class Chain:
    """Has one transaction."""

    chain_id = 1

    def __init__(self, events: list[Event]) -> None:
        where = 7, b"\7" * 32, b"\x08" * 32
        logs = tuple(Log(*event, *where, n) for n, event in enumerate(events))
        self._receipt = Receipt(b"\x08" * 32, 7, b"\7" * 32, True, 21_000, None, logs)

    def receipt(self, tx_hash: bytes) -> Receipt:
        return self._receipt


@pytest.mark.parametrize(
    ("events", "paid"),
    [(each, True) for each in PAID.values()] + [(each, False) for each in UNPAID.values()],
    ids=[*PAID, *UNPAID],
)
def test_it_is_paid_if_the_token_says_so_of_this_authorization(
    events: list[Event], paid: bool
) -> None:
    chain: Any = Chain(events)
    authorization = Authorization(PAYER, PAYEE, AMOUNT, 0, 2**32, OURS)
    assert Witness(chain).confirms(TOKEN, authorization, "0x" + "08" * 32) is paid
