"""Evidence of a session whose key signed: it verifies, and tells nothing that is withheld."""

from pathlib import Path

import pytest

from engine.audit.report import Verdict
from engine.audit.verify import verify
from engine.evidence.chain_view import GatewayView
from engine.payments.gate import NoUsableOffer
from tests.ledger.paying import SHOP, ask_gate, offer, signed
from tests.world import WORKSPACE, World


def test_evidence_of_signed_payments_verifies_whole_and_withheld(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    view = world.session(mint_pkp=True)
    signed(world, view, key="the shop's own words")
    with pytest.raises(NoUsableOffer):
        ask_gate(world, view, offer(world, scheme="the shop's scheme"))
    world.engine.anchor()
    chain, registry = GatewayView(world.engine.gateway), world.engine.deployment.registry
    for withhold in ((), ("merchant",)):
        file = world.engine.evidence(WORKSPACE, view.id, withhold=withhold)
        assert verify(file, chain, registry=registry).verdict is Verdict.VERIFIED
        assert SHOP.encode() in file
        for told in (b"api.shop.test", b"the shop's"):
            assert (told in file) is not bool(withhold)
    world.engine.close()
