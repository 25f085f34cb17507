"""A few of what `scripts/settle-flood` sends by hundreds."""

import pytest

from tests.gate.settle_flood import Flood
from tests.gate.stall import Stall


@pytest.mark.anyio
async def test_a_flood_of_slow_settlements_serves_nobody_unpaid_and_keeps_nobody_waiting(
    stall: Stall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.selling.witness.CONFIRMING_S", 0.05)
    flood = Flood(stall, seed=7, clients=6, places=3, payer_places=1, answer_s=30)
    await flood.run()
    assert flood.seen["told at once to come again"] == 5 + 3
    assert flood.seen["refused and not charged"] > 0
    assert flood.seen["paid once, answered once"] > 12
