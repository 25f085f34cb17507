"""What verification asks a chain, and the facts that come back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from engine.grant import Grant
from engine.policy.limits import Limits

CLOCKS_DIFFER_MS = 15 * 60_000
"""How far the clocks of an honest operator and of a chain may be apart."""


class ChainSilent(Exception):
    """Raised by a `ChainView` that cannot answer now, or whose endpoint contradicts itself."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A session as the registry's event tells it; `log_index` is the event's place in its block,
    None where the view does not tell it."""

    grant_hash: bytes
    owner: str
    consent: str
    block_number: int
    tx_hash: bytes
    log_index: int | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of a session as the registry's event tells it."""

    block_number: int
    block_time_s: int
    tx_hash: bytes


@dataclass(frozen=True, slots=True)
class Lowering:
    """Limits as the registry's event lowered them; a limit that is None is not there."""

    limits: Limits
    block_number: int
    block_time_s: int
    tx_hash: bytes


@dataclass(frozen=True, slots=True)
class Anchoring:
    """A size and root of a log as the anchor registry's event tells them; `tx_hash` is None where
    the view does not tell it."""

    size: int
    root: bytes
    block_number: int
    tx_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Spend:
    """Something that left the session key's address: one event, or what the account itself tells.

    A `transfer` (ERC-20) has a payee and an amount in the token's smallest unit, an `authorization`
    (`AuthorizationUsed`, EIP-3009) a nonce of 32 bytes, as far as the contract tells them; the
    `transactions` that the account sent have only their `count`. Addresses are in lower case.
    """

    kind: Literal["transfer", "authorization", "transactions"]
    contract: str | None = None
    """The token that says so."""
    tx_hash: bytes | None = None
    block_number: int | None = None
    log_index: int | None = None
    to: str | None = None
    amount: int | None = None
    nonce: bytes | None = None
    sent_by_key: bool = False
    """Whether the key's own account is known to have sent the transaction."""
    count: int = 1


class ChainView(Protocol):
    """What verification asks a chain, as of one block. Every method may raise `ChainSilent`."""

    @property
    def chain_id(self) -> int:
        """The EIP-155 chain id."""
        ...

    @property
    def block_number(self) -> int:
        """The block as of which all questions are answered."""
        ...

    def anchors_of(self, registry: str) -> str | None:
        """The anchor registry that `registry` names; None if there is no such contract."""
        ...

    def registration(self, registry: str, token_id: bytes) -> Registration | None:
        """The registration of a token id."""
        ...

    def revocation(self, registry: str, token_id: bytes) -> Revocation | None:
        """The revocation of a token id."""
        ...

    def lowerings(self, registry: str, token_id: bytes, grant: Grant) -> Sequence[Lowering]:
        """Everything by which the limits of a registered session were lowered, in order."""
        ...

    def workspace_closing(
        self, registry: str, token_id: bytes, workspace: str
    ) -> Revocation | None:
        """The closing of a workspace that ended a session, if that was registered for it."""
        ...

    def accepts_signature(
        self, wallet: str, digest: bytes, signature: bytes, block_number: int
    ) -> bool | None:
        """Whether a contract took a signature for its own after a block (ERC-1271).

        None if nobody has its state of that block.
        """
        ...

    def log_opened(self, anchors: str, log_id: bytes) -> bytes | None:
        """The salt under which a log was opened."""
        ...

    def anchorings(self, anchors: str, log_id: bytes) -> Sequence[Anchoring]:
        """Everything that was anchored for a log, by size."""
        ...

    def block_time_s(self, block_number: int) -> int:
        """The timestamp of a block."""
        ...

    def spends(self, address: str) -> Sequence[Spend]:
        """Every token transfer, payment authorization and transaction of an address, ever."""
        ...

    def decimals(self, token: str) -> int:
        """The decimals of a token (ERC-20), 0 to 255."""
        ...
