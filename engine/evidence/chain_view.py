"""What verification asks a chain, answered through a gateway. Needs no database and no server.

Endpoints leave out events when they prune or lag. So what an event says is held against what the
contracts' own state says; an endpoint that contradicts itself is not believed in either.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from eth_utils.address import to_checksum_address

from engine.audit.chain import Anchoring, ChainSilent, Registration, Revocation, Spend
from engine.chain import contracts
from engine.chain.contracts import Event
from engine.chain.gateway import CallReverted, ChainError, ChainGateway, Log

Answer = TypeVar("Answer")

_SPENDS = {
    contracts.ERC20_TRANSFER: "a transfer of",
    contracts.AUTHORIZATION_USED: "a payment authorization of",
}
_NOTHING = bytes(32)


class GatewayView:
    """A `ChainView` over one gateway. It remembers nothing: each question goes to the chain."""

    def __init__(self, gateway: ChainGateway) -> None:
        self._gateway = gateway

    @property
    def chain_id(self) -> int:
        """See `ChainView`."""
        return _ask(lambda: self._gateway.chain_id)

    def anchors_of(self, registry: str) -> str | None:
        """See `ChainView`."""
        return _ask(lambda: contracts.anchors_of(self._gateway, registry))

    def registration(self, registry: str, token_id: bytes) -> Registration | None:
        """See `ChainView`."""
        event = self._session_event(registry, "SessionRegistered", token_id)
        if event is None:
            return None
        consent = event.args["consent"]
        if consent >= len(contracts.CONSENT):
            raise ChainSilent(f"the endpoint answers a consent of {consent}, which is none")
        return Registration(
            grant_hash=event.args["grantHash"],
            owner=event.args["owner"].lower(),
            consent=contracts.CONSENT[consent],
            block_number=event.log.block_number,
            tx_hash=event.log.tx_hash,
            log_index=event.log.log_index,
        )

    def revocation(self, registry: str, token_id: bytes) -> Revocation | None:
        """See `ChainView`."""
        event = self._session_event(registry, "SessionRevoked", token_id)
        if event is None:
            return None
        number = event.log.block_number
        return Revocation(number, self.block_time_s(number), event.log.tx_hash)

    def log_opened(self, anchors: str, log_id: bytes) -> bytes | None:
        """See `ChainView`."""
        event = _only(self._events(contracts.ANCHOR_REGISTRY, anchors, "LogOpened", log_id))
        return None if event is None else event.args["salt"]

    def anchorings(self, anchors: str, log_id: bytes) -> Sequence[Anchoring]:
        """See `ChainView`."""
        events = self._events(contracts.ANCHOR_REGISTRY, anchors, "Anchored", log_id)
        found = [
            Anchoring(
                event.args["size"],
                event.args["root"],
                event.log.block_number,
                event.log.tx_hash,
            )
            for event in events
        ]
        size, root, _ = self._state(contracts.ANCHOR_REGISTRY, anchors, "latest", log_id)
        sizes = [0, *(anchoring.size for anchoring in found)]
        newest = found[-1].root if found else _NOTHING
        if sizes != sorted(set(sizes)) or (sizes[-1], newest) != (size, root):
            raise ChainSilent("the endpoint's events and state disagree on what is anchored")
        return found

    def block_time_s(self, block_number: int) -> int:
        """See `ChainView`."""
        header = _ask(lambda: self._gateway.block(block_number))
        if header is None:
            raise ChainSilent(f"block {block_number} is gone; ask again")
        return header.timestamp_s

    def spends(self, address: str) -> Sequence[Spend]:
        """See `ChainView`: ERC-20 transfers, EIP-3009 authorizations, the account's nonce.

        One entry per transaction and contract, so that none can hide behind another. Transfers of
        nothing are left out: anybody can make those.
        """
        topics = (list(_SPENDS), bytes(12) + bytes.fromhex(address[2:]))
        spends: dict[tuple[bytes, str], Spend] = {}
        for log in self._logs(None, topics):
            if len(log.topics) != 3 or log.topics[0] != contracts.ERC20_TRANSFER or any(log.data):
                what = f"{_SPENDS[log.topics[0]]} {log.address}"
                spend = Spend(what, log.tx_hash, log.address)
                spends.setdefault((log.tx_hash, log.address), spend)
        found = list(spends.values())
        if count := _ask(lambda: self._gateway.transaction_count(address)):
            found.append(Spend(f"{count} transactions sent by the key itself", None))
        return found

    def _session_event(self, registry: str, name: str, token_id: bytes) -> Event | None:
        contract = contracts.SESSION_REGISTRY
        event = _only(self._events(contract, registry, name, token_id))
        state = self._state(contract, registry, "session", int.from_bytes(token_id))
        _, _, _, ends_s, _, revoked = state
        if (event is not None) != (revoked if name == "SessionRevoked" else ends_s != 0):
            raise ChainSilent(f"the endpoint's events and state disagree on {name}")
        return event

    def _state(self, contract: str, address: str, function: str, *args: Any) -> tuple[Any, ...]:
        try:
            return tuple(
                _ask(lambda: contracts.read(self._gateway, contract, address, function, *args))
            )
        except CallReverted as error:
            raise ChainSilent(f"{contract} at {address} refuses {function}") from error

    def _events(self, contract: str, address: str, name: str, subject: bytes) -> list[Event]:
        topics = (contracts.event_topic(contract, name), subject)
        events = []
        for log in self._logs((to_checksum_address(address).lower(),), topics):
            try:
                event = contracts.decode_log(contract, log)
            except Exception:  # noqa: BLE001 (the codec has many ways to refuse nonsense)
                event = None
            if event is None:
                raise ChainSilent(f"the endpoint answers a malformed {name} event")
            events.append(event)
        return events

    def _logs(self, addresses: Sequence[str] | None, topics: Any) -> list[Log]:
        def ask() -> list[Log]:
            # From the first block: a key can have been used before its session was registered.
            head = self._gateway.head().number
            return self._gateway.logs(
                from_block=0, to_block=head, addresses=addresses, topics=topics
            )

        return _ask(ask)


def _only(events: Sequence[Event]) -> Event | None:
    """Each of these happens at most once on a chain; the contracts see to that."""
    if len(events) > 1:
        raise ChainSilent(f"the endpoint answers {len(events)} events {events[0].name} for one")
    return events[0] if events else None


def _ask(question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except CallReverted:
        raise
    except ChainError as error:
        raise ChainSilent(str(error)) from error
