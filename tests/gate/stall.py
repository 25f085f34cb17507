"""A stall that sells what payers store, and a payer: a real chain, facilitator, store and app."""

import base64
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from eth_account import Account
from fastapi import FastAPI

from api.gate.gate import Gate
from api.gate.store import Prices, store_routes
from engine.payments.authorization import Authorization
from engine.selling.currency import Currency
from engine.selling.facilitators import OnThreads
from engine.selling.methods import PaymentMethod
from engine.selling.till import Till
from engine.selling.witness import Witness
from engine.storage.limits import Limits
from engine.storage.payer import Payer
from engine.storage.session import Storage
from engine.storage.sql import SqlStore
from engine.storage.sqlite import SqliteFile
from tests.payments.paying import PAYEE
from tests.payments.paying import Till as Facility

PUT, GET = 10_000, 1_000
"""What they cost, in the smallest unit of the test USDC."""
Wrap = Callable[[Any], Any]


def _app(gate: Gate, storage: Callable[[], Storage], prices: Prices) -> FastAPI:
    app = FastAPI()
    app.include_router(store_routes(gate, storage, prices))
    return app


@functools.cache
def _standing() -> tuple[Gate, FastAPI]:
    """Made once, which takes FastAPI longer than most tests; the till is changed by who opens."""
    gate: Any = Gate(lambda: None)  # type: ignore[arg-type, return-value]
    return gate, _app(gate, lambda: gate._till.storage, Prices())


def same(part: Any) -> Any:
    """Nothing in between."""
    return part


class Stall:
    """`facility` settles and has the money. Everything of the stall is opened again by `reopen`."""

    def __init__(self, facility: Facility, directory: Path, limits: Limits | None = None) -> None:
        self.facility = facility
        self.path = directory / "stall.sqlite3"
        self.limits = limits or Limits()
        self.open()

    def open(self, wrap: Wrap = same, prices: Prices | None = None, **options: Any) -> None:
        """Open it; `wrap` comes between the till and facilitator, store and grants."""
        domain = self.facility.domain
        store: Any = SqlStore(SqliteFile(self.path), limits=self.limits)
        self.storage = Storage(wrap(store))
        self.currency = Currency(
            f"{self.facility.network}/erc20:{domain.token}",
            pay_to=PAYEE,
            name=domain.name,
            version=domain.version,
        )
        self.till = Till(
            self.storage,
            PaymentMethod(
                self.currency,
                wrap(OnThreads(self.facility.facilitator)),
                options.pop("witness", Witness(self.facility.gateway)),
            ),
            **{"grants": wrap(store.grants), **options},
        )
        self.gate, self.app = _standing()
        self.gate._till = self.till
        if prices is not None:
            self.app = _app(self.gate, lambda: self.storage, prices)

    async def close(self) -> None:
        """As at the end of a process."""
        await self.storage.close()

    async def ask(
        self, method: str, path: str, payment: str | None = None, **how: Any
    ) -> httpx.Response:
        """Ask once."""
        headers = dict(how.pop("headers", {}))
        if payment is not None:
            headers["PAYMENT-SIGNATURE"] = payment
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://stall.test") as http:
            return await http.request(method, path, headers=headers, **how)

    async def ask_with(self, headers: list[tuple[str, str]]) -> httpx.Response:
        """Put something with exactly these headers."""
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://stall.test") as http:
            return await http.put("/v1/store/a", content=b"1", headers=headers)

    async def buy(self, method: str, path: str, **how: Any) -> httpx.Response:
        """Ask, and pay what is asked for."""
        response = await self.ask(method, path, **how)
        if response.status_code != 402:
            return response
        return await self.ask(method, path, self.sign(offer_of(response)), **how)

    def sign(self, offered: Any = None, *, units: int = PUT, **changes: Any) -> str:
        """A payment of the payer's: for an offer, or of so many units."""
        units = units if offered is None else int(offered["amount"])
        authorization = self.facility.authorization(**{"amount": units, **changes})
        return self.header(authorization, offered)

    def header(
        self,
        authorization: Authorization,
        offered: Any = None,
        signature: bytes | None = None,
        **accepted: Any,
    ) -> str:
        """The value of PAYMENT-SIGNATURE; `accepted` are changes to what it says was offered."""
        facility = self.facility
        if signature is None:
            signature = authorization.sign(facility.domain, bytes(facility.payer.key))
        request = facility.request(authorization)["paymentPayload"]
        request["payload"]["signature"] = f"0x{signature.hex()}"
        request["accepted"] = {**(offered or request["accepted"]), **accepted}
        return encoded(request)

    @property
    def payer(self) -> Payer:
        """The payer, as a key of the store."""
        return Payer(self.facility.payer.address, self.facility.network)

    def stranger(self) -> None:
        """From now on somebody else pays, who has as much."""
        self.facility.payer = Account.create()
        self.facility.transact(to=self.facility.domain.token, data=self.facility.mint(1_000_000))

    def transfers(self) -> int:
        """How often the payer paid."""
        return self.facility.transfers()

    async def grants(self) -> int:
        """How many are written down."""
        database = self.storage.store._database  # type: ignore[attr-defined]
        count = "SELECT count(*) FROM grants"
        found: int = await database.read(lambda c: c.execute(count).fetchone()[0])
        return found


def encoded(payload: Any) -> str:
    """JSON in base 64."""
    return base64.b64encode(json.dumps(payload).encode()).decode()


def decoded(header: str) -> Any:
    """What `encoded` was given."""
    return json.loads(base64.b64decode(header))


def offer_of(response: httpx.Response) -> Any:
    """The one offer of a 402."""
    assert response.status_code == 402, response.text
    [offered] = decoded(response.headers["PAYMENT-REQUIRED"])["accepts"]
    return offered


def heard(response: httpx.Response) -> tuple[int, Any]:
    """The status and, of an error, its code."""
    return response.status_code, response.json()["code"] if response.status_code >= 400 else None
