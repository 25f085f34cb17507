"""Whether the parameters that are enforced are those that were recorded and registered.

Signed = anchored = enforced: the grant in a session's row must be the one in its first record, and
where the session lives on the chain, hash to what the registry's event has.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import decode_object, encode_own
from engine.db.database import Read
from engine.db.tables import ChainEvent, table
from engine.grant import Grant

REGISTERED_STATES = ("active",)
"""The states in which a session that lives on the chain must have its registration there. One that
is paused pays nothing, and whatever became of its registration is looked at when it is resumed."""

_events = table(ChainEvent)
_told = (
    sa.select(*(_events.c[name] for name in ("subject", "name", "tx_hash", "args_json")))
    .where(
        _events.c.subject.in_(sa.bindparam("wanted", expanding=True)),
        _events.c.name.in_(("SessionRegistered", "LimitsLowered")),
    )
    .order_by(_events.c.block_number, _events.c.log_index)
)


@dataclass(slots=True)
class OnChain:
    """What the index has of one session: the arguments of its registration, as JSON, and the
    transactions (`0x…`) that lowered its limits."""

    registration_json: str | None = None
    lowered: set[str] = field(default_factory=set)

    @property
    def registered(self) -> str | None:
        """The hash of the parameters that were registered, in hexadecimal."""
        if self.registration_json is None:
            return None
        return str(json.loads(self.registration_json)["grantHash"]).removeprefix("0x")


def read_on_chain(read: Read, token_ids: Collection[bytes]) -> dict[bytes, OnChain]:
    """What the index has of these token ids; those of which it has nothing are not there."""
    found: dict[bytes, OnChain] = {}
    if not token_ids:
        return found
    for event in read(_told.params(wanted=list(token_ids))):
        of = found.setdefault(event.subject, OnChain())
        if event.name == "LimitsLowered":
            of.lowered.add("0x" + event.tx_hash.hex())
        elif of.registration_json is None:
            of.registration_json = event.args_json
    return found


def compare_parameters(
    row: Any, told: Mapping[str, Any], grant: Grant, on_chain: OnChain
) -> dict[str, str | None] | None:
    """What is not the same, by who says it; None if all say the same.

    `row` is a session's, `told` the body of its first record, `grant` the grant in it and
    `on_chain` what the index has of it. What is compared are the hashes of the parameters, in
    hexadecimal; `registered` is None where the registry has none.

    Raises:
        ValueError, KeyError: the row holds no grant, or says otherwise whether there is a registry.
    """
    recorded: str = told["grant_hash"]
    if row.mint_pkp is not told["mint_pkp"]:
        raise ValueError("its row and its records differ on whether it lives on the chain")
    stored_json = row.grant_json.encode()
    same = stored_json == encode_own(told["grant"]) and row.grant_hash.hex() == recorded
    says: dict[str, str | None] = {"stored_hash": row.grant_hash.hex(), "recorded": recorded}
    if row.mint_pkp and row.state in REGISTERED_STATES:
        # The first record is hashed in the log, but that is compared at the start only.
        says["recorded_hashes_to"] = grant.hash().hex()
        says["registered"] = on_chain.registered
        same = same and says["recorded_hashes_to"] == recorded == says["registered"]
    if same:
        return None
    says["stored_hashes_to"] = Grant.from_json(decode_object(stored_json)).hash().hex()
    return says


def differs_above(line: Iterable[tuple[Mapping[Any, Any], Grant]]) -> dict[str, str | None] | None:
    """The nearest session above one whose parameters are not those on the chain; None if all are.

    Nobody can say what may be spent under it. `line` has the rows and grants above the session.
    """
    for row, grant in line:
        if row["state"] == "mismatch":
            return {"ancestor_id": row["id"], "stored_hash": grant.hash().hex()}
    return None
