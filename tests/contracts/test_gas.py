"""What transactions cost is written down, and stays within what was promised."""

import json
from dataclasses import replace

import pytest

from tests.contracts.deployed import Contracts
from tests.contracts.gas import SNAPSHOT, measured, text

BUDGETS = {
    "register": 80_000,
    "register, with as few zeros as a grant can have": 80_000,
    "register, without a signature": 80_000,
    "register, each of 50": 60_000,
    "revoke, by the owner": 40_000,
    "revoke, by an operator": 40_000,
    "revoke, by signature": 40_000,
    "revoke, each of 50": 40_000,
    "anchor": 40_000,
    "anchor, the largest": 40_000,
}


@pytest.fixture(scope="module")
def gas() -> dict[str, int]:
    """Measured now."""
    return measured()


def test_the_snapshot_is_what_is_measured(gas: dict[str, int]) -> None:
    """When it is not and the change is meant: `python -m tests.contracts.gas`."""
    assert SNAPSHOT.read_text() == text(gas)


@pytest.mark.parametrize("what", BUDGETS)
def test_within_its_budget(what: str) -> None:
    assert json.loads(SNAPSHOT.read_text())[what] <= BUDGETS[what]


def test_a_registration_costs_the_same_however_long_its_lists_are() -> None:
    contracts = Contracts()
    costs = []
    for number, merchants in enumerate(
        [(), ("a.example",), tuple(f"{n}.example" for n in range(500))]
    ):
        grant = replace(contracts.grant(number), merchants=merchants, workspace="other")
        receipt = contracts.send("register", [contracts.registration(grant, number)])
        costs.append(receipt.gas_used)
    contracts.chain.close()
    first, second, third = costs
    assert first > second  # it opened the workspace
    assert abs(third - second) < 100  # a zero byte more or less in a hash or a signature
