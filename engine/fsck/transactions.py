"""What was sent to the chain: each transaction is signed by the operator, is for our contracts and
says what it should; and what became of the anchors, as far as the chain was read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from eth_utils.crypto import keccak

from engine.audit.canonical import decode_object
from engine.audit.evidence import log_salt
from engine.chain import contracts
from engine.db.tables import (
    Anchor,
    ChainBlock,
    ChainEvent,
    ChainTransaction,
    CheckpointRow,
    Session,
    table,
)
from engine.fsck.finding import UNSAID, Findings, Row, part, stored
from engine.fsck.installation import Installation
from engine.fsck.log import Roots
from engine.fsck.streams import DAMAGE
from engine.grant import Grant

_anchors = table(Anchor)
_blocks = table(ChainBlock)
_checkpoints = table(CheckpointRow)
_events = table(ChainEvent)
_sessions = table(Session)
_transactions = table(ChainTransaction)


@dataclass(frozen=True, slots=True)
class Sent:
    """A signed transaction, read from its bytes."""

    chain_id: int
    signer: str
    to: str
    data: bytes
    nonce: int


def read_transaction(raw: Any) -> Sent:
    """Read the bytes of a transaction (EIP-2718).

    Raises:
        TypeError, ValueError: they are none.
    """
    from eth_account import Account
    from eth_account.typed_transactions.typed_transaction import TypedTransaction
    from hexbytes import HexBytes

    if not isinstance(raw, bytes):
        raise TypeError("not the bytes of a transaction")
    try:
        fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        signer = Account.recover_transaction(raw)
        return Sent(
            int(fields["chainId"]),
            str(signer).lower(),
            "0x" + HexBytes(fields["to"]).hex().removeprefix("0x"),
            bytes(HexBytes(fields["data"])),
            int(fields["nonce"]),
        )
    except Exception as error:
        raise ValueError(f"not a transaction: {error}") from error


def check_transactions(
    connection: sa.Connection, findings: Findings, installation: Installation
) -> None:
    """Registrations, rotations and revocations of sessions."""
    query = sa.select(*stored(_transactions), *stored(_sessions, "of_")).outerjoin(
        _sessions, _sessions.c.id == _transactions.c.session_id
    )
    labels = {column.name for column in _transactions.columns}
    for row in connection.execute(query).mappings():
        name = f"{row['session_id']}/{row['action']}"
        session = part(row, "of_", _sessions)
        if session is None:
            findings.unexpected("chain_transactions", name, "there is no such session")
            continue
        expected = {
            "session_id": session["id"],
            "workspace_id": session["workspace_id"],
            "session_type": session["type"],
            "label": session["label"],
        }
        own = {column: row[column] for column in labels}
        findings.compare("chain_transactions", name, expected, own, by="its session")
        try:
            calls = _calls(connection, session, row["action"])
        except Exception as error:  # noqa: BLE001 (the codec has many ways to refuse nonsense)
            says = f"no transaction can be made for its session: {error}"
            findings.add("chain_transactions", name, "action", found=row["action"], says=says)
            continue
        raw = row["raw_tx"]
        data = next((call for call in calls if isinstance(raw, bytes) and call in raw), calls[0])
        _check_sent(
            findings, installation, "chain_transactions", name, row, installation.registry, data
        )


def check_anchors(
    connection: sa.Connection, findings: Findings, installation: Installation, roots: Roots
) -> None:
    """Every anchor has the root of a checkpoint, and was sent as it is."""
    query = sa.select(*stored(_anchors), _checkpoints.c.root.label("signed")).outerjoin(
        _checkpoints, _checkpoints.c.size == _anchors.c.size
    )
    for row in connection.execute(query.order_by(_anchors.c.size)).mappings():
        size = row["size"]
        if row["signed"] is None:
            findings.missing("checkpoints", size, "there is an anchor of this size")
        root = roots.get(size)
        if root is None:
            findings.add(
                "anchors",
                size,
                "size",
                found=size,
                expected="at most the number of records",
                says="records of this anchor are missing from the log",
            )
            continue
        expected = {
            "size": size,
            "root": root,
            "state": UNSAID,
            "replaced_json": UNSAID,
            "block_number": UNSAID,
            "block_hash": UNSAID,
            "sent_ms": UNSAID,
        }
        findings.compare("anchors", size, expected, row, by="the records under it")
        if not installation.log_id:
            continue  # `meta` has lost it
        data = _anchoring(installation, size, root)
        if row["raw_tx"] != b"":
            _check_sent(findings, installation, "anchors", size, row, installation.anchors, data)
        elif row["state"] == "sent":
            says = "it waits to be mined, and what was sent is not there"
            findings.add("anchors", size, "raw_tx", says=says)
        _check_replaced(findings, installation, row, data)


def check_mined(
    connection: sa.Connection, findings: Findings, installation: Installation, roots: Roots
) -> None:
    """Anchors are where the chain was read to have them. The server catches up with it in a moment,
    so what is found while it runs has to be looked at again.
    """
    tip = connection.execute(sa.select(sa.func.max(_blocks.c.number))).scalar_one()
    known: dict[Any, Row] = {}
    ours = sa.select(*stored(_events)).where(
        _events.c.name.in_(("LogOpened", "Anchored")), _events.c.subject == installation.log_id
    )
    for event in connection.execute(ours).mappings():
        if event["name"] == "LogOpened":
            known[0] = event
            continue
        try:
            args = json.loads(event["args_json"])
            size, root = int(args["size"]), bytes.fromhex(args["root"][2:])
        except DAMAGE:
            continue  # `engine.fsck.chain` names it
        known[size] = event
        if root != roots.get(size):
            findings.add(
                "chain_events",
                f"{event['block_number']}/{event['log_index']}",
                "args_json",
                found=root,
                expected=roots.get(size),
                says=f"the chain is said to hold another root of the log at size {size}",
            )
    for row in connection.execute(sa.select(*stored(_anchors))).mappings():
        mined = known.pop(row["size"], None)
        read = isinstance(row["block_number"], int) and row["block_number"] <= (tip or -1)
        if mined is None and read:
            says = "the block was read, and the chain has no such anchor in it"
            number = row["block_number"]
            findings.add("anchors", row["size"], "block_number", found=number, says=says)
            findings.missing("chain_events", f"{number} (anchor of size {row['size']})", says)
        elif mined is not None:
            where = {name: mined[name] for name in ("block_number", "block_hash", "tx_hash")}
            findings.compare("anchors", row["size"], where, row, by="the chain as it was read")
        on_chain = row["block_number"] is not None
        states = ("mined", "final") if on_chain else ("sent",)
        if row["state"] not in states or on_chain != (row["block_hash"] is not None):
            findings.add(
                "anchors",
                row["size"],
                "state",
                found=row["state"],
                expected=" or ".join(states),
                says="it does not fit the block that is named",
            )
    known.pop(0, None)  # the first start opened the log, and kept nothing of that
    for size, mined in known.items():
        findings.missing("anchors", size, f"block {mined['block_number']} has such an anchor")


def _anchoring(installation: Installation, size: int, root: bytes) -> bytes:
    """The call of an anchor; the one of size 0 opens the log, where a reorganisation closed it."""
    if size == 0:
        salt = log_salt(installation.verifier_key)
        return contracts.call_data(contracts.ANCHOR_REGISTRY, "openLog", salt)
    return contracts.call_data(contracts.ANCHOR_REGISTRY, "anchor", installation.log_id, size, root)


def _check_sent(
    findings: Findings,
    installation: Installation,
    name: str,
    key: Any,
    row: Row,
    to: str,
    data: bytes,
) -> None:
    try:
        sent = read_transaction(row["raw_tx"])
    except DAMAGE as error:
        findings.add(name, key, "raw_tx", found=row["raw_tx"], says=str(error))
        return
    hashed = {"tx_hash": keccak(row["raw_tx"])}
    findings.compare(name, key, hashed, row, by="the transaction that was sent")
    wanted = {
        "chain_id": installation.chain_id,
        "signer": installation.operator,
        "to": to,
        "data": data,
    }
    _compare_sent(findings, name, key, "raw_tx", sent, wanted)


def _check_replaced(
    findings: Findings, installation: Installation, anchor: Row, data: bytes
) -> None:
    """What was sent for an anchor with other fees is the same but for them."""
    size, told = anchor["size"], anchor["replaced_json"]
    try:
        replaced = json.loads(told)
        regular = json.dumps(replaced) == told and isinstance(replaced, list)
        raws = [bytes.fromhex(raw) for raw in replaced] if regular else []
        regular = regular and [raw.hex() for raw in raws] == replaced
        sent = [read_transaction(raw) for raw in (anchor["raw_tx"], *raws)] if raws else []
    except DAMAGE as error:
        findings.add("anchors", size, "replaced_json", found=told, says=str(error))
        return
    if not regular or len({anchor["raw_tx"], *raws}) != len(raws) + 1:
        says = "it is not a list of other transactions"
        findings.add("anchors", size, "replaced_json", found=told, says=says)
    for one in sent[1:]:
        wanted = {
            "chain_id": installation.chain_id,
            "signer": installation.operator,
            "to": installation.anchors,
            "data": data,
            "nonce": sent[0].nonce,
        }
        _compare_sent(findings, "anchors", size, "replaced_json", one, wanted)


def _compare_sent(
    findings: Findings, name: str, key: Any, column: str, sent: Sent, wanted: Mapping[str, Any]
) -> None:
    for what, expected in wanted.items():
        if (found := getattr(sent, what)) != expected:
            says = f"the transaction has another {what.replace('_', ' ')}"
            findings.add(name, key, column, found=found, expected=expected, says=says)


def _calls(connection: sa.Connection, session: Row, action: str) -> list[bytes]:
    """What may have been sent: what rotates another is registered alone if that one has ended."""
    grant = _grant(session)
    if action == "revoke":
        return [contracts.revoking(grant, session["token_id"])]
    if action != "register":
        raise ValueError(f"{action!r} is not an action")
    new = grant, session["public_key"], session["owner_signature"], session["consent"]
    calls = [contracts.registering(*new)]
    query = sa.select(*stored(_sessions)).where(_sessions.c.id == session["rotates_id"])
    if (old := connection.execute(query).mappings().first()) is not None:
        calls.append(contracts.rotating(_grant(old), old["token_id"], *new))
    return calls


def _grant(session: Row) -> Grant:
    return Grant.from_json(decode_object(session["grant_json"].encode()))
