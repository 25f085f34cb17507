"""A shop that sells by x402, with the SDK's own middleware, and the agent that buys there."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from fastapi import FastAPI, Request
from x402 import x402ResourceServer
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.http.middleware.fastapi import payment_middleware
from x402.mechanisms.evm.exact import ExactEvmServerScheme

from api.server import AppServer
from engine.chain import contracts, sender
from engine.chain.gateway import ChainGateway
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.ledger.paying import CENT, SHOP
from tests.rest.served import Served
from tests.world import NO_LIMITS

PATIENCE_S = 30


class Agent:
    """A session whose key has a hundred dollars of test USDC; `token` is all that it holds."""

    def __init__(self, served: Served, limits: Limits = NO_LIMITS) -> None:
        self.served = served
        self.session: SessionView = served.world.session(limits, mint_pkp=True)
        self.token: str = served.world.token
        self.gateway: Any = served.world.engine.gateway
        self.usdc = usdc(served)
        key = self.session.grant.session_key
        assert key is not None
        self.address = key
        fund(self.gateway, self.gateway.faucet, self.usdc, key)

    def payments(self) -> list[dict[str, Any]]:
        """What the session paid or tried to, the newest first."""
        answer = self.served.get(f"/api/v1/payments?session_id={self.session.id}")
        found: list[dict[str, Any]] = answer.json()["data"]
        return found

    def left(self) -> int:
        """What its key has, in the token's smallest unit."""
        return balance(self.gateway, self.usdc, self.address)


def usdc(served: Served) -> str:
    """The test USDC's address."""
    token = served.world.engine.token("USDC", None)
    assert token is not None
    return token.asset.rpartition(":")[2]


def balance(gateway: ChainGateway, token: str, address: str) -> int:
    """What an account has of a token, in its smallest unit."""
    data = contracts.call_data(contracts.TEST_USDC, "balanceOf", to_checksum_address(address))
    return int.from_bytes(gateway.call(token, data))


def fund(gateway: ChainGateway, bank: LocalAccount, token: str, address: str) -> None:
    """Give an account a hundred dollars: anybody may mint this token."""
    data = contracts.call_data(
        contracts.TEST_USDC, "mint", to_checksum_address(address), 10_000 * CENT
    )
    tx_hash = sender.send(gateway, bank, to=token, data=data)
    assert sender.wait(gateway, tx_hash, timeout_s=PATIENCE_S, poll_s=0.01).succeeded


@contextmanager
def open_shop(facilitator_url: str, network: str, token: str) -> Iterator[str]:
    """The shop's URL: `/report` and `/echo` cost a cent, `/dear` two dollars, in a test USDC."""
    facilitator = HTTPFacilitatorClient(FacilitatorConfig(url=facilitator_url))

    @asynccontextmanager
    async def closing(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await facilitator.aclose()

    app = FastAPI(lifespan=closing)
    server = x402ResourceServer(facilitator)
    server.register(network, ExactEvmServerScheme())

    def costs(units: int) -> dict[str, Any]:
        extra = {"name": "Test USD Coin", "version": "2"}
        price = {"amount": str(units), "asset": token, "extra": extra}
        return {"accepts": {"scheme": "exact", "payTo": SHOP, "price": price, "network": network}}

    prices = {"GET /report": costs(CENT), "POST /echo": costs(CENT), "GET /dear": costs(200 * CENT)}
    app.middleware("http")(payment_middleware(prices, server))

    @app.get("/report")
    async def report() -> dict[str, int]:
        return {"sold": 7}

    @app.post("/echo")
    async def echo(request: Request) -> dict[str, Any]:
        return {"heard": (await request.body()).decode()}

    @app.get("/dear")
    async def dear() -> dict[str, int]:
        return {"sold": 8}

    @app.get("/free")
    async def free() -> dict[str, int]:
        return {"free": 1}

    with AppServer(app, "127.0.0.1", 0) as serving:
        yield serving.url
