"""What verification asks a chain, answered through a gateway. Needs no database and no server."""

from collections.abc import Sequence
from typing import Any

from eth_utils.address import to_checksum_address

from engine.audit.verify import ChainSilent, Registration, Revocation, Spend
from engine.chain import contracts
from engine.chain.contracts import Event
from engine.chain.gateway import CallReverted, ChainGateway, ChainUnavailable


class GatewayView:
    """A `ChainView` over one gateway. Nothing is cached but the events of one session and log."""

    def __init__(self, gateway: ChainGateway) -> None:
        self._gateway = gateway
        self._events: dict[tuple[str, str, bytes], Event | None] = {}

    @property
    def chain_id(self) -> int:
        """See `ChainView`."""
        return int(self._ask(lambda: self._gateway.chain_id))

    def anchors_of(self, registry: str) -> str | None:
        """See `ChainView`."""

        def ask() -> str | None:
            if not self._gateway.code(registry):
                return None
            try:
                address = contracts.read(
                    self._gateway, contracts.SESSION_REGISTRY, registry, "anchors"
                )
            except CallReverted:
                return None
            return str(address).lower()

        found: str | None = self._ask(ask)
        return found

    def registration(self, registry: str, token_id: bytes) -> Registration | None:
        """See `ChainView`."""
        event = self._event(contracts.SESSION_REGISTRY, registry, "SessionRegistered", token_id)
        if event is None:
            return None
        return Registration(
            grant_hash=event.args["grantHash"],
            owner=event.args["owner"].lower(),
            consent=contracts.CONSENT[event.args["consent"]],
            block_number=event.log.block_number,
            block_time_s=self._block_time_s(event),
            tx_hash=event.log.tx_hash,
        )

    def revocation(self, registry: str, token_id: bytes) -> Revocation | None:
        """See `ChainView`."""
        event = self._event(contracts.SESSION_REGISTRY, registry, "SessionRevoked", token_id)
        if event is None:
            return None
        return Revocation(event.log.block_number, self._block_time_s(event), event.log.tx_hash)

    def log_opened(self, anchors: str, log_id: bytes) -> bytes | None:
        """See `ChainView`."""
        event = self._event(contracts.ANCHOR_REGISTRY, anchors, "LogOpened", log_id)
        return None if event is None else event.args["salt"]

    def anchored_root(self, anchors: str, log_id: bytes, size: int) -> bytes | None:
        """See `ChainView`."""
        event = self._event(
            contracts.ANCHOR_REGISTRY, anchors, "Anchored", log_id, size.to_bytes(32)
        )
        return None if event is None else event.args["root"]

    def spends(self, address: str, from_block: int) -> Sequence[Spend]:
        """See `ChainView`: ERC-20 transfers, EIP-3009 authorizations, the account's nonce."""
        who = bytes(12) + bytes.fromhex(address[2:])

        def ask() -> list[Spend]:
            head = self._gateway.head().number
            logs = self._gateway.logs(
                from_block=from_block,
                to_block=head,
                topics=([contracts.ERC20_TRANSFER, contracts.AUTHORIZATION_USED], who),
            )
            names: dict[bytes, str] = {
                contracts.ERC20_TRANSFER: "a transfer of",
                contracts.AUTHORIZATION_USED: "a payment authorization of",
            }
            spends = [Spend(f"{names[log.topics[0]]} {log.address}", log.tx_hash) for log in logs]
            if count := self._gateway.transaction_count(address):
                spends.append(Spend(f"{count} transactions sent by the key itself, the last", b""))
            return spends

        found: list[Spend] = self._ask(ask)
        return found

    def _event(
        self, contract: str, address: str, name: str, subject: bytes, *more: bytes
    ) -> Event | None:
        key = (address, name, subject + b"".join(more))
        if key not in self._events:
            topics = (contracts.event_topic(contract, name), subject, *more)

            def ask() -> Event | None:
                logs = self._gateway.logs(
                    from_block=0,
                    to_block=self._gateway.head().number,
                    addresses=(to_checksum_address(address).lower(),),
                    topics=topics,
                )
                # Each of these happens at most once on a chain; the contracts see to that.
                return contracts.decode_log(contract, logs[0]) if logs else None

            self._events[key] = self._ask(ask)
        return self._events[key]

    def _block_time_s(self, event: Event) -> int:
        header = self._ask(lambda: self._gateway.block(event.log.block_number))
        if header is None:
            raise ChainSilent(f"block {event.log.block_number} is gone; ask again")
        return int(header.timestamp_s)

    @staticmethod
    def _ask(question: Any) -> Any:
        try:
            return question()
        except ChainUnavailable as error:
            raise ChainSilent(str(error)) from error
