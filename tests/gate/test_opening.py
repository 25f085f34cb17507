"""Methods of several chains are opened at once; those that come late are offered from then on."""

import gc
import threading
import time
from typing import Any

import pytest

from engine.errors import Unavailable
from engine.selling.currency import Currency
from engine.selling.methods import PaymentMethod, PaymentMethods
from engine.selling.opening_methods import Opening
from engine.settings import Token
from tests.anvil_world import wait_until
from tests.payments.paying import PAYEE

PATIENCE_S = 30
TOKENS = [
    Token(symbol="USDC", asset=f"eip155:{chain}/erc20:0x{'12' * 20}", decimals=6, usd_price="1")
    for chain in (3, 2, 1)
]


class Chains:
    """Each answers once it is let."""

    def __init__(self, *answering: int) -> None:
        self.answering = set(answering)
        self.silent: set[int] = set()
        self.asked: list[int] = []
        self.goes_on = threading.Event()

    def __call__(self, token: Token) -> PaymentMethod:
        chain = int(token.chain.partition(":")[2])
        self.asked.append(chain)
        if chain in self.silent:
            self.goes_on.wait(PATIENCE_S)
        if chain not in self.answering:
            raise Unavailable(f"{token.chain} does not answer", code="chain_unavailable")
        facilitator: Any = None
        return PaymentMethod(Currency(token.asset, PAYEE, "USDC", "2"), facilitator)


def networks(methods: list[PaymentMethod] | PaymentMethods) -> list[str]:
    if isinstance(methods, PaymentMethods):
        return list(methods.networks)
    return [method.currency.network for method in methods]


def test_they_are_in_the_order_of_their_tokens() -> None:
    opening = Opening(TOKENS, Chains(1, 2, 3))
    assert networks(opening.first()) == ["eip155:3", "eip155:2", "eip155:1"]


def test_what_does_not_answer_is_left_out_and_offered_once_it_does() -> None:
    chains = Chains(1)
    chains.silent = {2}
    opening = Opening(TOKENS, chains, retry_s=0.005)
    methods = PaymentMethods(opening.first())
    assert networks(methods) == ["eip155:1"], "neither the one that fails nor the silent one"
    opening.add_later(methods)
    chains.answering |= {2, 3}
    wait_until(lambda: networks(methods) == ["eip155:3", "eip155:1"])
    chains.goes_on.set()
    wait_until(lambda: networks(methods) == ["eip155:3", "eip155:2", "eip155:1"])


def test_if_none_answers_nothing_is_opened_and_nobody_goes_on_asking() -> None:
    chains = Chains()
    with pytest.raises(Unavailable, match="eip155:3 does not answer"):
        Opening(TOKENS, chains, retry_s=0.05).first()
    assert sorted(chains.asked) == [1, 2, 3]
    time.sleep(0.2)
    assert sorted(chains.asked) == [1, 2, 3]


def test_when_nobody_has_the_methods_any_more_nobody_goes_on_asking() -> None:
    chains = Chains(3)
    opening = Opening(TOKENS, chains, retry_s=0.005)
    methods = PaymentMethods(opening.first())
    opening.add_later(methods)
    wait_until(lambda: len(chains.asked) > 6)
    del methods
    gc.collect()
    time.sleep(0.1)
    asked = len(chains.asked)
    time.sleep(0.1)
    assert len(chains.asked) == asked
