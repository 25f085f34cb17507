"""A session that pays by x402 on one or two Anvils, and everybody who meddles with it."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from eth_utils.address import to_checksum_address

from engine.chain import contracts, sender
from engine.chain.anvil import AnvilProcess
from engine.chain.gateway import Receipt
from engine.db.settlements import Settlement
from engine.db.tables import table
from engine.ledger.payment import Payment
from engine.ledger.settlements import SettlementView
from engine.payments.gate import Signed
from engine.sessions.session import SessionView
from tests.anvil_world import ANVIL_TOML, PATIENCE_S, AnvilWithContracts, tick_until
from tests.ledger.paying import offer, required
from tests.payments.tokens import deployed
from tests.world import WORKSPACE, World

CONFIRMATIONS, FINALITY = 1, 3
GAS = 500_000
_settlements = table(Settlement)
_keys = itertools.count(1)


@dataclass
class Market:
    """One session on the chains of `anvils`, the first of which is the home chain."""

    world: World
    anvils: Sequence[AnvilWithContracts]
    view: SessionView
    hostile: dict[str, str] = field(default_factory=dict)

    @property
    def anvil(self) -> AnvilWithContracts:
        """The home chain."""
        return self.anvils[0]

    def sign(self, token: str | None = None, *, at: int = 0, **changes: Any) -> Signed:
        """A new payment of a cent, in the test USDC or in a hostile token by name."""
        asset = self.anvils[at].token["asset"].rpartition(":")[2]
        network = f"eip155:{self.anvils[at].gateway.chain_id}"
        offered = offer(
            self.world,
            asset=asset if token is None else self.hostile[token],
            network=network,
            **changes,
        )
        found = self.world.engine.gate.pay(
            self.view.id, required(offered), "https://shop.test/", key=f"deal {next(_keys)}"
        )
        assert isinstance(found, Signed), found.decision
        return found

    def settle(self, signed: Signed, *, at: int = 0) -> Receipt:
        """Send it from somebody's account, and have it mined, whatever that does."""
        tx_hash = self.send(signed, at=at)
        gateway = self.anvils[at].gateway
        return sender.wait(gateway, tx_hash, timeout_s=PATIENCE_S, poll_s=0.005)

    def send(self, signed: Signed, *, at: int = 0) -> bytes:
        """Send it, also where it will revert, and do not wait."""
        anvil, payload = self.anvils[at], signed.payload["payload"]
        call = signed.authorization.settling(bytes.fromhex(payload["signature"][2:]))
        told = anvil.rpc(
            "eth_sendTransaction",
            {
                "from": anvil.stranger.address,
                "to": signed.payload["accepted"]["asset"],
                "data": "0x" + call.hex(),
                "gas": hex(GAS),
            },
        )
        return bytes.fromhex(told[2:])

    def report(self, signed: Signed, tx_hash: bytes | None) -> None:
        """Somebody says what became of it."""
        self.world.engine.paying.report(WORKSPACE, signed.payment.id, tx_hash).result()

    def tick(self) -> None:
        """Read the chains once."""
        self.world.engine.tick()

    def bury(self, *, at: int = 0) -> None:
        """Mine so many blocks that what was mined is final, and read them."""
        anvil = self.anvils[at]
        number = anvil.gateway.head().number
        anvil.mine(FINALITY)
        tick_until(self.world, lambda: anvil.gateway.head().number >= number + FINALITY)
        self.tick()

    def payment(self, signed: Signed) -> Payment:
        return self.world.engine.payments.get(WORKSPACE, signed.payment.id)

    def settlement(self, signed: Signed) -> SettlementView:
        return self.world.engine.settlements.of([signed.payment])[signed.payment.id]

    def states(self, signed: Signed) -> tuple[str, str]:
        """Of the payment, and of its settlement."""
        return self.payment(signed).state, self.settlement(signed).state

    def change(self, signed: Signed, **values: Any) -> dict[str, Any]:
        """Change a row behind the engine's back; returns what it was."""
        payment, columns = signed.payment, _settlements.c
        ours = columns.session_id == payment.session_id, columns.number == payment.number
        wanted = sa.select(*(columns[name] for name in values)).where(*ours)
        with self.world.engine.database.reading() as connection:
            was = dict(connection.execute(wanted).mappings().one())
        change = sa.update(_settlements).where(*ours).values(**values)
        self.world.engine.writer.call(lambda batch: batch.update(change))
        return was

    def contradiction(self, signed: Signed) -> str | None:
        """What the chain shows against it, as it is on file."""
        for found in self.world.engine.reconciler.open():
            if found.subject == signed.payment.id:
                return str(found.evidence["reason"])
        return None


@contextmanager
def market(
    directory: Path, anvils: Sequence[AnvilWithContracts], hostile: Sequence[str] = ()
) -> Iterator[Market]:
    """The session's key has a thousand dollars of each token."""
    home = anvils[0]
    tokens = {name: deployed(home.gateway, home.operator, name) for name in hostile}
    symbols = [
        {**home.token, "symbol": f"H{n}", "asset": f"{_chain(home)}/erc20:{address}"}
        for n, address in enumerate(tokens.values())
    ]
    networks = [
        {
            "chain": _chain(anvil),
            "rpc": () if anvil is home else (anvil.process.url,),
            "confirmations": CONFIRMATIONS,
            "finality": FINALITY,
        }
        for anvil in anvils
    ]
    told = (*(anvil.token for anvil in anvils), *symbols)
    world = World(directory, **{**home.settings, "tokens": told, "networks": tuple(networks)})
    world.owner = home.owner
    try:
        opened = Market(world, anvils, world.session(), tokens)
        mint = contracts.call_data(
            contracts.TEST_USDC,
            "mint",
            to_checksum_address(opened.view.grant.session_key),
            1_000_000_000,
        )
        for anvil in anvils:
            anvil.transact(anvil.operator, to=anvil.token["asset"].rpartition(":")[2], data=mint)
        for address in tokens.values():
            home.transact(home.operator, to=address, data=mint)
        yield opened
    finally:
        world.engine.close()


def _chain(anvil: AnvilWithContracts) -> str:
    return f"eip155:{anvil.gateway.chain_id}"


@contextmanager
def anvil_beside(chain_id: int) -> Iterator[AnvilWithContracts]:
    """Another Anvil, with the same accounts, contracts and addresses, and another chain id."""
    with ExitStack() as stack:
        process = AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None, chain_id=chain_id)
        opened = AnvilWithContracts(stack.enter_context(process))
        stack.callback(opened.gateway.close)
        yield opened
