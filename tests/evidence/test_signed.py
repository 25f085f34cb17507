"""Evidence of a session whose key signed: what the chain shows of it is told apart from the rest,
and nothing is told that is withheld."""

from pathlib import Path

import pytest

from engine.audit.examination import Examination
from engine.audit.report import Verdict
from engine.audit.statement import statement
from engine.audit.verify import examine
from engine.evidence.chain_view import GatewayView
from engine.payments.gate import NoUsableOffer
from tests.ledger.paying import CENT, SHOP, ask_gate, offer, settle_on_chain, signed
from tests.world import WORKSPACE, World


def examined(world: World, session_id: str, *withhold: str) -> Examination:
    """A new file of the session, judged."""
    world.engine.anchor()
    file = world.engine.evidence(WORKSPACE, session_id, withhold=withhold)
    assert SHOP.encode() in file
    for told in (b"api.shop.test", b"the shop's"):
        assert (told in file) is not bool(withhold)
    chain, registry = GatewayView(world.engine.gateway), world.engine.deployment.registry
    return examine(file, chain, registry=registry)


@pytest.mark.parametrize("withhold", [(), ("merchant",)], ids=["whole", "withheld"])
def test_a_signed_payment_is_open_until_the_chain_has_it_and_whatever_else_is_an_incident(
    tmp_path: Path, withhold: tuple[str, ...]
) -> None:
    world = World(tmp_path / "data")
    view = world.session(mint_pkp=True)
    found = signed(world, view, key="the shop's own words")
    with pytest.raises(NoUsableOffer):
        ask_gate(world, view, offer(world, scheme="the shop's scheme"))
    first = examined(world, view.id, *withhold)
    assert first.report.verdict is Verdict.PENDING
    [row] = [check for check in first.report.checks if check.verdict is not Verdict.VERIFIED]
    assert row.name == "spends"
    assert found.payment.id in row.reason

    settle_on_chain(world, found)
    second = examined(world, view.id, *withhold)
    assert second.report.verdict is Verdict.VERIFIED
    [settlement] = statement(second)["settlements"]
    assert (settlement["payment"], settlement["state"]) == (found.payment.id, "settled")

    older = world.engine.evidence(WORKSPACE, view.id, withhold=withhold)
    stray = signed(world, view, offer(world, CENT + 1), key="the shop's other words")
    settle_on_chain(world, stray)
    file = world.engine.evidence(WORKSPACE, view.id)
    chain, registry = GatewayView(world.engine.gateway), world.engine.deployment.registry
    again = examine(older, chain, registry=registry)
    assert again.report.verdict is Verdict.PENDING, "it is newer than the file"
    [incident] = statement(again)["incidents"]
    assert incident["nonce"] == "0x" + stray.authorization.nonce.hex()
    assert examine(file, chain, registry=registry).report.verdict is Verdict.PENDING  # the tail
    world.engine.close()
