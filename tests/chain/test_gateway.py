"""What every `ChainGateway` must do, on the embedded chain, its RPC port and a real Anvil."""

import pytest
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from engine.chain.bloom import admits, bloom_of, mask_of
from engine.chain.gateway import (
    CallReverted,
    ChainUnavailable,
    Log,
    TopicFilter,
    TransactionPending,
    TransactionRejected,
    log_matches,
    revert_reason,
)
from engine.chain.sender import MAX_GAS, send, sign, wait
from tests.chain.bytecode import EVENT, RUNTIME, echo, emit, revert, time
from tests.chain.conftest import ChainUnderTest

ETHER = 10**18
NOBODY = "0x" + "ab" * 20
UNKNOWN_HASH = b"\x5a" * 32

# Error("not today"), as the Solidity ABI specification encodes it.
NOT_TODAY = bytes.fromhex("08c379a0") + b"".join(
    [(32).to_bytes(32), (9).to_bytes(32), b"not today".ljust(32, b"\0")]
)


def test_a_transfer_is_mined_and_moves_the_money(chain: ChainUnderTest, poor: LocalAccount) -> None:
    to = poor.address.lower()
    before = chain.gateway.balance(chain.rich.address.lower())
    receipt = chain.transact(to=to, value=ETHER)
    assert receipt.succeeded
    assert receipt.gas_used == 21_000
    assert (receipt.contract_address, receipt.logs) == (None, ())
    assert chain.gateway.balance(to) == ETHER
    assert ETHER < before - chain.gateway.balance(chain.rich.address.lower()) < ETHER + 10**16
    assert chain.gateway.receipt(receipt.tx_hash) == receipt


def test_blocks_chain_up_and_time_moves_forward(chain: ChainUnderTest) -> None:
    chain.transact(to=NOBODY)
    head = chain.gateway.head()
    assert chain.gateway.block(head.number) == head
    for number in range(head.number, 0, -1):
        child, parent = chain.gateway.block(number), chain.gateway.block(number - 1)
        assert child is not None
        assert parent is not None
        assert child.parent_hash == parent.hash
        assert child.timestamp_s >= parent.timestamp_s
    assert chain.gateway.block(head.number + 1) is None
    assert chain.gateway.block(2**40) is None


def test_headers_are_those_of_the_blocks(chain: ChainUnderTest) -> None:
    for _ in range(3):
        chain.transact(to=NOBODY)
    last = chain.gateway.head().number
    headers = chain.gateway.headers(0, last)
    assert headers == [chain.gateway.block(number) for number in range(last + 1)]
    assert chain.gateway.headers(last, last) == [chain.gateway.head()]
    assert chain.gateway.headers(last, last - 1) == []
    with pytest.raises(ChainUnavailable, match="disappeared"):
        chain.gateway.headers(last, last + 1)


def test_the_events_of_a_block_make_up_its_bloom(chain: ChainUnderTest) -> None:
    emitting = chain.transact(to=chain.contract, data=emit(b"notch")).block_number
    silent = chain.transact(to=NOBODY).block_number
    for number in (emitting, silent):
        header = chain.gateway.block(number)
        assert header is not None
        logs = chain.gateway.block_logs(header)
        assert logs == chain.gateway.logs(from_block=number, to_block=number)
        assert bloom_of(logs) == header.logs_bloom
        emitted = mask_of(bytes.fromhex(chain.contract[2:]), EVENT)
        assert admits(header.logs_bloom, emitted) == (number == emitting)
        assert not admits(header.logs_bloom, mask_of(b"something else"))


def test_code_has_a_hash_where_there_is_some(chain: ChainUnderTest) -> None:
    funded = chain.rich.address.lower()
    hashes = chain.gateway.code_hashes([NOBODY, chain.contract, funded])
    assert hashes == [bytes(32), keccak(RUNTIME), bytes(32)]
    assert chain.gateway.code_hashes([]) == []


def test_a_receipt_names_its_block(chain: ChainUnderTest) -> None:
    receipt = chain.transact(to=NOBODY)
    block = chain.gateway.block(receipt.block_number)
    assert block is not None
    assert block.hash == receipt.block_hash


def test_a_contract_is_created_where_the_receipt_says(chain: ChainUnderTest) -> None:
    assert chain.gateway.code(chain.contract) == RUNTIME
    assert chain.contract == chain.contract.lower()
    assert chain.gateway.code(NOBODY) == b""


def test_a_call_returns_what_the_contract_returns(chain: ChainUnderTest) -> None:
    assert chain.gateway.call(chain.contract, echo(b"tally")) == b"tally"
    assert chain.gateway.call(chain.contract, echo(b"")) == b""
    assert chain.gateway.call(NOBODY, b"anything") == b""


def test_a_call_sees_the_asked_block(chain: ChainUnderTest) -> None:
    first = chain.transact(to=NOBODY)
    chain.transact(to=NOBODY)
    seen = chain.gateway.call(chain.contract, time, block=first.block_number)
    block = chain.gateway.block(first.block_number)
    assert block is not None
    assert int.from_bytes(seen) == block.timestamp_s
    with pytest.raises(ChainUnavailable):
        chain.gateway.call(chain.contract, time, block=first.block_number + 1000)


def test_a_revert_carries_its_data_and_reason(chain: ChainUnderTest) -> None:
    with pytest.raises(CallReverted) as caught:
        chain.gateway.call(chain.contract, revert(NOT_TODAY))
    assert caught.value.data == NOT_TODAY
    assert caught.value.reason == "not today"
    with pytest.raises(CallReverted) as caught:
        chain.gateway.call(chain.contract, revert(b"\xde\xad\xbe\xef"))
    assert caught.value.data == b"\xde\xad\xbe\xef"


def test_running_out_of_gas_is_a_failed_call(chain: ChainUnderTest) -> None:
    with pytest.raises(CallReverted) as caught:
        chain.gateway.call(chain.contract, b"")
    assert caught.value.data == b""
    assert caught.value.reason


def test_a_revert_is_found_before_sending(chain: ChainUnderTest) -> None:
    sender = chain.rich.address.lower()
    nonce = chain.gateway.transaction_count(sender)
    with pytest.raises(CallReverted, match="not today"):
        send(chain.gateway, chain.rich, to=chain.contract, data=revert(NOT_TODAY))
    assert chain.gateway.transaction_count(sender) == nonce


def test_a_mined_revert_has_a_receipt_that_says_so(chain: ChainUnderTest) -> None:
    raw = _signed_by_hand(chain, data=revert(NOT_TODAY))
    receipt = wait(chain.gateway, chain.gateway.send_raw(raw), timeout_s=20, poll_s=0.01)
    assert not receipt.succeeded
    assert receipt.logs == ()


def test_an_event_is_in_the_receipt_and_in_the_logs(chain: ChainUnderTest) -> None:
    receipt = chain.transact(to=chain.contract, data=emit(b"notch"))
    sender = bytes.fromhex(chain.rich.address[2:]).rjust(32, b"\0")
    expected = Log(
        address=chain.contract,
        topics=(EVENT, sender),
        data=b"notch",
        block_number=receipt.block_number,
        block_hash=receipt.block_hash,
        tx_hash=receipt.tx_hash,
        log_index=0,
    )
    assert receipt.logs == (expected,)
    number = receipt.block_number
    assert chain.gateway.logs(from_block=number, to_block=number) == [expected]


def test_logs_are_filtered_by_range_address_and_topics(
    chain: ChainUnderTest, poor: LocalAccount
) -> None:
    gateway = chain.gateway
    chain.transact(to=poor.address.lower(), value=ETHER)
    first = chain.transact(to=chain.contract, data=emit(b"1"))
    tx_hash = send(gateway, poor, to=chain.contract, data=emit(b"2"))
    second = wait(gateway, tx_hash, timeout_s=20, poll_s=0.01)
    (one,), (two,) = first.logs, second.logs
    low, high = first.block_number, second.block_number

    def found(**wanted: object) -> list[Log]:
        bounds = {"from_block": low, "to_block": high} | wanted
        return gateway.logs(**bounds)  # type: ignore[arg-type]

    assert found() == [one, two]
    assert found(to_block=high - 1) == [one]
    assert found(from_block=low + 1) == [two]
    assert found(from_block=high, to_block=low) == []
    assert found(addresses=[chain.contract]) == [one, two]
    assert found(addresses=[NOBODY, chain.contract]) == [one, two]
    assert found(addresses=[NOBODY]) == []
    assert found(addresses=[]) == []
    assert found(topics=[EVENT]) == [one, two]
    assert found(topics=[UNKNOWN_HASH]) == []
    assert found(topics=[None, two.topics[1]]) == [two]
    assert found(topics=[(UNKNOWN_HASH, EVENT), None]) == [one, two]
    assert found(topics=[()]) == []
    assert found(topics=[EVENT, None, None]) == [one, two]
    assert found(topics=[EVENT, None, EVENT]) == []


def test_what_is_unknown_has_no_receipt(chain: ChainUnderTest) -> None:
    assert chain.gateway.receipt(UNKNOWN_HASH) is None
    with pytest.raises(TransactionPending) as caught:
        wait(chain.gateway, UNKNOWN_HASH, timeout_s=0.05, poll_s=0.01)
    assert caught.value.tx_hash == UNKNOWN_HASH


def test_the_nonce_counts_transactions(chain: ChainUnderTest, poor: LocalAccount) -> None:
    sender = chain.rich.address.lower()
    before, block = (
        chain.gateway.transaction_count(sender, pending=True),
        chain.gateway.head().number,
    )
    chain.transact(to=NOBODY)
    assert chain.gateway.transaction_count(sender) == before + 1
    assert chain.gateway.transaction_count(sender, block=block) == before
    assert chain.gateway.transaction_count(sender, block=block + 1) == before + 1
    assert chain.gateway.transaction_count(sender, pending=True) == before + 1
    assert chain.gateway.transaction_count(poor.address.lower()) == 0


def test_sending_the_same_transaction_twice_is_harmless(chain: ChainUnderTest) -> None:
    signed = sign(chain.gateway, chain.rich, to=NOBODY, data=b"", value=1)
    assert chain.gateway.send_raw(signed.raw) == signed.hash
    receipt = wait(chain.gateway, signed.hash, timeout_s=20, poll_s=0.01)
    assert chain.gateway.send_raw(signed.raw) == signed.hash
    assert chain.gateway.receipt(signed.hash) == receipt


def test_a_used_nonce_is_rejected(chain: ChainUnderTest) -> None:
    chain.transact(to=NOBODY)
    with pytest.raises(TransactionRejected, match="nonce"):
        send(chain.gateway, chain.rich, to=NOBODY, data=b"", value=7, nonce=0)


def test_a_signature_for_another_chain_is_rejected(chain: ChainUnderTest) -> None:
    raw = _signed_by_hand(chain, data=b"", chain_id=chain.gateway.chain_id + 1)
    with pytest.raises(TransactionRejected):
        chain.gateway.send_raw(raw)


def test_money_that_is_not_there_cannot_be_sent(chain: ChainUnderTest, poor: LocalAccount) -> None:
    with pytest.raises(TransactionRejected):
        send(chain.gateway, poor, to=NOBODY, data=b"", value=ETHER)


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\x02\xc0", b"\xff" * 40, b"\x02" + b"\xf8" * 9])
def test_what_is_no_transaction_is_rejected(chain: ChainUnderTest, raw: bytes) -> None:
    with pytest.raises(TransactionRejected):
        chain.gateway.send_raw(raw)


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_estimated_gas_suffices_and_is_not_lavish(chain: ChainUnderTest, size: int) -> None:
    """Large calldata costs more than it executes (EIP-7623): the floor must be in the estimate."""
    receipt = chain.transact(to=chain.contract, data=emit(b"\x7f" * size))
    assert receipt.succeeded
    estimate = chain.gateway.estimate_gas(
        sender=chain.rich.address.lower(), to=chain.contract, data=emit(b"\x7f" * size)
    )
    assert receipt.gas_used <= estimate < receipt.gas_used * 1.1 < MAX_GAS


def test_fees_cover_the_next_block(chain: ChainUnderTest) -> None:
    max_fee, tip = chain.gateway.fees()
    assert max_fee >= tip >= 0
    assert max_fee > 0


def test_after_closing_nothing_answers(chain: ChainUnderTest) -> None:
    chain.gateway.close()
    chain.gateway.close()
    with pytest.raises(ChainUnavailable):
        chain.gateway.head()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", ""),
        (NOT_TODAY, "not today"),
        (bytes.fromhex("4e487b71") + (0x11).to_bytes(32), "panic 0x11"),
        (bytes.fromhex("deadbeef01"), "error 0xdeadbeef"),
        (NOT_TODAY[:40], "error 0x08c379a0"),
        (NOT_TODAY[:36] + b"\xff" * 32, "error 0x08c379a0"),
        (b"\x01", "error 0x01"),
    ],
)
def test_revert_data_is_rendered(data: bytes, reason: str) -> None:
    assert revert_reason(data) == reason


@pytest.mark.parametrize(
    ("topics", "matches"),
    [
        ([], True),
        ([None], True),
        ([None, None, None], True),
        ([EVENT], True),
        ([(EVENT, UNKNOWN_HASH)], True),
        ([()], False),
        ([UNKNOWN_HASH], False),
        ([None, EVENT], False),
        ([EVENT, (EVENT,)], False),
    ],
)
def test_a_log_with_one_topic_passes_a_filter(topics: list[TopicFilter], *, matches: bool) -> None:
    log = Log(NOBODY, (EVENT,), b"", 1, UNKNOWN_HASH, UNKNOWN_HASH, 0)
    assert log_matches(log, None, topics) is matches
    assert log_matches(log, [NOBODY], topics) is matches
    assert not log_matches(log, [], topics)


def _signed_by_hand(chain: ChainUnderTest, *, data: bytes, chain_id: int | None = None) -> bytes:
    max_fee, tip = chain.gateway.fees()
    signed = chain.rich.sign_transaction(
        {
            "type": 2,
            "chainId": chain.gateway.chain_id if chain_id is None else chain_id,
            "nonce": chain.gateway.transaction_count(chain.rich.address.lower()),
            "gas": 100_000,
            "maxFeePerGas": max_fee,
            "maxPriorityFeePerGas": tip,
            "to": bytes.fromhex(chain.contract[2:]),
            "value": 0,
            "data": data,
        }
    )
    return bytes(signed.raw_transaction)
