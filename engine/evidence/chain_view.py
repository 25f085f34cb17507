"""What verification asks a chain, answered through a gateway. Needs no database and no server.

Every question is answered as of one block, the newest when the first was asked. Endpoints leave out
events when they prune or lag. So what an event says is held against what the contracts' own state
says; an endpoint that contradicts itself is not believed in either.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from engine.audit.chain import Anchoring, ChainSilent, Lowering, Registration, Revocation, Spend
from engine.chain import contracts
from engine.chain.contracts import Event
from engine.chain.gateway import BlockHeader, CallReverted, ChainError, ChainGateway, Log
from engine.grant import UNLIMITED, Grant
from engine.policy.limits import Limits
from engine.policy.money import AMOUNT_MAX_MICRO_USD

Answer = TypeVar("Answer")

SENDERS_MAX = 100
"""Of so many transactions it is asked who sent them: strangers can make any number."""

_SPENDS = (contracts.ERC20_TRANSFER, contracts.AUTHORIZATION_USED)
_NOTHING = bytes(32)
_REGISTRY = contracts.SESSION_REGISTRY


class GatewayView:
    """A `ChainView` over one gateway, as of `block_number` or the newest block.

    It remembers nothing but that block: each question goes to the chain.
    """

    def __init__(
        self,
        gateway: ChainGateway,
        *,
        name: str = "the endpoint",
        block_number: int | None = None,
    ) -> None:
        self.name = name
        self._gateway = gateway
        self._block_number = block_number

    def at(self, block_number: int) -> "GatewayView":
        """The same endpoint as of another block."""
        return GatewayView(self._gateway, name=self.name, block_number=block_number)

    @cached_property
    def header(self) -> BlockHeader:
        """The block as of which it answers."""
        if self._block_number is None:
            return _ask(self._gateway.head)
        return self._header(self._block_number)

    @property
    def chain_id(self) -> int:
        """See `ChainView`."""
        return _ask(lambda: self._gateway.chain_id)

    @property
    def block_number(self) -> int:
        """See `ChainView`."""
        return self.header.number

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
            raise ChainSilent(f"{self.name} answers a consent of {consent}, which is none")
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
        return self._end(self._session_event(registry, "SessionRevoked", token_id))

    def lowerings(self, registry: str, token_id: bytes, grant: Grant) -> Sequence[Lowering]:
        """See `ChainView`."""
        events = self._events(_REGISTRY, registry, "LimitsLowered", token_id)
        asked = int.from_bytes(token_id), grant.abi_tuple()
        in_force = self._state(_REGISTRY, registry, "limitsOf", *asked)
        told = [tuple(event.args["limits"].values()) for event in events]
        if in_force != (told[-1] if told else tuple(grant.message()["limits"].values())):
            raise self._contradiction("LimitsLowered")
        found = []
        for event, values in zip(events, told, strict=True):
            number = event.log.block_number
            time_s, tx_hash = self.block_time_s(number), event.log.tx_hash
            found.append(Lowering(_limits(values), number, time_s, tx_hash))
        return found

    def workspace_closing(
        self, registry: str, token_id: bytes, workspace: str
    ) -> Revocation | None:
        """See `ChainView`."""
        name = keccak(text=workspace)
        _, epoch, *_ = self._state(_REGISTRY, registry, "session", int.from_bytes(token_id))
        if not epoch:
            return None  # no such session is registered
        topics = (contracts.event_topic(_REGISTRY, "WorkspaceClosed"), name, epoch.to_bytes(32))
        event = self._only(self._decoded(_REGISTRY, registry, "WorkspaceClosed", topics))
        newest, closed = self._state(_REGISTRY, registry, "workspace", name)
        if (event is not None) != (closed or newest != epoch):
            raise self._contradiction("WorkspaceClosed")
        return self._end(event)

    def accepts_signature(
        self, wallet: str, digest: bytes, signature: bytes, block_number: int
    ) -> bool | None:
        """See `ChainView`. Whether an endpoint is silent or has pruned that state looks alike."""
        asked = wallet, digest, signature
        try:
            return contracts.accepts_signature(self._gateway, *asked, block=block_number)
        except ChainError:
            return None

    def log_opened(self, anchors: str, log_id: bytes) -> bytes | None:
        """See `ChainView`."""
        event = self._only(self._events(contracts.ANCHOR_REGISTRY, anchors, "LogOpened", log_id))
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
            raise self._contradiction("Anchored")
        return found

    def block_time_s(self, block_number: int) -> int:
        """See `ChainView`."""
        return self._header(block_number).timestamp_s

    def spends(self, address: str) -> Sequence[Spend]:
        """See `ChainView`: ERC-20 transfers, EIP-3009 authorizations, the account's nonce.

        One question tells all events, however many payments there are. Transfers of nothing are
        left out: anybody can make those.
        """
        topics = (list(_SPENDS), bytes(12) + bytes.fromhex(address[2:]))
        found = [spend for log in self._logs(None, topics) if (spend := _spend(log)) is not None]
        block = self.block_number
        if count := _ask(lambda: self._gateway.transaction_count(address, block=block)):
            found = self._with_senders(address, found)
            found.append(Spend("transactions", count=count))
        return found

    def decimals(self, token: str) -> int:
        """See `ChainView`."""
        asked, block = (contracts.TEST_USDC, token, "decimals"), self.block_number
        try:
            return int(_ask(lambda: contracts.read(self._gateway, *asked, block=block)))
        except CallReverted as error:
            raise ChainSilent(f"the token {token} does not tell its decimals") from error

    def _with_senders(self, address: str, spends: Sequence[Spend]) -> list[Spend]:
        """Who sent what moved without an authorization: the key itself, or somebody else."""
        used = {(s.tx_hash, s.contract) for s in spends if s.kind == "authorization"}
        bare = {s.tx_hash for s in spends if (s.tx_hash, s.contract) not in used and s.tx_hash}
        own = set()
        for tx_hash in sorted(bare)[:SENDERS_MAX]:
            receipt = _ask(lambda tx_hash=tx_hash: self._gateway.receipt(tx_hash))  # type: ignore[misc]
            if receipt is not None and receipt.sender == address:
                own.add(tx_hash)
        return [replace(s, sent_by_key=True) if s.tx_hash in own else s for s in spends]

    def _session_event(self, registry: str, name: str, token_id: bytes) -> Event | None:
        event = self._only(self._events(_REGISTRY, registry, name, token_id))
        state = self._state(_REGISTRY, registry, "session", int.from_bytes(token_id))
        _, _, _, ends_s, _, revoked = state
        if (event is not None) != (revoked if name == "SessionRevoked" else ends_s != 0):
            raise self._contradiction(name)
        return event

    def _end(self, event: Event | None) -> Revocation | None:
        if event is None:
            return None
        number = event.log.block_number
        return Revocation(number, self.block_time_s(number), event.log.tx_hash)

    def _state(self, contract: str, address: str, function: str, *args: Any) -> tuple[Any, ...]:
        asked, block = (contract, address, function, *args), self.block_number
        try:
            return tuple(_ask(lambda: contracts.read(self._gateway, *asked, block=block)))
        except CallReverted as error:
            raise ChainSilent(f"{contract} at {address} refuses {function}") from error

    def _events(self, contract: str, address: str, name: str, subject: bytes) -> list[Event]:
        topics = (contracts.event_topic(contract, name), subject)
        return self._decoded(contract, address, name, topics)

    def _decoded(
        self, contract: str, address: str, name: str, topics: tuple[bytes, ...]
    ) -> list[Event]:
        events = []
        for log in self._logs((to_checksum_address(address).lower(),), topics):
            try:
                event = contracts.decode_log(contract, log)
            except Exception:  # noqa: BLE001 (the codec has many ways to refuse nonsense)
                event = None
            if event is None:
                raise ChainSilent(f"{self.name} answers a malformed {name} event")
            events.append(event)
        return events

    def _logs(self, addresses: Sequence[str] | None, topics: Any) -> list[Log]:
        # From the first block: a key can have been used before its session was registered.
        head = self.block_number
        return _ask(
            lambda: self._gateway.logs(
                from_block=0, to_block=head, addresses=addresses, topics=topics
            )
        )

    def _header(self, number: int) -> BlockHeader:
        header = _ask(lambda: self._gateway.block(number))
        if header is None:
            raise ChainSilent(f"block {number} is gone; ask again")
        return header

    def _only(self, events: Sequence[Event]) -> Event | None:
        """Each of these happens at most once on a chain; the contracts see to that."""
        if len(events) > 1:
            raise ChainSilent(f"{self.name} answers {len(events)} events {events[0].name} for one")
        return events[0] if events else None

    def _contradiction(self, name: str) -> ChainSilent:
        return ChainSilent(f"events and state of {self.name} disagree on {name}")


def _spend(log: Log) -> Spend | None:
    """What an event with the key in its first place tells; None if it moved nothing.

    What a contract does not tell in the way of the standards stays None, and fits no payment.
    """
    topics, data = log.topics, log.data
    subject = topics[2] if len(topics) > 2 else None
    place = log.address, log.tx_hash, log.block_number, log.log_index
    if topics[0] == contracts.AUTHORIZATION_USED:
        return Spend("authorization", *place, nonce=subject)
    amount = int.from_bytes(data) if len(topics) == 3 and len(data) == 32 else None
    if amount == 0 or (len(topics) == 3 and not any(data)):
        return None
    to = None if subject is None or any(subject[:12]) else f"0x{subject[12:].hex()}"
    return Spend("transfer", *place, to=to, amount=amount)


def _limits(values: Sequence[int]) -> Limits:
    """Limits as a contract has them; above any amount that can be paid they bind nothing."""
    assert UNLIMITED > AMOUNT_MAX_MICRO_USD
    return Limits(*(None if value > AMOUNT_MAX_MICRO_USD else value for value in values))


def _ask(question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except CallReverted:
        raise
    except ChainError as error:
        raise ChainSilent(str(error)) from error
