"""Whether the parameters that are enforced are those that were recorded and registered.

Signed = anchored = enforced: the grant in a session's row must be the one in its first record, and
where the session lives on the chain, hash to what the registry's event has.
"""

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import decode_object, encode_own
from engine.db.database import Read
from engine.db.tables import ChainEvent, table
from engine.grant import Grant

REGISTERED_STATES = ("active", "paused")
"""The states in which a session that lives on the chain has its registration there."""

_events = table(ChainEvent)


def compare_parameters(
    read: Read, row: Any, told: Mapping[str, Any], grant: Grant
) -> dict[str, str | None] | None:
    """What is not the same, by who says it; None if all say the same.

    `row` is a session's, `told` the body of its first record and `grant` the grant in it. What is
    compared are the hashes of the parameters, in hexadecimal; `registered` is None where the
    registry has none.

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
        says["registered"] = registered_hash(read, row.token_id)
        same = same and says["recorded_hashes_to"] == recorded == says["registered"]
    if same:
        return None
    says["stored_hashes_to"] = Grant.from_json(decode_object(stored_json)).hash().hex()
    return says


def lowered_on_chain(read: Read, token_id: bytes) -> set[str]:
    """The transactions (`0x…`) that the index has of lowering a session's limits."""
    found = read(
        sa.select(_events.c.tx_hash).where(
            _events.c.subject == token_id, _events.c.name == "LimitsLowered"
        )
    )
    return {"0x" + tx_hash.hex() for tx_hash in found.scalars()}


def registered_hash(read: Read, token_id: bytes) -> str | None:
    """The hash of the parameters that the index has of a token id's registration."""
    args = read(
        sa.select(_events.c.args_json)
        .where(_events.c.subject == token_id, _events.c.name == "SessionRegistered")
        .order_by(_events.c.block_number, _events.c.log_index)
        .limit(1)
    ).scalar()
    if args is None:
        return None
    return str(json.loads(args)["grantHash"]).removeprefix("0x")
