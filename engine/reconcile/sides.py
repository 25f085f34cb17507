"""The two sides that reconciliation compares: what the ledger says and what the chain says.

Both are as of one block. Hashes and token ids are bytes, addresses lower-case text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.chain.gateway import BlockHeader
from engine.policy.limits import Limits

EventPlace = tuple[int, int]
"""Block number and log index: the order of events on a chain."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event stands on the chain."""

    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int

    @property
    def order(self) -> EventPlace:
        """What comes before what."""
        return (self.block_number, self.log_index)

    def to_json(self) -> dict[str, Any]:
        """For evidence."""
        return {
            "block_number": self.block_number,
            "block_hash": "0x" + self.block_hash.hex(),
            "tx_hash": "0x" + self.tx_hash.hex(),
            "log_index": self.log_index,
        }


@dataclass(frozen=True, slots=True)
class Registration:
    """`SessionRegistered`; `workspace` is the hash of its name."""

    token_id: bytes
    grant_hash: bytes
    workspace: bytes
    audit_log: bytes
    valid_until_s: int
    place: Place


@dataclass(frozen=True, slots=True)
class Ending:
    """`SessionRevoked` of a session, or `WorkspaceClosed` of a workspace, by an account."""

    event: str
    account: str
    place: Place


@dataclass(frozen=True, slots=True)
class Lowering:
    """`LimitsLowered`: from here on these limits hold for the session with this grant."""

    grant_hash: bytes
    account: str
    limits: Limits
    place: Place

    def to_json(self) -> dict[str, Any]:
        """As a record of the session tells it."""
        return {
            "grant_hash": "0x" + self.grant_hash.hex(),
            "account": self.account,
            "limits_micro_usd": self.limits.to_json(),
            **self.place.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Anchoring:
    """`Anchored` of our log."""

    size: int
    root: bytes
    place: Place


@dataclass(frozen=True, slots=True)
class Event:
    """An event as the index should hold it. `digest` is a hash of all that the index holds."""

    name: str
    tx_hash: bytes
    block_hash: bytes
    digest: bytes


@dataclass(slots=True)
class ChainSide:
    """What the chain says up to a block; of the events, those from `from_block` on.

    Of sessions the first registration and revocation count, of lowerings the last, as on the chain.
    """

    block: BlockHeader
    head_number: int
    from_block: int = 0
    registrations: dict[bytes, Registration] = field(default_factory=dict)
    revocations: dict[bytes, Ending] = field(default_factory=dict)
    closings: dict[bytes, list[Ending]] = field(default_factory=dict)
    lowerings: dict[bytes, Lowering] = field(default_factory=dict)
    anchors: dict[int, Anchoring] = field(default_factory=dict)
    events: dict[EventPlace, Event] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether nothing before it was left out."""
        return self.from_block == 0


@dataclass(frozen=True, slots=True)
class LedgerSession:
    """A session here. `parameters_hash` is that of what is enforced, None if that is unreadable.

    `waiting_since_ms` is since when the chain owes us its registration or revocation, where it
    does; `limits` are those in force.
    """

    id: str
    workspace_id: str
    type: str
    label: str | None
    state: str
    on_chain: bool
    token_id: bytes
    grant_hash: bytes
    parameters_hash: bytes | None
    limits: Limits | None
    waiting_since_ms: int | None = None
    tx_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class LedgerAnchor:
    """An anchor here, with all transactions that were sent for it, the newest first."""

    size: int
    root: bytes
    state: str
    tx_hashes: Sequence[bytes]
    block_number: int | None
    block_hash: bytes | None
    sent_ms: int


@dataclass(frozen=True, slots=True)
class LedgerSide:
    """What the ledger says; `workspaces` by the hash of the name, `root` None beyond the log."""

    now_ms: int
    log_id: bytes
    log_size: int
    root: Callable[[int], bytes]
    workspaces: Mapping[bytes, str]
    sessions: Sequence[LedgerSession]
    anchors: Sequence[LedgerAnchor]
    events: Mapping[EventPlace, Event]
