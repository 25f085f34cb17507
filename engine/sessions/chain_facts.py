"""What the index has of a session, and of the workspace that it belongs to.

Nothing here remembers: the same index gives the same facts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from eth_utils.crypto import keccak

from engine.db.database import Read, of_its_rows
from engine.db.tables import ChainBlock, ChainEvent, table
from engine.errors import Unavailable
from engine.grant import limits_from_chain

_blocks = table(ChainBlock)
_events = table(ChainEvent)


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """What the canonical chain says of a token id, ready to be recorded; None: nothing.

    `lowerings` are those of the limits, in order. Where a rotation registered or revoked it, the
    token id on its other side is `rotated_from` or `rotated_to`.
    """

    registration: dict[str, Any] | None
    revocation: dict[str, Any] | None
    lowerings: tuple[dict[str, Any], ...]


def chain_facts(read: Read, token_id: bytes) -> ChainFacts:
    """Read what is indexed of a token id.

    Raises:
        Unavailable: a row of it holds no such event, or it is no token id.
    """
    try:
        return _facts(read, token_id)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Unavailable(
            f"what is indexed of token 0x{token_id.hex()} is damaged: {error!r}",
            code="session_damaged",
        ) from error
    except sa.exc.StatementError as error:
        if not of_its_rows(error):
            raise
        raise Unavailable(f"it is no token id: {error.orig!r}", code="session_damaged") from error


def _facts(read: Read, token_id: bytes) -> ChainFacts:
    registration: dict[str, Any] | None = None
    revocation: dict[str, Any] | None = None
    lowerings = []
    for row in _events_of(read, token_id):
        args = json.loads(row.args_json)
        told = {"grant_hash": args.get("grantHash"), **_place(row, args)}
        if row.name == "SessionRegistered" and registration is None:
            registration = {**told, **_rotated(read, row, "rotated_from", token_id)}
        elif row.name == "SessionRevoked" and revocation is None:
            revocation = {**told, **_rotated(read, row, "rotated_to", token_id)}
        elif row.name == "LimitsLowered":
            lowerings.append(
                {**told, "limits_micro_usd": limits_from_chain(args["limits"]).to_json()}
            )
    return ChainFacts(registration, revocation, tuple(lowerings))


def workspace_hash(workspace_id: str) -> bytes:
    """How the chain calls a workspace."""
    return bytes(keccak(text=workspace_id))


def workspace_closings(read: Read, workspace_id: str) -> list[dict[str, Any]]:
    """Each end of an epoch of a workspace, in order."""
    found = []
    for row in _events_of(read, workspace_hash(workspace_id)):
        if row.name == "WorkspaceClosed":
            args = json.loads(row.args_json)
            found.append({**_place(row, args), "epoch": args["epoch"]})
    return found


def workspace_is_closed(read: Read, workspace_id: str, confirmations: int) -> bool:
    """Whether no session can be registered: from the first sight of a closing, until an opening
    after it has so many blocks above it. A workspace that the chain does not know is open.
    """
    tip = read(sa.select(sa.func.max(_blocks.c.number))).scalar()
    closed = False
    for row in _events_of(read, workspace_hash(workspace_id)):
        if row.name == "WorkspaceClosed":
            closed = True
        elif row.name == "WorkspaceOpened" and row.block_number + confirmations <= (tip or 0):
            closed = False
    return closed


def is_registered(read: Read, token_id: bytes, grant_hash: bytes, confirmations: int) -> bool:
    """Whether a session is registered with this grant, and so many blocks are above that."""
    registration = chain_facts(read, token_id).registration
    if registration is None or registration["grant_hash"] != "0x" + grant_hash.hex():
        return False
    tip = read(sa.select(sa.func.max(_blocks.c.number))).scalar()
    return bool(registration["block_number"] + confirmations <= (tip or 0))


def before(event: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    """Whether an event stands before another one on the chain; what is not there does."""
    if event is None:
        return True
    places = [(each["block_number"], each["log_index"]) for each in (event, other)]
    return places[0] < places[1]


def _events_of(read: Read, subject: bytes) -> Sequence[sa.Row[Any]]:
    query = (
        sa.select(_events)
        .where(_events.c.subject == subject)
        .order_by(_events.c.block_number, _events.c.log_index)
    )
    return read(query).all()


def _place(row: sa.Row[Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """Where an event stands, and on whose authority."""
    by = {"account": args["by"].lower()} if "by" in args else {}
    return {
        "tx_hash": "0x" + row.tx_hash.hex(),
        "block_number": row.block_number,
        "block_hash": "0x" + row.block_hash.hex(),
        "log_index": row.log_index,
        **by,
    }


def _rotated(read: Read, row: sa.Row[Any], other_side: str, token_id: bytes) -> dict[str, str]:
    """The other side of the rotation in the same transaction, if it was one."""
    query = sa.select(_events.c.args_json).where(
        _events.c.block_number == row.block_number,
        _events.c.tx_hash == row.tx_hash,
        _events.c.name == "SessionRotated",
    )
    for args_json in read(query).scalars().all():
        args = json.loads(args_json)
        sides = int(args["fromTokenId"]), int(args["toTokenId"])
        mine, other = sides if other_side == "rotated_to" else sides[::-1]
        if mine == int.from_bytes(token_id):
            return {other_side: "0x" + other.to_bytes(32).hex()}
    return {}
