"""Kills processes that sell by SIGKILL at each step of a sale, and looks what the next make of it.

    scripts/kill-gate --seed 7 --rounds 50

On a real Anvil, with stores in SQLite and PostgreSQL. Each round is one payment: a forked process
comes with it to a step and kills itself there, then one other (SQLite) or four at once (PostgreSQL)
come with the same payment, `--times` each and again for as long as they are told to. Each has a
facilitator of its own that knows nothing of the others, and holds a payment for ten seconds only.
In the end the payer must have paid once, what was bought must have been handed out once (twice if
the one that was killed had sent it, but not yet noted that), and the payment must be good for
nothing else.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import structlog
from eth_account.signers.local import LocalAccount
from fastapi import FastAPI

from api.gate.gate import Gate
from api.gate.store import store_routes
from engine.chain.json_rpc import JsonRpcChain
from engine.payments.authorization import TokenDomain
from engine.payments.claims import Claims
from engine.payments.facilitator import Facilitator
from engine.payments.relay import Relayer
from engine.selling.currency import Currency
from engine.selling.facilitators import OnThreads
from engine.selling.methods import PaymentMethod
from engine.selling.till import Till
from engine.selling.witness import Witness
from engine.storage.payer import Payer
from engine.storage.postgres import PostgresPool
from engine.storage.session import Storage
from engine.storage.sql import SqlStore
from engine.storage.sqlite import SqliteFile
from tests.anvil_world import anvil_with_contracts
from tests.gate.stall import GET, PUT, encoded
from tests.gate.test_killed import Heard, Killer
from tests.payments.paying import PAYEE, Buyer
from tests.servers import PostgresServer

STEPS_MAX = 18
"""A sale has fewer."""
WORKERS = 4
TIMES = 10
LEASE_MS = 10_000
PATIENCE_S = 60
VALUE = "what was bought"


class Deadly(Killer):
    """Ends this process, in place of an exception."""

    def step(self, name: str) -> None:
        self.steps.append(name)
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Wrong(AssertionError):
    """Not paid once, or not handed out once."""


class Round:
    """One payment, and everything that a process needs to sell for it."""

    def __init__(self, directory: Path, place: str, url: str, buyer: Buyer, method: str) -> None:
        self.place, self.url, self.method = place, url, method
        self.directory, self.domain = directory, buyer.domain
        units = PUT if method == "PUT" else GET
        request = buyer.request(buyer.authorization(units, pay_to=PAYEE))
        self.payment = encoded(request["paymentPayload"])
        self.payer = Payer(buyer.payer.address, buyer.network)
        self.key = buyer.payer.address
        self.path = f"/v1/store/{self.key}"
        self.heard = directory / f"heard-{self.key}"

    def sell(self, key: LocalAccount, step: int | None, times: int) -> None:
        """In a process of its own: come with the payment until there is no more to be had."""
        asyncio.run(self._sell(key, step, times))

    async def _sell(self, key: LocalAccount, step: int | None, times: int) -> None:
        chain = JsonRpcChain(self.url)
        claims = Claims(self.directory / f"claims-{key.address}.sqlite3")
        relayer = Relayer(chain, key, claims, receipt_timeout_s=5, poll_s=0.01)
        killer: Any = (lambda part: part) if step is None else Deadly(step)
        pool: Any = PostgresPool(self.place) if "://" in self.place else SqliteFile(self.place)
        store = SqlStore(pool)
        storage = Storage(killer(store))
        till = Till(
            storage,
            PaymentMethod(
                currency(self.domain),
                killer(OnThreads(Facilitator([relayer], claims))),
                Witness(chain),
            ),
            grants=killer(store.grants),
            lease_ms=LEASE_MS,
        )
        app = FastAPI()
        app.include_router(store_routes(Gate(till), storage))
        if self.method == "GET":
            await Storage(store).session(self.payer).set(self.key, VALUE)
        told = await asyncio.gather(*(self._told(app) for _ in range(times)))
        if step is None:
            if {status for status, _ in told} - {200, 409}:
                raise Wrong(f"told {told}")
            status, code = await self._ask(app, "DELETE", self.path)
            if (status, code) != (409, "payment_for_another_request"):
                raise Wrong(f"it bought something else: {status} {code}")
            if await Storage(store).session(self.payer).get(self.key) != VALUE:
                raise Wrong("nothing is stored")
        await storage.close()

    async def _told(self, app: FastAPI) -> tuple[int, str | None]:
        """The first answer that is no 503."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = await self._ask(app, self.method, self.path)
            if found[0] != 503 or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.05)

    async def _ask(self, app: FastAPI, method: str, path: str) -> tuple[int, str | None]:
        told = Heard(app, self._note)
        how: Any = {"content": VALUE} if method == "PUT" else {}
        transport = httpx.ASGITransport(told)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://s.test") as http:
            headers = {"PAYMENT-SIGNATURE": self.payment}
            answer = await http.request(method, path, headers=headers, **how)
        return answer.status_code, None if answer.status_code == 200 else answer.json()["code"]

    def _note(self, status: int) -> None:
        if status == 200:
            with self.heard.open("a") as file:
                file.write("heard\n")

    def answers(self) -> int:
        """How often it was sent to its end."""
        return len(self.heard.read_text().splitlines()) if self.heard.exists() else 0


def currency(domain: TokenDomain) -> Currency:
    asset = f"eip155:{domain.chain_id}/erc20:{domain.token}"
    return Currency(asset, PAYEE, domain.name, domain.version)


def forked(work: Any, *arguments: Any) -> int:
    """The process that does it."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
        work(*arguments)
        status = 0
    except BaseException:  # noqa: BLE001 (the process ends here)
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """How it ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(arguments: argparse.Namespace) -> None:
    drawn = random.Random(arguments.seed)
    seen: Counter[str] = Counter()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kill-gate-")))
        anvil = stack.enter_context(anvil_with_contracts())
        server = stack.enter_context(PostgresServer())
        url = stack.enter_context(server.database())
        token = anvil.token["asset"].rpartition(":")[2]
        domain = TokenDomain("Test USD Coin", "2", anvil.gateway.chain_id, token)
        keys = anvil.process.accounts()[3 : 4 + WORKERS]
        for number in range(arguments.rounds):
            shared = drawn.random() < 0.5 or arguments.shared
            place = url if shared else str(directory / "store.sqlite3")
            method = drawn.choice(("PUT", "GET"))
            buyer = Buyer(gateway=anvil.gateway, bank=anvil.stranger, domain=domain)
            step = (arguments.step + number) % STEPS_MAX
            sale = Round(directory, place, anvil.process.url, buyer, method)
            status = ended(forked(sale.sell, keys[0], step, 1))
            if status not in (0, -signal.SIGKILL):
                raise Wrong(f"round {number}: the first ended with {status}")
            first = sale.answers()
            workers = keys[1:] if shared else keys[1:2]
            children = [forked(sale.sell, key, None, arguments.times) for key in workers]
            if any(ended(child) for child in children):
                raise Wrong(f"round {number}: {method} on {place}, killed at {step}")
            answers = sale.answers()
            again = answers - first
            if (
                buyer.transfers() != 1
                or answers < 1
                or again > 1
                or (again and first and not status)
            ):
                raise Wrong(
                    f"round {number}: {method} on {place}, killed at {step}: "
                    f"{buyer.transfers()} transfers, {answers} answers"
                )
            seen["killed" if status else "lived"] += 1
            seen["PostgreSQL" if shared else "SQLite"] += 1
            seen[f"answers: {answers}"] += 1
    counts = ", ".join(f"{count} {what}" for what, count in sorted(seen.items()))
    sys.stdout.write(f"seed {arguments.seed}: {counts}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=4 * STEPS_MAX)
    parser.add_argument("--step", type=int, default=0, help="where the first round is killed")
    parser.add_argument("--times", type=int, default=TIMES, help="how often each other comes")
    parser.add_argument("--shared", action="store_true", help="on PostgreSQL only")
    try:
        main(parser.parse_args())
    except Wrong as wrong:
        sys.exit(f"WRONG: {wrong}")
