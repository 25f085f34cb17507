"""Hundreds pay at once by a facilitator that is slow and lies; who is honest is answered.

    scripts/settle-flood --seed 7 --clients 500

On a real Anvil, with a store in SQLite. First one payer comes with so many payments, and while the
facilitator holds them up everybody else pays and is answered. Then so many payers come with one
each, and take every place: those who pay for nothing are answered, and whoever else pays is told to
come again and is not charged. Then what the facilitator does with each is drawn: it settles, never
answers, breaks before or after it settles, denies what it did, names another transaction, says that
it is pending, refuses. All come again with the same payment until they are told what became of it.
In the end whoever was answered must have paid once, and nobody else anything.
"""

import argparse
import asyncio
import itertools
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from eth_account import Account
from eth_account.signers.local import LocalAccount

from engine.payments.authorization import TokenDomain
from engine.selling.visits import Visits
from engine.storage.payer import Payer
from tests.anvil_world import anvil_with_contracts
from tests.gate.stall import PUT, Stall, encoded, heard
from tests.gate.test_pending import (
    breaks_after,
    breaks_before,
    claims_success,
    denies_what_it_did,
    names_another_transaction,
    never_answers,
    refuses,
    waits,
)
from tests.gate.test_visits import offered, signed
from tests.payments.paying import PAYEE, Buyer
from tests.payments.paying import Till as Facility

FATES: dict[str, Any] = {
    "settled": None,
    "never answered": never_answers,
    "broken before": breaks_before,
    "broken after": breaks_after,
    "denied": denies_what_it_did,
    "another transaction named": names_another_transaction,
    "success without a transaction": claims_success,
    "pending": waits,
    "refused": refuses,
}
BUSY = (503, "busy")
SHORT_S = 10
"""Who waits longer for a facilitator is not given one that never answers."""
PATIENCE_S = 3_600
WAIT_S_MAX = 10
"""So long somebody waits at most who has come often."""
ORIGIN = "http://stall.test"


class Wrong(AssertionError):
    """Served unpaid, charged for nothing, or kept waiting by others."""


def check(holds: bool, what: object) -> None:
    """Raises Wrong: it does not hold."""
    if not holds:
        raise Wrong(what)


class Slow:
    """A facilitator that holds up all that has a fate, and meets it once."""

    def __init__(self) -> None:
        self.fates: dict[str, Any] = {}
        self.going_on = asyncio.Event()
        self.holding = 0
        self._part: Any = None

    def __call__(self, part: Any) -> Any:
        """Takes the place of the facilitator, and of nothing else."""
        if not hasattr(part, "settle"):
            return part
        self._part = part
        return self

    async def verify(self, payload: Any, requirements: Any) -> Any:
        return await self._part.verify(payload, requirements)

    async def settle(self, payload: Any, requirements: Any) -> Any:
        lie = self.fates.pop(payload.payload["authorization"]["nonce"], None)
        if lie is not None:
            if not self.going_on.is_set():
                lie = "broken before" if lie == "never answered" else lie  # it has waited enough
                await self._hold()
            if FATES[lie] is not None:
                return await FATES[lie](self._part.settle, payload, requirements)
        return await self._part.settle(payload, requirements)

    async def _hold(self) -> None:
        self.holding += 1
        try:
            await self.going_on.wait()
        finally:
            self.holding -= 1


@dataclass
class Client:
    """Pays for an entry whose key is the payment's nonce, and hears what becomes of it."""

    stall: Stall
    buyer: Buyer
    tries: int = 0

    def __post_init__(self) -> None:
        authorization = self.buyer.authorization(PUT, pay_to=PAYEE)
        self.key = authorization.wire["nonce"]
        self.payment = encoded(self.buyer.request(authorization)["paymentPayload"])
        self.answers: list[tuple[int, Any]] = []

    async def ask(self) -> tuple[int, Any]:
        """Once."""
        self.tries += 1
        path = f"/v1/store/{self.key}"
        found = heard(await self.stall.ask("PUT", path, self.payment, content=self.key.encode()))
        self.answers.append(found)
        return found

    async def go_on(self, drawn: random.Random) -> float:
        """Again until it is told; the seconds that takes."""
        began = time.monotonic()
        while self.answers[-1][0] == 503:
            check(time.monotonic() - began < PATIENCE_S, f"nobody tells {self.key}")
            await asyncio.sleep(min(0.2 * 2**self.tries, WAIT_S_MAX) * drawn.uniform(0.5, 1))
            await self.ask()
        return time.monotonic() - began


class Flood:
    """So many against a stall with `places`, of which `payer_places` may be one payer's."""

    def __init__(
        self, stall: Stall, seed: int, clients: int, places: int, payer_places: int, answer_s: float
    ) -> None:
        self.stall, self.clients, self.answer_s = stall, clients, answer_s
        self.places, self.payer_places = places, payer_places
        self.drawn = random.Random(seed)
        fates = [fate for fate in FATES if answer_s < SHORT_S or FATES[fate] != never_answers]
        self.fates = itertools.cycle(self.drawn.sample(fates, len(fates)))
        self.slow = Slow()
        self.seen: Counter[str] = Counter()
        self.free_s: list[float] = []
        self.honest_s: list[float] = []
        self.told_s: list[float] = []
        self.everybody: list[Client] = []

    async def run(self) -> None:
        """Raises Wrong."""
        facility, stall = self.stall.facility, self.stall
        await stall.close()
        stall.open(
            wrap=self.slow,
            visits=Visits(ORIGIN),
            settlements_max=self.places,
            payer_settlements_max=self.payer_places,
            answer_s=PATIENCE_S,
        )
        stall.stranger()
        early = self._client(facility)
        check(await early.ask() == (200, None), "nobody else is there")
        await self._one_payer(early)
        await self._many_payers(early)
        await self._check()

    async def _one_payer(self, early: Client) -> None:
        greedy = self._buyer()
        greedy.transact(to=greedy.domain.token, data=greedy.mint(self.clients * PUT))
        flood = [self._client(greedy, held=True) for _ in range(self.clients)]
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(each.ask()) for each in flood]
            await self._until_full(asking, self.payer_places)
            honest = [self._client(self._buyer()) for _ in range(self.places - self.payer_places)]
            for client in honest:
                began = time.monotonic()
                check(await client.ask() == (200, None), "kept waiting by one payer")
                self.honest_s.append(time.monotonic() - began)
            await self._free(early)
            check(self.slow.holding == self.payer_places, "the flood has ended")
            self._go_on_settling()
        self.seen["answered while one payer took all that one may"] = len(honest)
        await self._go_on(flood)

    async def _many_payers(self, early: Client) -> None:
        self.slow.going_on.clear()
        self.stall.till._answer_s = PATIENCE_S
        flood = [self._client(self._buyer(), held=True) for _ in range(self.clients)]
        honest = [self._client(self._buyer()) for _ in range(self.places)]
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(each.ask()) for each in flood]
            await self._until_full(asking, self.places)
            await self._free(early)
            for client in honest:
                check(await client.ask() == BUSY, "there was no place")
            check(self.slow.holding == self.places, "the flood has ended")
            self._go_on_settling()
        await self._go_on([*flood, *honest])

    def _go_on_settling(self) -> None:
        self.stall.till._answer_s = self.answer_s
        self.slow.going_on.set()

    async def _until_full(self, asking: Sequence[asyncio.Task[Any]], places: int) -> None:
        """Everybody else was told that there is no place, before anybody has left theirs."""
        while self.slow.holding < places or sum(task.done() for task in asking) < (
            self.clients - places
        ):
            await asyncio.wait(asking, timeout=0.05)
            check(all(task.result() == BUSY for task in asking if task.done()), "not told at once")
        self.seen["told at once to come again"] += self.clients - places

    async def _free(self, early: Client) -> None:
        """What costs nothing, while others settle: an offer, a used payment, reading by sign-in."""
        stall = self.stall
        path = f"/v1/store/{early.key}"
        for _ in range(self.places):
            began = time.monotonic()
            check((await stall.ask("GET", path)).status_code == 402, "no offer")
            check(await early.ask() == (409, "payment_used"), "it buys again")
            stall.facility.payer = early.buyer.payer
            entering = signed(stall, await offered(stall, path))
            answer = await stall.ask("GET", path, headers=entering)
            check((answer.status_code, answer.text) == (200, early.key), "cannot read")
            self.free_s.append((time.monotonic() - began) / 4)
        early.answers = [each for each in early.answers if each[0] != 409]
        self.seen["free answers while all places were taken"] += 4 * self.places

    async def _go_on(self, clients: Sequence[Client]) -> None:
        took = await asyncio.gather(*(each.go_on(self.drawn) for each in clients))
        self.seen["came again"] += sum(client.tries - 1 for client in clients)
        self.told_s.extend(took)

    async def _check(self) -> None:
        """Whoever was answered has paid once and has what was bought, and nobody else anything."""
        of_payers: dict[LocalAccount, list[Client]] = {}
        leases = 0
        for client in self.everybody:
            of_payers.setdefault(client.buyer.payer, []).append(client)
        for payer, clients in of_payers.items():
            served = [client for client in clients if (200, None) in client.answers]
            check(all(c.answers.count((200, None)) <= 1 for c in clients), "answered twice")
            last = {client.answers[-1] for client in clients if client not in served}
            check(last <= {(402, "insufficient_funds")}, last)
            check(clients[0].buyer.transfers() == len(served), f"{payer.address} paid otherwise")
            network = self.stall.facility.network
            page = await self.stall.storage.session(Payer(payer.address, network)).list()
            check(page.entries == {c.key: c.key for c in served}, f"{payer.address} has otherwise")
            self.seen["paid once, answered once"] += len(served)
            self.seen["refused and not charged"] += len(clients) - len(served)
            leases += bool(served)
        refused = self.seen["refused and not charged"], self.seen["to be refused"]
        check(len(set(refused)) == 1, refused)
        paid = self.seen["paid once, answered once"]
        check(await self.stall.grants() == paid + leases, "something is left of what is not paid")

    def _buyer(self) -> Buyer:
        facility = self.stall.facility
        key = self.drawn.randbytes(32)
        return Buyer(
            gateway=facility.gateway,
            bank=facility.bank,
            domain=facility.domain,
            payer=Account.from_key(key),
        )

    def _client(self, buyer: Buyer, *, held: bool = False) -> Client:
        client = Client(self.stall, buyer)
        self.everybody.append(client)
        if held:
            fate = next(self.fates)
            self.slow.fates[client.key] = fate
            self.seen[f"to be {fate}"] += 1
        return client


def main(arguments: argparse.Namespace) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    logging.disable()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="settle-flood-")))
        anvil = stack.enter_context(anvil_with_contracts())
        token = anvil.token["asset"].rpartition(":")[2]
        domain = TokenDomain("Test USD Coin", "2", anvil.gateway.chain_id, token)
        path = directory / "claims.sqlite3"
        bank = anvil.stranger
        facility = Facility(gateway=anvil.gateway, bank=bank, domain=domain, path=path)

        async def flooded() -> Flood:
            stall = Stall(facility, directory)
            counts = arguments.seed, arguments.clients, arguments.places, arguments.payer_places
            flood = Flood(stall, *counts, arguments.answer)
            await flood.run()
            await stall.close()
            return flood

        flood = asyncio.run(flooded())
        facility.facilitator.close()
    counts = "\n".join(f"  {count:6} {what}" for what, count in sorted(flood.seen.items()))
    sys.stdout.write(f"seed {arguments.seed}:\n{counts}\n")
    for what, took in (
        ("a free answer", flood.free_s),
        ("one who pays beside one greedy payer", flood.honest_s),
        ("who comes again, until told", flood.told_s),
    ):
        took.sort()
        shown = ", ".join(
            f"{name} {took[int(part * (len(took) - 1))]:.3f} s"
            for name, part in (("p50", 0.5), ("p99", 0.99), ("at most", 1.0))
        )
        sys.stdout.write(f"  {what}: {shown}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--places", type=int, default=64, help="settle at once (%(default)s)")
    parser.add_argument("--payer-places", type=int, default=16, help="of one payer (%(default)s)")
    parser.add_argument("--answer", type=float, default=5, help="seconds for a facilitator")
    try:
        main(parser.parse_args())
    except* Wrong as wrong:
        sys.exit(f"WRONG: {wrong.exceptions}")
