"""`tallystick facilitator`, and the one that `serve` has for the embedded chain."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from eth_account import Account

from api.server import Server
from engine.chain.embedded import EmbeddedChain
from engine.payments.opening import standalone_facilitator
from engine.payments.served import Served
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts
from tests.cli.processes import PATIENCE_S, Running, called, one_line, wait_until_served
from tests.payments.conftest import usdc_of
from tests.payments.paying import ETHER, Buyer, parsed, usdc
from tests.world import World

ELSEWHERE = "eip155:1/erc20:0x" + "70" * 20
KEY = "0x" + Account.create().key.hex()


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """Shared: leave it mining at once."""
    with anvil_with_contracts() as opened:
        yield opened


def options(anvil: AnvilWithContracts) -> tuple[str, ...]:
    return ("--rpc", anvil.process.url, "--token", anvil.token["asset"], "--port", "0")


def test_it_settles_remembers_and_ends_in_order(anvil: AnvilWithContracts, tmp_path: Path) -> None:
    gas_payer = Account.from_key(KEY)
    buyer = Buyer(gateway=anvil.gateway, bank=anvil.stranger, domain=usdc_of(anvil))
    buyer.transact(to=gas_payer.address.lower(), value=ETHER)
    request = buyer.request()
    settings = {"data_dir": str(tmp_path / "data"), "facilitator_key": KEY}
    running = Running("facilitator", *options(anvil), until="gas", **settings)
    url = running.found(r"x402 +(http://\S+)")
    assert running.found(r"networks +(\S+)") == buyer.network
    assert running.found(r"paid by (0x\S+)") == gas_payer.address
    wait_until_served(url)
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as client:
        [kind] = client.get("/supported").json()["kinds"]
        assert kind["network"] == buyer.network
        assert client.post("/settle", json=request).json()["success"]
    refused = called("facilitator", *options(anvil), **settings)
    assert "is in use by another process" in one_line(refused, 1)
    status, errors = running.stop()
    assert status == 0, errors
    assert KEY[2:] not in errors + "".join(running.lines)
    served = Served(tokens=frozenset({anvil.token["asset"]}))
    directory = tmp_path / "data"
    twice = f"{anvil.process.url} {anvil.process.url}"
    with standalone_facilitator(directory, gas_payer, [twice], served) as successor:
        again = successor.settle(*parsed(request))
    assert again.error_reason == "duplicate_settlement"
    assert buyer.transfers() == 1
    assert (directory / "facilitator.sqlite3").stat().st_mode & 0o077 == 0


def test_it_is_told_by_name_what_is_missing_or_wrong(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    rpc, token = ("--rpc", anvil.process.url), ("--token", anvil.token["asset"])
    known = {"data_dir": str(tmp_path / "data"), "facilitator_key": KEY}
    for arguments, settings, status, says in (
        ((*rpc, *token), {}, 1, "TALLYSTICK_FACILITATOR_KEY is not set"),
        (token, known, 1, "--rpc is not given"),
        (rpc, known, 2, "--token: give one or more"),
        ((*rpc, "--token", "USDC"), known, 2, "--token: a token is a CAIP-19"),
        ((*rpc, *token, "--pay-to", "me"), known, 2, "--pay-to: takes an address"),
        ((*rpc, *rpc, *token), known, 1, "--rpc: two endpoints serve eip155:31337"),
        ((*rpc, "--token", ELSEWHERE), known, 1, "--token: no endpoint of --rpc serves the chain"),
        (("--rpc", "ftp://x", *token), known, 1, "--rpc: a chain's URL begins with"),
        (("--rpc", "http://127.0.0.1:1", *token), known, 1, "--rpc: http://127.0.0.1:1: "),
        ((*rpc, *token), known | {"facilitator_key": "x"}, 1, "TALLYSTICK_FACILITATOR_KEY: takes"),
    ):
        line = one_line(called("facilitator", *arguments, "--port", "0", **settings), status)
        assert says in line


def test_serve_has_one_for_the_embedded_chain(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    relayers = []
    for _ in range(2):
        chain = world.engine.gateway
        assert isinstance(chain, EmbeddedChain)
        buyer = Buyer(gateway=chain, bank=chain.faucet, domain=usdc(chain))
        with (
            Server(world.engine, "127.0.0.1", 0) as server,
            httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client,
        ):
            supported = client.get("/facilitator/supported").json()
            assert [kind["network"] for kind in supported["kinds"]] == [buyer.network]
            relayers += supported["signers"]["eip155:*"]
            answer = client.post("/facilitator/settle", json=buyer.request()).json()
            assert answer["success"], answer
            refused = client.post("/facilitator/settle", content=b"{")
            assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
            described = client.get("/facilitator/openapi.json").json()
            assert "/settle" in described["paths"]
            assert "/facilitator/openapi.json" in client.get("/facilitator/docs").text
        assert buyer.transfers() == 1
        world.reopen()
    assert relayers[0] == relayers[1]
    world.engine.close()


def test_the_sdk_is_not_loaded_before_it_is_needed() -> None:
    modules = "api.server, engine.engine, engine.payments.opening, tallystick.cli"
    loaded = f"import sys, {modules}; print(*(m for m in sys.modules if m.startswith('x402')))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True)
    assert done.stdout == b"\n"
