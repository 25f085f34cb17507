"""The chains that payments can be on: the home chain, and those of TALLYSTICK_NETWORKS.

Each has its own gateway, its own watch and, in a running server, its own thread: one that is silent
holds nobody up but those who pay there.
"""

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from eth_account.signers.local import LocalAccount

from engine.background import repeating
from engine.chain.endpoints import open_chain
from engine.chain.gateway import ChainGateway
from engine.clock import Clock
from engine.db.database import Database
from engine.db.settlements import Settlement
from engine.db.tables import table
from engine.deployment import Deployment
from engine.errors import CannotStart, Conflict, Unavailable
from engine.ledger.paying import Paying
from engine.ledger.payment import Payment, parse_payment_id, payment_id, stored_payment
from engine.ledger.settlements import stored_settlement
from engine.ledger.writer import Writer
from engine.payments.claims import Key
from engine.payments.relay import Sent
from engine.payments.settlement_watch import SettlementWatch
from engine.payments.signer import Signer
from engine.payments.transfers import Transfers
from engine.settings import FINALITY_BLOCKS, Network, Settings

if TYPE_CHECKING:
    from engine.payments.facilitator import Facilitator

_settlements = table(Settlement)


def open_networks(settings: Settings, home: str) -> dict[str, ChainGateway]:
    """The gateways of the chains beside the home chain (a CAIP-2 id); nothing is asked of them yet.

    Raises:
        CannotStart: one has no endpoint, or the home chain has one here too; naming it.
    """
    gateways: dict[str, ChainGateway] = {}
    for network in settings.networks:
        if network.chain == home:
            if network.rpc:
                raise CannotStart(
                    f"TALLYSTICK_NETWORKS, {home}, rpc: it is the home chain, whose endpoint is "
                    "that of TALLYSTICK_CHAIN"
                )
        elif not network.rpc:
            raise CannotStart(f"TALLYSTICK_NETWORKS, {network.chain}, rpc: is missing")
        else:
            gateways[network.chain] = open_chain(
                [url.get_secret_value() for url in network.rpc],
                expected_chain_id=int(network.chain.partition(":")[2]),
            )
    return gateways


class Networks:
    """One watch for each chain; `home` is the gateway of the home chain."""

    def __init__(
        self,
        settings: Settings,
        deployment: Deployment,
        home: ChainGateway,
        database: Database,
        writer: Writer,
        paying: Paying,
        signer: Signer,
        clock: Clock,
    ) -> None:
        """Raises `CannotStart`: see `open_networks`."""
        self._others = others = open_networks(settings, deployment.chain)
        self._database = database
        self._paying = paying
        self._open_facilitator = partial(
            _open_facilitator, home, deployment.operator, settings.data_dir, self._sent
        )
        self._facilitator: Facilitator | None = None
        told = {network.chain: network for network in settings.networks}
        self._embedded = embedded = settings.chain == "embedded"
        if deployment.chain not in told:
            # Nothing takes back a block of the embedded chain, and few are mined there.
            depth = 0 if embedded else settings.confirmations
            told[deployment.chain] = Network(
                chain=deployment.chain,
                confirmations=depth,
                finality=0 if embedded else max(depth, FINALITY_BLOCKS),
            )
        self.watches = {
            chain: SettlementWatch(
                gateway,
                chain,
                database,
                writer,
                paying,
                clock,
                confirmations=told[chain].confirmations,
                finality=told[chain].finality,
                pass_time=partial(_mine, home) if embedded and gateway is home else None,
            )
            for chain, gateway in {deployment.chain: home, **others}.items()
        }
        self.transfers = Transfers(
            home,
            deployment.chain,
            deployment.operator,
            settings.data_dir,
            database,
            paying,
            signer,
            clock,
        )

    @property
    def gateways(self) -> Mapping[str, ChainGateway]:
        """By CAIP-2 id."""
        return {chain: watch.gateway for chain, watch in self.watches.items()}

    def facilitator(self) -> "Facilitator | None":
        """The x402 facilitator of the embedded chain, opened when first asked for; else None.

        Raises:
            CannotStart: its file of claims cannot be used.
        """
        if self._facilitator is None and self._embedded:
            self._facilitator = self._open_facilitator()
        return self._facilitator

    def accept(self, workspace_id: str, payment: str, *, by: str, reason: str) -> Payment:
        """Count a payment that its chain contradicts as spent, by the word of an operator.

        Raises:
            NotFound: no such payment in this workspace.
            Conflict, Unavailable: see `SettlementWatch.accept`.
        """
        session_id, number = parse_payment_id(payment)
        with self._database.reading() as connection:
            stored_payment(connection.execute, session_id, number, workspace_id)
            settlement = stored_settlement(connection.execute, session_id, number)
        if settlement is None:
            raise Conflict("the payment is not signed", code="payment_not_signed")
        watch = self.watches.get(settlement.network)
        if watch is None:
            raise Unavailable(f"{settlement.network} is not configured", code="chain_unavailable")
        watch.accept(payment, by=by, reason=reason)
        with self._database.reading() as connection:
            return stored_payment(connection.execute, session_id, number)

    def tick(self) -> None:
        """Read every chain once."""
        for watch in self.watches.values():
            watch.tick()

    def _sent(self, key: Key, tx_hash: bytes) -> None:
        """Keep what the facilitator sent, if it is for a payment of ours; nobody waits for that.

        What is lost of it the chain shows.
        """
        ours = sa.select(_settlements.c.session_id, _settlements.c.number).where(
            _settlements.c.nonce == key.nonce, _settlements.c.network == key.network
        )
        with self._database.reading() as connection:
            row = connection.execute(ours).first()
        if row is not None:
            self._paying.sent(payment_id(row.session_id, row.number), tx_hash)

    def start(
        self, leads: Callable[[], bool], *, interval_s: float, stopping: threading.Event
    ) -> list[threading.Thread]:
        """Read every chain again and again, each in a thread of its own, while `leads`."""

        def work(watch: SettlementWatch) -> None:
            if leads():
                watch.tick()

        return [
            repeating(
                f"settlements of {watch.network}",
                partial(work, watch),
                interval_s=interval_s,
                stopping=stopping,
            )
            for watch in self.watches.values()
        ]

    def ready(self) -> list[dict[str, Any]]:
        """How each chain stands. Why one is not heard is in this server's own log."""
        return [
            {
                "chain": watch.network,
                "heard": watch.fault is None,
                "head_block": None if watch.head is None else watch.head.number,
                "lag_blocks": watch.lag,
                "open": watch.open,
            }
            for watch in self.watches.values()
        ]

    def close(self) -> None:
        """Close the claims, and the chains beside the home chain."""
        if self._facilitator is not None:
            self._facilitator.close()
        self.transfers.close()
        for gateway in self._others.values():
            gateway.close()


def _mine(home: ChainGateway) -> None:
    """The embedded chain mines a block for each transaction and none without."""
    from engine.chain.embedded import EmbeddedChain

    assert isinstance(home, EmbeddedChain)
    home.mine()


def _open_facilitator(
    home: ChainGateway, operator: LocalAccount, directory: Path, sent: Sent
) -> "Facilitator":
    from engine.chain.embedded import EmbeddedChain
    from engine.payments.opening import embedded_facilitator

    assert isinstance(home, EmbeddedChain)
    return embedded_facilitator(home, operator, directory, sent)
