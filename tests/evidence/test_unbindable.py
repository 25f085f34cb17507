"""Whatever the session's key moved on the chain without a record is found, and named."""

from collections.abc import Iterator

import pytest
from eth_utils.address import to_checksum_address

from engine.audit.verify import Report, Verdict, verify
from engine.chain import contracts, sender
from engine.evidence.chain_view import GatewayView
from engine.sessions.lifecycle import SessionView
from tests.evidence.thief import SHOP, Thief
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
    assert report.verdict is Verdict.UNBINDABLE
    assert report.reason == (
        "spends: 1 on the chain without a record that names it, the first: "
        f"a payment authorization of {thief.usdc} in transaction {tx_hash}"
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
    assert report.verdict is Verdict.UNBINDABLE
    assert f"a transfer of {thief.usdc} in transaction {hashes[0]}" in report.reason
    spends = GatewayView(thief.gateway).spends(key.address.lower())
    assert [spend.tx_hash and "0x" + spend.tx_hash.hex() for spend in spends] == [*hashes, None]
    assert spends[-1].what == "2 transactions sent by the key itself"


def test_native_transactions_that_no_event_tells_of_are_counted(thief: Thief) -> None:
    view = thief.world.session(mint_pkp=True)
    key = thief.key_of(view)
    thief.gateway.fund(key.address.lower(), 10**18)  # type: ignore[attr-defined]
    for _ in range(3):
        sender.send(thief.gateway, key, to=SHOP, data=b"", value=1)
    report = verified(thief.world, view)
    assert report.verdict is Verdict.UNBINDABLE
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
    assert report.verdict is Verdict.UNBINDABLE
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
