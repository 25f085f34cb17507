"""Limits that were lowered on the chain, as the records of a session tell of them.

`session.lowered` tells of an event, `session.unlowered` that it is confirmed to be gone. Of each
limit the smallest is in force: the grant's or that of any event that is told of and not gone. So
one more event can raise nothing, and of an event that is in another block now nothing is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.audit.canonical import decode, encode
from engine.audit.merkle import HASH_BYTES
from engine.audit.record import read_hex
from engine.policy.limits import Limits

LOWERED, UNLOWERED = "session.lowered", "session.unlowered"


@dataclass(frozen=True, slots=True)
class Lowering:
    """What makes an event the same one in whatever block it is: its transaction (`0x…`), and the
    limits that it set, which no other event of the session has in that transaction."""

    tx_hash: str
    limits: Limits


def read_lowering(body: Mapping[str, Any]) -> Lowering:
    """Which event a record, or what is stored of it, is about.

    Raises:
        KeyError, TypeError, ValueError: it is about none.
    """
    tx_hash = body["tx_hash"]
    if not isinstance(tx_hash, str) or not tx_hash.startswith("0x"):
        raise ValueError(f"{tx_hash!r} is not the hash of a transaction")
    read_hex(tx_hash[2:], HASH_BYTES)
    return Lowering(tx_hash, Limits.from_json(body["limits_micro_usd"]))


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


def lowered_to_json(lowered: Sequence[Lowering]) -> str:
    """As it is stored beside a session."""
    told = [
        {"tx_hash": each.tx_hash, "limits_micro_usd": each.limits.to_json()} for each in lowered
    ]
    return encode(told).decode()


def lowered_from_json(text: str) -> tuple[Lowering, ...]:
    """The inverse of `lowered_to_json`.

    Raises:
        ValueError: it is not its output.
    """
    told: Any = decode(text.encode())
    try:
        lowered = tuple(map(read_lowering, told))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a list of lowered limits: {error!r}") from error
    if lowered_to_json(lowered) != text:
        raise ValueError("not a list of lowered limits: unknown or irregular fields")
    return lowered
