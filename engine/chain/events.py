"""The events of our contracts that are indexed, as rows of the index."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.chain import contracts

SUBJECTS = {
    "SessionRegistered": "tokenId",
    "SessionRevoked": "tokenId",
    "SessionRotated": "fromTokenId",
    "LimitsLowered": "tokenId",
    "WorkspaceOpened": "workspace",
    "WorkspaceClosed": "workspace",
    "LogOpened": "logId",
    "Anchored": "logId",
}
"""The events that are kept, and the argument that says whom each is about."""


@dataclass(frozen=True, slots=True)
class Source:
    """A contract that is listened to: its name, and the hash of the code that it must have."""

    name: str
    code_hash: bytes


def event_row(event: contracts.Event) -> dict[str, Any] | None:
    """What is kept of an event; None if it is not one that is followed."""
    if event.name not in SUBJECTS:
        return None
    log = event.log
    return {
        "block_number": log.block_number,
        "log_index": log.log_index,
        "block_hash": log.block_hash,
        "tx_hash": log.tx_hash,
        "name": event.name,
        "subject": subject_of(event.name, event.args),
        "args_json": json.dumps(_plain(event.args), sort_keys=True),
    }


def subject_of(name: str, args: Mapping[str, Any]) -> bytes:
    """Whom an event is about, 32 bytes, by its arguments as they are decoded or kept in a row.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it is no such event.
    """
    subject = args[SUBJECTS[name]]
    if isinstance(subject, str) and subject.startswith("0x"):
        subject = bytes.fromhex(subject[2:])
    return subject if isinstance(subject, bytes) else int(subject).to_bytes(32)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "items"):
        return {name: _plain(item) for name, item in value.items()}
    return value
