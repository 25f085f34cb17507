"""Sending when the chain asks too much or does not answer: nothing is lost, nothing is overpaid."""

import pytest

from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import (
    ChainUnavailable,
    Receipt,
    TransactionPending,
    TransactionRejected,
)
from engine.chain.sender import MAX_FEE_PER_GAS_WEI, MAX_GAS, send, sign, wait

NOBODY = "0x" + "ab" * 20


class Troubled(EmbeddedChain):
    """A real chain whose line to us can be cut, and which may ask for more."""

    asks_gas: int | None = None
    asks_fee: int | None = None
    loses_answers = False
    receipts_lost = 0

    def estimate_gas(self, *, sender: str, to: str | None, data: bytes, value: int = 0) -> int:
        honest = super().estimate_gas(sender=sender, to=to, data=data, value=value)
        return honest if self.asks_gas is None else self.asks_gas

    def fees(self) -> tuple[int, int]:
        honest = super().fees()
        return honest if self.asks_fee is None else (self.asks_fee, self.asks_fee)

    def send_raw(self, raw: bytes) -> bytes:
        tx_hash = super().send_raw(raw)
        if self.loses_answers:
            raise ChainUnavailable("the line was cut after the transaction got through")
        return tx_hash

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        if self.receipts_lost:
            self.receipts_lost -= 1
            raise ChainUnavailable("the line was cut")
        return super().receipt(tx_hash)


def test_a_lost_answer_leaves_the_hash_to_ask_for() -> None:
    chain = Troubled(None)
    chain.loses_answers = True
    with pytest.raises(TransactionPending) as caught:
        send(chain, chain.faucet, to=NOBODY, data=b"", value=3)
    chain.receipts_lost = 2
    receipt = wait(chain, caught.value.tx_hash, timeout_s=10, poll_s=0.001)
    assert receipt.succeeded
    assert chain.balance(NOBODY) == 3
    chain.receipts_lost = 10**9
    with pytest.raises(TransactionPending) as caught:
        wait(chain, receipt.tx_hash, timeout_s=0.01, poll_s=0.001)
    assert isinstance(caught.value.__cause__, ChainUnavailable)
    chain.close()


@pytest.mark.parametrize(
    ("gas", "fee"), [(MAX_GAS + 1, None), (None, MAX_FEE_PER_GAS_WEI + 1), (2**200, 2**200)]
)
def test_an_unreasonable_price_is_not_paid(gas: int | None, fee: int | None) -> None:
    chain = Troubled(None)
    chain.asks_gas, chain.asks_fee = gas, fee
    with pytest.raises(TransactionRejected):
        send(chain, chain.faucet, to=NOBODY, data=b"", value=1)
    assert chain.head().number == 0
    chain.close()


def test_a_signed_transaction_can_be_written_down_first() -> None:
    chain = EmbeddedChain(None)
    signed = sign(chain, chain.faucet, to=NOBODY, data=b"", value=1)
    assert signed.nonce == 0
    assert chain.head().number == 0
    assert chain.receipt(signed.hash) is None
    assert chain.send_raw(signed.raw) == signed.hash
    assert wait(chain, signed.hash, timeout_s=0, poll_s=0.001).succeeded
    chain.close()
