"""Whatever the session's key moved on the chain without a record is found, and named.

Where the token is one that the file names, or the key sent the transaction itself, that fails.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from engine.audit.verify import Report, Verdict, verify
from engine.chain import contracts, sender
from engine.evidence.chain_view import GatewayView
from engine.sessions.session import SessionView
from tests.evidence.test_lying_chain import Endpoint
from tests.evidence.thief import NONCE, SHOP, Thief, imitate
from tests.world import USD, WORKSPACE, World


@pytest.fixture(scope="module")
def thief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thief]:
    world = World(tmp_path_factory.mktemp("unbindable") / "data")
    yield Thief(world)
    world.engine.close()


def verified(world: World, view: SessionView) -> Report:
    world.engine.anchor()
    file = world.engine.evidence(WORKSPACE, view.id)
    return verify(
        file, GatewayView(world.engine.gateway), registry=world.engine.deployment.registry
    )


def test_money_that_comes_in_is_nobody_s_spend(thief: Thief) -> None:
    view = thief.world.session(mint_pkp=True)
    thief.mint(view.grant.session_key, 5 * USD)
    assert verified(thief.world, view).verdict is Verdict.VERIFIED


def test_a_payment_authorization_that_the_key_signed_is_named(thief: Thief) -> None:
    view = thief.world.session(mint_pkp=True)
    thief.world.pay(view, 5)
    thief.mint(view.grant.session_key, 5 * USD)
    before = thief.balance(SHOP)
    tx_hash = thief.authorize(thief.key_of(view), 3 * USD)
    assert thief.balance(SHOP) == before + 3 * USD
    report = verified(thief.world, view)
    assert report.verdict is Verdict.TAMPERED
    assert report.reason == (
        "spends: 1 on the chain without a record that allows it, the first: "
        f"a payment authorization of {thief.usdc} in transaction {tx_hash} "
        f"with nonce 0x{NONCE.hex()}"
    )
    others = {check.name: check.verdict for check in report.checks if check.name != "spends"}
    assert set(others.values()) == {Verdict.VERIFIED}


def test_a_transfer_that_the_key_sent_is_named_and_its_transactions_counted(thief: Thief) -> None:
    view = thief.world.session(mint_pkp=True)
    key = thief.key_of(view)
    thief.mint(key.address.lower(), 5 * USD)
    thief.gateway.fund(key.address.lower(), 10**18)  # type: ignore[attr-defined]
    hashes = [thief.send(key, "transfer", to_checksum_address(SHOP), USD) for _ in range(2)]
    report = verified(thief.world, view)
    assert report.verdict is Verdict.TAMPERED
    assert f"a transfer of {thief.usdc} in transaction {hashes[0]}" in report.reason
    spends = GatewayView(thief.gateway).spends(key.address.lower())
    assert [spend.tx_hash and "0x" + spend.tx_hash.hex() for spend in spends] == [*hashes, None]
    assert [spend.sent_by_key for spend in spends] == [True, True, False]
    assert (spends[-1].kind, spends[-1].count) == ("transactions", 2)


def test_native_transactions_that_no_event_tells_of_are_counted(thief: Thief) -> None:
    view = thief.world.session(mint_pkp=True)
    key = thief.key_of(view)
    thief.gateway.fund(key.address.lower(), 10**18)  # type: ignore[attr-defined]
    for _ in range(3):
        sender.send(thief.gateway, key, to=SHOP, data=b"", value=1)
    report = verified(thief.world, view)
    assert report.verdict is Verdict.TAMPERED
    assert report.reason.endswith("the first: 3 transactions sent by the key itself")


def test_an_allowance_that_a_stranger_used_is_named(thief: Thief) -> None:
    """The key sends nothing but an approval; the money leaves in somebody else's transaction."""
    view = thief.world.session(mint_pkp=True)
    key = thief.key_of(view)
    thief.mint(key.address.lower(), 5 * USD)
    thief.gateway.fund(key.address.lower(), 10**18)  # type: ignore[attr-defined]
    thief.send(key, "approve", thief.stranger.address, USD)
    tx_hash = thief.send(
        thief.stranger, "transferFrom", key.address, to_checksum_address(SHOP), USD
    )
    report = verified(thief.world, view)
    assert report.verdict is Verdict.TAMPERED
    assert tx_hash in report.reason


def test_a_key_that_was_used_before_its_session_was_registered_is_found(thief: Thief) -> None:
    """The key is there as soon as the session waits for consent."""
    waiting = thief.world.create()
    assert waiting.state == "awaiting_consent"
    thief.mint(waiting.grant.session_key, 5 * USD)
    tx_hash = thief.authorize(thief.key_of(waiting), USD)
    view = thief.world.consent(waiting)
    assert view.state == "active"
    report = verified(thief.world, view)
    assert report.verdict is Verdict.UNBINDABLE
    assert tx_hash in report.reason


def test_a_stranger_that_moves_nothing_cannot_spoil_the_file(thief: Thief) -> None:
    """Anybody can make a token say that nothing was moved from an address."""
    view = thief.world.session(mint_pkp=True)
    key = to_checksum_address(view.grant.session_key)
    head = thief.gateway.head().number
    thief.send(thief.stranger, "transferFrom", key, to_checksum_address(SHOP), 0)
    logs = thief.gateway.logs(from_block=head + 1, to_block=head + 1)
    assert [log.topics[:2] for log in logs] == [
        (contracts.ERC20_TRANSFER, bytes(12) + bytes.fromhex(key[2:]))
    ]
    assert verified(thief.world, view).verdict is Verdict.VERIFIED


def test_an_authorization_of_nothing_is_still_the_key_s_signature(thief: Thief) -> None:
    view = thief.world.session(mint_pkp=True)
    tx_hash = thief.authorize(thief.key_of(view), 0)
    report = verified(thief.world, view)
    assert report.verdict is Verdict.UNBINDABLE
    assert tx_hash in report.reason


STRANGE = " told by contracts that neither the grant nor an allowed payment names: "


def test_a_stranger_s_imitation_of_a_token_is_told_apart_but_not_ignored(thief: Thief) -> None:
    """No rule can tell it from a token of value that nobody listed: the reader must."""
    view = thief.world.session(mint_pkp=True)
    thief.world.pay(view, 5)
    address, tx_hash = imitate(thief, view.grant.session_key)
    report = verified(thief.world, view)
    assert report.verdict is Verdict.UNBINDABLE
    assert report.reason == (
        "spends: 1 on the chain without a record that allows it, the first: "
        f"a transfer of {address} in transaction {tx_hash}; 1{STRANGE}"
        "real tokens, or somebody's imitations"
    )


def test_no_imitation_hides_a_spend_of_a_token_that_the_file_names(thief: Thief) -> None:
    """In a payment that was allowed, or in the grant."""
    asset = thief.world.request(1).token
    for changes in ({}, {"tokens": (asset,)}):
        view = thief.world.session(mint_pkp=True, **changes)
        if not changes:
            thief.world.pay(view, 5)
        for _ in range(3):
            imitate(thief, view.grant.session_key)
        thief.mint(view.grant.session_key, USD)
        tx_hash = thief.authorize(thief.key_of(view), USD)
        report = verified(thief.world, view)
        assert report.verdict is Verdict.TAMPERED
        assert "spends: 1 on the chain without a record that allows it, the first: a payment " in (
            report.reason
        )
        assert f"{thief.usdc} in transaction {tx_hash} with nonce " in report.reason
        assert "; 3 on the chain without a record that allows it, the first: " in report.reason


def test_no_imitation_hides_a_spend_in_its_own_transaction(thief: Thief) -> None:
    view = thief.world.session(mint_pkp=True)
    thief.world.pay(view, 5)
    thief.mint(view.grant.session_key, USD)
    tx_hash = thief.authorize(thief.key_of(view), USD)

    def lie(name: str, _arguments: tuple[Any, ...], answer: Any) -> Any:
        if name != "logs":
            return answer
        return [log for each in answer for log in (replace(each, address=SHOP), each)]

    spends = GatewayView(Endpoint(thief.gateway, lie)).spends(view.grant.session_key)
    told = {(spend.contract, spend.tx_hash and "0x" + spend.tx_hash.hex()) for spend in spends}
    assert told == {(SHOP, tx_hash), (thief.usdc, tx_hash)}


def test_an_imitation_does_not_outshout_the_key_s_own_transactions(thief: Thief) -> None:
    view = thief.world.session(mint_pkp=True)
    key = thief.key_of(view)
    address, _ = imitate(thief, view.grant.session_key)
    thief.gateway.fund(key.address.lower(), 10**18)  # type: ignore[attr-defined]
    sender.send(thief.gateway, key, to=SHOP, data=b"", value=1)
    report = verified(thief.world, view)
    assert report.verdict is Verdict.TAMPERED
    assert "the first: 1 transaction sent by the key itself; 1 on the chain " in report.reason
    assert address in report.reason
