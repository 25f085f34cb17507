"""What was read of the chain: alone, against the sessions, and against the chain itself."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from eth_utils.crypto import keccak

from engine.audit.lowering import Lowering
from engine.audit.replay import LOWERED_STATES
from engine.chain import contracts
from engine.chain.events import event_row, subject_of
from engine.chain.gateway import ChainGateway
from engine.chain.indexer import BLOCKS_PER_READ_MAX
from engine.db.tables import ChainBlock, ChainEvent, table
from engine.fsck.finding import Findings, Row, stored
from engine.fsck.streams import DAMAGE
from engine.grant import limits_from_chain

_blocks = table(ChainBlock)
_events = table(ChainEvent)


def check_blocks(connection: sa.Connection, findings: Findings) -> None:
    """Each block follows the one before it, and the events are of these blocks."""
    before: Row | None = None
    query = sa.select(*stored(_blocks)).order_by(_blocks.c.number)
    hashes: dict[Any, Any] = {}
    for row in connection.execute(query).mappings():
        hashes[row["number"]] = row["hash"]
        if before is not None and row["number"] == before["number"] + 1:
            if row["parent_hash"] != before["hash"]:
                says = f"block {row['number']} does not follow block {before['number']}"
                pairs = (("parent_hash", row, before["hash"]), ("hash", before, row["parent_hash"]))
                for column, of, wanted in pairs:
                    number = of["number"]
                    findings.add(
                        "chain_blocks",
                        number,
                        column,
                        found=of[column],
                        expected=wanted,
                        says=says,
                    )
        elif before is not None:
            number = before["number"] + 1
            findings.missing("chain_blocks", number, f"block {row['number']} was read")
        before = row
    for row in connection.execute(sa.select(*stored(_events))).mappings():
        name = f"{row['block_number']}/{row['log_index']}"
        if row["block_number"] in hashes:
            wanted = {"block_hash": hashes[row["block_number"]]}
            findings.compare("chain_events", name, wanted, row, by="the block")
        try:
            subject = subject_of(row["name"], json.loads(row["args_json"]))
        except DAMAGE as error:
            says = f"it is no event that is kept: {error!r}"
            findings.add("chain_events", name, "args_json", found=row["args_json"], says=says)
            continue
        findings.compare("chain_events", name, {"subject": subject}, row, by="the event")


def check_session(
    connection: sa.Connection,
    findings: Findings,
    session: Row,
    registration: Mapping[str, Any] | None,
    lowered: Collection[Lowering],
) -> None:
    """A session acts on what was read of it: the row `session`, its last registration, and the
    limits that its records tell were lowered and still count.
    """
    events: dict[Any, list[Row]] = {}
    for row in _events_of(connection, session["token_id"]):
        events.setdefault(row["name"], []).append(row)
    registered = next(iter(events.get("SessionRegistered", ())), None)
    if session["state"] != "revoked":
        ends = list(events.get("SessionRevoked", ()))
        if session["state"] in LOWERED_STATES and registered is not None:
            ends += _closings_after(connection, session, registered)
        for end in ends:
            says = f"session {session['id']} is {session['state']} all the same"
            findings.unexpected("chain_events", _name(end), says)
    if session["state"] in LOWERED_STATES:
        _check_lowered(findings, session, events.get("LimitsLowered", ()), lowered)
    if session["state"] != "active" or not session["mint_pkp"]:
        return
    told = registration or {}
    if registered is None:
        name = f"{told.get('block_number')}/{told.get('log_index')}"
        findings.missing("chain_events", name, f"session {session['id']} is active by it")
        return
    try:
        grant_hash = json.loads(registered["args_json"])["grantHash"]
    except DAMAGE:
        return  # `check_blocks` names it
    tx_hash = registered["tx_hash"]
    found = {
        "tx_hash": "0x" + tx_hash.hex() if isinstance(tx_hash, bytes) else tx_hash,
        "args_json": grant_hash,
    }
    wanted = {"tx_hash": told.get("tx_hash"), "args_json": told.get("grant_hash")}
    by = f"the records of {session['id']}"
    findings.compare("chain_events", _name(registered), wanted, found, by=by)


def _check_lowered(
    findings: Findings, session: Row, events: Iterable[Row], lowered: Collection[Lowering]
) -> None:
    """Lower limits count at first sight. They may count when their event is gone, until that is
    confirmed.
    """
    for event in events:
        try:
            limits = limits_from_chain(json.loads(event["args_json"])["limits"])
            known = Lowering("0x" + event["tx_hash"].hex(), limits) in lowered
        except DAMAGE as error:
            says = f"it lowers no limits: {error!r}"
            findings.add(
                "chain_events", _name(event), "args_json", found=event["args_json"], says=says
            )
            continue
        if not known:
            says = f"the limits of session {session['id']} were not lowered by it"
            findings.unexpected("chain_events", _name(event), says)


def _closings_after(connection: sa.Connection, session: Row, registered: Row) -> list[Row]:
    """The ends of its workspace that ended the session, too."""
    place = registered["block_number"], registered["log_index"]
    return [
        row
        for row in _events_of(connection, keccak(text=str(session["workspace_id"])))
        if row["name"] == "WorkspaceClosed" and (row["block_number"], row["log_index"]) > place
    ]


def _events_of(connection: sa.Connection, subject: Any) -> Sequence[Row]:
    query = (
        sa.select(*stored(_events))
        .where(_events.c.subject == subject)
        .order_by(_events.c.block_number, _events.c.log_index)
    )
    return connection.execute(query).mappings().all()


def _name(event: Row) -> str:
    return f"{event['block_number']}/{event['log_index']}"


def check_index(
    connection: sa.Connection,
    findings: Findings,
    gateway: ChainGateway,
    sources: Mapping[str, str],
    start_block: int,
) -> None:
    """What was read is what the chain answers now. A running server may be behind by a moment.

    `sources` says which contract is at each address, `start_block` from which block on it was read.

    Raises:
        ChainError: the chain does not answer.
    """
    tip = -1
    for row in connection.execute(sa.select(*stored(_blocks))).mappings():
        tip = max(tip, row["number"])
        header = gateway.block(row["number"])
        wanted = (
            None
            if header is None
            else {
                "hash": header.hash,
                "parent_hash": header.parent_hash,
                "timestamp_s": header.timestamp_s,
            }
        )
        if wanted is None:
            findings.unexpected("chain_blocks", row["number"], "the chain has no such block")
        else:
            findings.compare("chain_blocks", row["number"], wanted, row, by="the chain")
    known: dict[tuple[Any, Any], Row] = {
        (row["block_number"], row["log_index"]): row
        for row in connection.execute(sa.select(*stored(_events))).mappings()
    }
    for first in range(start_block, tip + 1, BLOCKS_PER_READ_MAX):
        last = min(tip, first + BLOCKS_PER_READ_MAX - 1)
        for log in gateway.logs(from_block=first, to_block=last, addresses=tuple(sources)):
            event = contracts.decode_log(sources[log.address], log)
            if event is not None and (wanted := event_row(event)) is not None:
                kept = known.pop((log.block_number, log.log_index), None)
                name = f"{log.block_number}/{log.log_index}"
                findings.compare("chain_events", name, wanted, kept, by="the chain")
    for block_number, log_index in known:
        name = f"{block_number}/{log_index}"
        findings.unexpected("chain_events", name, "the chain has no such event")
