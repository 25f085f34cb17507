"""`tallystick fund`: test USDC for whoever is named, on the embedded chain and no other."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from engine.chain import contracts
from engine.chain.deploy import create
from engine.chain.embedded import EmbeddedChain
from engine.chain.embedded_rpc import EmbeddedRpc
from tests.cli.processes import called, one_line
from tests.paying.shop import balance

SOMEBODY = "0x" + "5e" * 20


@pytest.fixture(scope="module")
def chain() -> Iterator[EmbeddedChain]:
    """The embedded chain."""
    opened = EmbeddedChain(None)
    yield opened
    opened.close()


def test_an_address_gets_what_it_says(chain: EmbeddedChain) -> None:
    usdc = create(chain, chain.faucet, contracts.TEST_USDC)
    anchors = create(chain, chain.faucet, contracts.ANCHOR_REGISTRY)
    with ExitStack() as stack:
        rpc = EmbeddedRpc(chain, port=0).start()
        stack.callback(rpc.stop)
        where = ("--rpc", rpc.url)
        done = called("fund", SOMEBODY, "--token", usdc, *where)
        assert (done.returncode, done.stdout) == (0, f"{SOMEBODY} has $100.00 more\n")
        done = called("fund", SOMEBODY, "0.25", "--token", usdc, *where, "--json")
        assert json.loads(done.stdout)["amount"] == "0.25"
        assert balance(chain, usdc, SOMEBODY) == 100_250_000
        for token, said in ((SOMEBODY, "is no token"), (anchors, "is no test USDC")):
            done = called("fund", SOMEBODY, "--token", token, *where)
            assert f"--token: {said}" in one_line(done, 2)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (("0x12", "--token", SOMEBODY), "ADDRESS: "),
        ((SOMEBODY, "--token", "USDC"), "--token: "),
        ((SOMEBODY, "0", "--token", SOMEBODY), "AMOUNT: "),
        ((SOMEBODY, "--token", SOMEBODY, "--rpc", "8545"), "--rpc: "),
    ],
)
def test_what_is_wrong_is_named(wrong: tuple[str, ...], named: str) -> None:
    assert named in one_line(called("fund", *wrong), 2)
