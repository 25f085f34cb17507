"""Limits that were lowered on the chain, as the records of a session tell of them.

`session.lowered` tells of an event, `session.unlowered` that it is confirmed to be gone. Of each
limit the smallest is in force: the grant's or that of any event that is told of and not gone. So
one more event can raise nothing, and of an event that is in another block now nothing is told.
Authority never widens: what was lowered for a session binds those beneath it, whose own records
tell of it where their grants allow more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.audit.canonical import decode, encode
from engine.audit.merkle import HASH_BYTES
from engine.audit.record import read_hex
from engine.audit.report import shown
from engine.policy.limits import Limits, lowest

LOWERED, UNLOWERED = "session.lowered", "session.unlowered"


@dataclass(frozen=True, slots=True)
class Lowering:
    """What makes an event the same one in whatever block it is: its transaction (`0x…`), and the
    limits that it set, which no other event of the session has in that transaction.

    `ancestor_id` is the session above whose limits they are; None: they are the session's own."""

    tx_hash: str
    limits: Limits
    ancestor_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As a record tells it."""
        told: dict[str, Any] = {
            "tx_hash": self.tx_hash,
            "limits_micro_usd": self.limits.to_json(),
        }
        return told if self.ancestor_id is None else {**told, "ancestor_id": self.ancestor_id}


def read_lowering(body: Mapping[str, Any]) -> Lowering:
    """Which event a record, or what is stored of it, is about.

    Raises:
        KeyError, TypeError, ValueError: it is about none.
    """
    tx_hash = body["tx_hash"]
    if not isinstance(tx_hash, str) or not tx_hash.startswith("0x"):
        raise ValueError(f"{shown(tx_hash)} is not the hash of a transaction")
    read_hex(tx_hash[2:], HASH_BYTES)
    ancestor_id = body.get("ancestor_id")
    if not isinstance(ancestor_id, str | None):
        raise TypeError(f"{ancestor_id!r} is not the id of a session")
    return Lowering(tx_hash, Limits.from_json(body["limits_micro_usd"]), ancestor_id)


def follow_lowering(
    lowered: tuple[Lowering, ...], kind: str, body: Mapping[str, Any]
) -> tuple[Lowering, ...]:
    """Those that count after a record.

    Raises:
        KeyError, TypeError, ValueError: it cannot follow those that count before it.
    """
    event = read_lowering(body)
    if (event in lowered) != (kind == UNLOWERED):
        raise ValueError("its limits count already" if event in lowered else "they do not count")
    if kind == UNLOWERED:
        return tuple(each for each in lowered if each != event)
    return (*lowered, event)


def inherited(granted: Limits, ancestor_id: str, lowered: Iterable[Lowering]) -> list[Lowering]:
    """What binds a session with these `granted` limits of what was lowered for one above it.

    What that one inherited itself is not among it: it comes from where it was lowered. Nor is what
    allows no less than the grant.
    """
    return [
        replace(each, ancestor_id=ancestor_id)
        for each in lowered
        if each.ancestor_id is None and lowest(granted, each.limits) != granted
    ]


def lowered_to_json(lowered: Sequence[Lowering]) -> str:
    """As it is stored beside a session."""
    return encode([each.to_json() for each in lowered]).decode()


def lowered_from_json(text: str) -> tuple[Lowering, ...]:
    """The inverse of `lowered_to_json`.

    Raises:
        ValueError: it is not its output.
    """
    if text == "[]":  # nearly always
        return ()
    told: Any = decode(text.encode())
    try:
        lowered = tuple(map(read_lowering, told))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a list of lowered limits: {error!r}") from error
    if lowered_to_json(lowered) != text:
        raise ValueError("not a list of lowered limits: unknown or irregular fields")
    return lowered
