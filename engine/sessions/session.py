"""A session as it is asked for and as it is stored."""

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from engine.audit.canonical import decode_object
from engine.audit.lowering import Lowering, lowered_from_json
from engine.audit.merkle import HASH_BYTES
from engine.audit.restricting import Above, above_from_json
from engine.errors import NotFound, Unavailable
from engine.grant import Grant
from engine.ledger.stream import Stream
from engine.policy.decision import Policy
from engine.policy.limits import DAY_MS, Limits

Read = TypeVar("Read")

DURATION_MS = DAY_MS
"""So long a session lasts where nothing else is asked for."""
TIME_MAX_MS = 253_402_300_799_999
"""The last moment of the year 9999: no later one can be told."""

_COLUMNS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (
        str,
        (
            *("id", "workspace_id", "type", "agent_id", "user_wallet", "state", "consent"),
            *("grant_json", "restrictions_json", "restrictions_above_json", "lowered_json"),
            "metadata_json",
        ),
    ),
    (str | None, ("parent_id", "rotates_id", "label", "agent_name", "paused_by")),
    (bytes, ("grant_hash", "token_id", "public_key")),
    (bytes | None, ("owner_signature",)),
    (int, ("policy_version", "approvals_required", "created_ms", "expires_ms")),
    (int | None, ("ended_ms",)),
)
_LENGTHS = {"grant_hash": HASH_BYTES, "token_id": HASH_BYTES, "public_key": 65}
_TIMES = ("created_ms", "expires_ms", "ended_ms")


@dataclass(frozen=True, slots=True)
class NewSession:
    """What an operator asks for; identifiers are in canonical form, an empty list means any.

    `owner` is the EVM address that consents, or None where the wallet has none.
    """

    type: str
    label: str | None
    agent_id: str
    agent_name: str | None
    user_wallet: str
    owner: str | None
    limits: Limits
    permissions: tuple[str, ...]
    merchants: tuple[str, ...]
    tokens: tuple[str, ...]
    chains: tuple[str, ...]
    duration_ms: int | None
    """None: a day, or what is left of the session that delegates."""
    mint_pkp: bool
    await_consent: bool
    metadata_json: str
    conditions: tuple[str, ...] = ()
    """Sentences in any order."""
    parent_id: str | None = None
    """The session that delegates; see `engine.sessions.delegation`."""
    approvals_required: int | None = None
    """How many operators must grant an approval; None: as many as for the parent, or one."""
    rotates_id: str | None = None
    """The session that its registration revokes; see `engine.sessions.rotation`."""
    by: str | None = None
    """The key, or for a child the session, that asks for it; None: nobody who could be named."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as it is stored. `policy_version` counts up with each change of `restrictions`;
    `restrictions_above` are those of sessions above that bind it, too, and `lowered` the limits
    that were lowered on the chain. `paused_by` is a key or `ancestor`."""

    id: str
    workspace_id: str
    parent_id: str | None
    rotates_id: str | None
    type: str
    label: str | None
    agent_id: str
    agent_name: str | None
    user_wallet: str
    metadata_json: str
    state: str
    paused_by: str | None
    consent: str
    grant: Grant
    grant_hash: bytes
    restrictions: tuple[str, ...]
    restrictions_above: Above = field(hash=False)
    lowered: tuple[Lowering, ...]
    policy_version: int
    approvals_required: int
    owner_signature: bytes | None
    public_key: bytes
    token_id: bytes
    mint_pkp: bool
    created_ms: int
    expires_ms: int
    ended_ms: int | None

    @property
    def stream(self) -> Stream:
        """Where its records go."""
        return Stream(self.workspace_id, self.id, self.type, self.label)

    @property
    def policy(self) -> Policy:
        """What its grant, its restrictions and the limits on the chain allow."""
        lowered = (each.limits for each in self.lowered)
        return self.grant.policy(self.restrictions, lowered, self.restrictions_above.values())

    @property
    def pkp_address(self) -> str | None:
        """The session's on-chain identity, where it was asked for."""
        return self.grant.session_key if self.mint_pkp else None


def session_from_row(row: Mapping[Any, Any] | None) -> SessionView:
    """Read a row of the sessions table.

    Raises:
        NotFound: there is none.
        Unavailable: it does not hold a session.
    """
    if row is None:
        raise NotFound("no such session", code="session_not_found")
    fields = dict(row)
    del fields["secret_hash"]
    try:
        _check_columns(fields)
        grant = Grant.from_json(decode_object(fields.pop("grant_json").encode()))
        restrictions = tuple(json.loads(fields.pop("restrictions_json")))
        above = above_from_json(fields.pop("restrictions_above_json"))
        grant.policy(restrictions, above=above.values())
        lowered = lowered_from_json(fields.pop("lowered_json"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unavailable(
            f"session {row['id']} is damaged in the database: {error}", code="session_damaged"
        ) from error
    return SessionView(
        grant=grant,
        restrictions=restrictions,
        restrictions_above=above,
        lowered=lowered,
        **fields,
    )


def readable(rows: Iterable[Any], read: Callable[[Any], Read]) -> list[Read]:
    """What rows of sessions hold, but for those that hold none."""
    found = []
    for row in rows:
        with contextlib.suppress(Unavailable):
            found.append(read(row))
    return found


def _check_columns(fields: Mapping[str, Any]) -> None:
    """SQLite keeps whatever is put into a column: whoever reads a session relies on these.

    Raises:
        ValueError: a column holds what it is not for.
    """
    for kind, names in _COLUMNS:
        for name in names:
            if not isinstance(fields[name], kind):
                raise ValueError(f"{name} is {type(fields[name]).__name__}")  # noqa: TRY004
    for name, length in _LENGTHS.items():
        if len(fields[name]) != length:
            raise ValueError(f"{name} is not of {length} bytes")
    for name in _TIMES:
        if fields[name] is not None and not 0 <= fields[name] <= TIME_MAX_MS:
            raise ValueError(f"{name} is no moment")
    metadata = fields["metadata_json"]
    if metadata != "{}" and not isinstance(json.loads(metadata), dict):  # it is often empty
        raise ValueError("metadata_json is no object")
