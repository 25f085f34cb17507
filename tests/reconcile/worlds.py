"""Worlds in which ledger and chain agree, as lists of plain facts, and the two sides of them."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from engine.chain.gateway import BLOOM_BYTES, BlockHeader
from engine.policy.limits import Limits
from engine.reconcile.sides import (
    Anchoring,
    ChainSide,
    Ending,
    Event,
    LedgerAnchor,
    LedgerSession,
    LedgerSide,
    Lowering,
    Place,
    Registration,
)

NOW_MS = 1_800_000_000_000
CONFIRMATIONS = 3
TIP = 1_000
LOG_ID = b"\x10" * 32
WORKSPACES = {b"\xa0" * 32: "default", b"\xa1" * 32: "acme"}
LIMITS = Limits(100, 200, None, 400, None)
ENDED = ("revoked", "expired")


def root_of(size: int) -> bytes:
    """The root of our log at a size."""
    return b"root" + size.to_bytes(28)


@dataclass
class Facts:
    """A world: what the ledger has and what the chain has, to be changed by whoever plants."""

    sessions: dict[str, LedgerSession] = field(default_factory=dict)
    registrations: dict[bytes, Registration] = field(default_factory=dict)
    revocations: dict[bytes, Ending] = field(default_factory=dict)
    closings: dict[bytes, list[Ending]] = field(default_factory=dict)
    lowerings: dict[bytes, Lowering] = field(default_factory=dict)
    ours: dict[int, LedgerAnchor] = field(default_factory=dict)
    theirs: dict[int, Anchoring] = field(default_factory=dict)
    index: dict[tuple[int, int], Event] = field(default_factory=dict)
    events: dict[tuple[int, int], Event] = field(default_factory=dict)
    log_size: int = 10_000
    head_number: int = TIP

    def ledger(self) -> LedgerSide:
        """The ledger's side."""
        return LedgerSide(
            now_ms=NOW_MS,
            log_id=LOG_ID,
            log_size=self.log_size,
            root=root_of,
            workspaces=WORKSPACES,
            sessions=list(self.sessions.values()),
            anchors=list(self.ours.values()),
            events=self.index,
        )

    def chain(self) -> ChainSide:
        """The chain's side."""
        return ChainSide(
            block=BlockHeader(TIP, b"\xee" * 32, b"\xed" * 32, NOW_MS // 1000, bytes(BLOOM_BYTES)),
            head_number=self.head_number,
            registrations=self.registrations,
            revocations=self.revocations,
            closings=self.closings,
            lowerings=self.lowerings,
            anchors=self.theirs,
            events=self.events,
        )

    def change(self, session: LedgerSession, **changes: Any) -> None:
        """Change a session here."""
        self.sessions[session.id] = replace(session, **changes)

    def of(self, *states: str) -> list[LedgerSession]:
        """The sessions in these states that are on the chain."""
        return [s for s in self.sessions.values() if s.state in states and s.on_chain]


class Making:
    """Draws a world in which nothing is wrong, with everything that is on its way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.facts = Facts()
        self._places = 0

    def make(self) -> Facts:
        """Every kind of session and anchor at least once, in any order and number."""
        ways = [*_WAYS, *self.random.choices(_WAYS, k=self.random.randint(0, 8))]
        self.random.shuffle(ways)
        for number, way in enumerate(ways):
            way(self, f"sess_{number:04}")
        self._anchors()
        return self.facts

    def place(self, block_number: int | None = None) -> Place:
        """The place of another event, in a block long ago unless told otherwise."""
        self._places += 1
        number = self.random.randint(1, TIP // 2) if block_number is None else block_number
        place = Place(
            number, b"block" + number.to_bytes(27), self.random.randbytes(32), self._places
        )
        event = Event("AnEvent", place.tx_hash, place.block_hash, self.random.randbytes(32))
        self.facts.events[place.order] = self.facts.index[place.order] = event
        return place

    def session(self, session_id: str, state: str, **changes: Any) -> LedgerSession:
        """A session here."""
        grant_hash = self.random.randbytes(32)
        fields: dict[str, Any] = {
            "id": session_id,
            "workspace_id": "default",
            "type": "agent",
            "label": None,
            "state": state,
            "on_chain": True,
            "token_id": self.random.randbytes(32),
            "grant_hash": grant_hash,
            "parameters_hash": grant_hash,
            "limits": LIMITS,
            **changes,
        }
        session = LedgerSession(**fields)
        self.facts.sessions[session.id] = session
        return session

    def registered(self, session: LedgerSession, **changes: Any) -> Registration:
        """Its registration on the chain."""
        fields: dict[str, Any] = {
            "token_id": session.token_id,
            "grant_hash": session.grant_hash,
            "workspace": b"\xa0" * 32,
            "audit_log": LOG_ID,
            "valid_until_s": NOW_MS // 1000 + 3600,
            "place": self.place(),
            **changes,
        }
        registration = Registration(**fields)
        self.facts.registrations[session.token_id] = registration
        return registration

    def revoked(self, session: LedgerSession) -> Ending:
        """Its revocation on the chain."""
        ending = Ending("SessionRevoked", "0x" + "0b" * 20, self.place(TIP - 1))
        self.facts.revocations[session.token_id] = ending
        return ending

    def lowered(self, session: LedgerSession, limits: Limits, **changes: Any) -> None:
        """Its limits on the chain."""
        fields = {"grant_hash": session.grant_hash, "account": "0x" + "0d" * 20, **changes}
        self.facts.lowerings[session.token_id] = Lowering(
            limits=limits, place=self.place(), **fields
        )

    def anchor(self, size: int, state: str, block_number: int, **changes: Any) -> LedgerAnchor:
        """An anchor here, as it is on the chain too unless it is on its way."""
        place = self.place(block_number) if state != "sent" else None
        tx_hash = self.random.randbytes(32) if place is None else place.tx_hash
        fields: dict[str, Any] = {
            "size": size,
            "root": root_of(size),
            "state": state,
            "tx_hashes": (self.random.randbytes(32), tx_hash),
            "block_number": None if place is None else place.block_number,
            "block_hash": None if place is None else place.block_hash,
            "sent_ms": NOW_MS - 86_400_000,
            **changes,
        }
        anchor = self.facts.ours[size] = LedgerAnchor(**fields)
        if place is not None:
            self.facts.theirs[size] = Anchoring(size, root_of(size), place)
        return anchor

    def _anchors(self) -> None:
        for number in range(self.random.randint(2, 5)):
            self.anchor(10 * (number + 1), "final", 500 + number)
        self.anchor(100, "mined", TIP)
        self.anchor(200, "sent", TIP, sent_ms=NOW_MS - 1000)

    # Ways to be, in none of which anything is wrong

    def active(self, session_id: str) -> None:
        session = self.session(session_id, "active")
        self.registered(session)
        if self.random.random() < 0.5:
            self.lowered(session, LIMITS)

    def revoked_on_both_sides(self, session_id: str) -> None:
        session = self.session(session_id, "revoked", waiting_since_ms=1)
        self.registered(session)
        self.revoked(session)

    def revocation_on_its_way(self, session_id: str) -> None:
        session = self.session(session_id, "revoked", waiting_since_ms=NOW_MS - 5_000)
        self.registered(session)

    def registration_on_its_way(self, session_id: str) -> None:
        self.session(session_id, "registering", waiting_since_ms=NOW_MS - 5_000)

    def not_confirmed_yet(self, session_id: str) -> None:
        session = self.session(session_id, "registering", waiting_since_ms=1)
        self.registered(session, place=self.place(TIP - CONFIRMATIONS + 1))

    def awaiting_consent(self, session_id: str) -> None:
        self.session(session_id, "awaiting_consent")

    def over(self, session_id: str) -> None:
        session = self.session(session_id, "expired")
        self.registered(session, valid_until_s=NOW_MS // 1000 - 1)

    def revoked_and_over(self, session_id: str) -> None:
        """Nobody needs the revocation of what has ended by itself."""
        session = self.session(session_id, "revoked", waiting_since_ms=1)
        self.registered(session, valid_until_s=NOW_MS // 1000)

    def never_on_the_chain(self, session_id: str) -> None:
        state = self.random.choice(("active", *ENDED))
        self.session(session_id, state, on_chain=False)

    def in_a_workspace_that_was_opened_again(self, session_id: str) -> None:
        workspace = b"\xa1" * 32
        closing = Ending("WorkspaceClosed", "0x" + "0c" * 20, self.place(400))
        self.facts.closings.setdefault(workspace, []).append(closing)
        session = self.session(session_id, "active", workspace_id="acme")
        self.registered(session, workspace=workspace, place=self.place(401))

    def lowered_for_another_grant(self, session_id: str) -> None:
        """What is said of other parameters says nothing of these."""
        session = self.session(session_id, "active")
        self.registered(session)
        self.lowered(session, Limits(1, 1, 1, 1, 1), grant_hash=b"\x67" * 32)

    def of_somebody_else(self, session_id: str) -> None:
        stranger = self.session(session_id, "active")
        del self.facts.sessions[session_id]
        self.registered(stranger, audit_log=b"\x77" * 32, workspace=b"\xb0" * 32)


_WAYS = (
    Making.active,
    Making.revoked_on_both_sides,
    Making.revocation_on_its_way,
    Making.registration_on_its_way,
    Making.not_confirmed_yet,
    Making.awaiting_consent,
    Making.over,
    Making.revoked_and_over,
    Making.never_on_the_chain,
    Making.in_a_workspace_that_was_opened_again,
    Making.lowered_for_another_grant,
    Making.of_somebody_else,
)
