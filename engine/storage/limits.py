"""How much a payer may store, and every check of what a payer hands in.

Sizes are bytes of UTF-8. Text is kept exactly as it is: nothing is trimmed, folded or put into
another Unicode normal form, and U+0000 is a character like any other.
"""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from engine.errors import Conflict, InvalidInput, Unavailable

RESERVATION_MS = 600_000
"""So long room is kept for a write that is being paid for."""
TTL_MS_MAX = 100 * 365 * 86_400_000
"""A hundred years: every expiry fits 53 bits, which is what a script of Valkey counts exactly."""
KEY_BYTES_MAX = 2_048
"""The longest key that may be configured; PostgreSQL indexes no more than 2,704 bytes a row."""


class TooLarge(InvalidInput):
    """A field is over its limit. `details` has `size` and `size_max`, in bytes or entries."""

    code = "too_large"

    def __init__(self, field: str, size: int, size_max: int, unit: str) -> None:
        super().__init__(field, f"has {size} {unit}, and {size_max} are allowed")
        self.details = {**self.details, "size": size, "size_max": size_max}


class Usage(NamedTuple):
    """What a payer holds: entries, and the bytes of their keys and values."""

    entries: int
    bytes: int


NOTHING = Usage(0, 0)


class QuotaExceeded(Conflict):
    """The payer would hold more than a payer may. Nothing was written.

    `details` has `quota` (`entries`, `bytes` or `store`), and for the payer's own `size` and
    `size_max`.
    """

    code = "quota_exceeded"


class Changed(Conflict):
    """Something else is there than was to be replaced. Nothing was written."""

    code = "precondition_failed"


class WriteInProgress(Unavailable):
    """Another write on a condition is being paid for, of the same entry."""

    code = "write_in_progress"

    def __init__(self) -> None:
        super().__init__("this entry is being written on another condition: ask again")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a payer may store and ask for.

    Raises:
        ValueError: one of them is below 1, or `key_bytes_max` above `KEY_BYTES_MAX`.
    """

    key_bytes_max: int = 1_024
    value_bytes_max: int = 262_144
    payer_entries_max: int = 1_000
    payer_bytes_max: int = 16_777_216
    batch_entries_max: int = 100
    page_entries_max: int = 1_000

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be >= 1")
        if self.key_bytes_max > KEY_BYTES_MAX:
            raise ValueError(f"key_bytes_max must be <= {KEY_BYTES_MAX}")

    def check_key(self, key: Any) -> None:
        """Raises `InvalidInput` for what is no text, or empty; `TooLarge`."""
        if _size("key", key, self.key_bytes_max) == 0:
            raise InvalidInput("key", "must not be empty")

    def check_keys(self, keys: Collection[Any]) -> None:
        """Each as `check_key`; raises `TooLarge` for more than a batch."""
        if len(keys) > self.batch_entries_max:
            raise TooLarge("keys", len(keys), self.batch_entries_max, "entries")
        for key in keys:
            self.check_key(key)

    def check_entries(self, entries: Mapping[Any, Any]) -> None:
        """Keys as `check_keys`; values are text of at most `value_bytes_max`."""
        self.check_keys(entries.keys())
        for value in entries.values():
            _size("value", value, self.value_bytes_max)

    def check_old(self, old: Any) -> None:
        """None, or text; it may be larger than is allowed by now."""
        if old is not None:
            _size("old", old, sys.maxsize)

    def check_prefix(self, prefix: Any) -> None:
        """Any text that a key could begin with, also none."""
        _size("prefix", prefix, self.key_bytes_max)

    def page_entries(self, limit: Any) -> int:
        """How many entries a page has for this `limit`; 0 asks for as many as a page may have."""
        _check_integer("limit", limit, self.page_entries_max)
        return limit or self.page_entries_max

    @property
    def quotas(self) -> Usage:
        """The most that a payer may hold."""
        return Usage(self.payer_entries_max, self.payer_bytes_max)

    def check_quota(self, held: Usage, becomes: Usage, reserved: Usage = NOTHING) -> None:
        """Whether a payer may come to hold so much beside what is `reserved` for writes under way.

        Who is over a quota that was lowered may still store what makes it less.

        Raises:
            QuotaExceeded: names the quota.
        """
        for name, before, after, kept, quota in zip(
            Usage._fields, held, becomes, reserved, self.quotas, strict=True
        ):
            if after + kept > quota and after > before:
                raise QuotaExceeded(
                    f"the payer would hold {after + kept} {name}, and {quota} are allowed",
                    quota=name,
                    size=after + kept,
                    size_max=quota,
                )


def check_ttl(ttl_ms: Any) -> None:
    """A life in milliseconds, 0 for ever, or None for the store's own default."""
    if ttl_ms is not None:
        _check_integer("ttl_ms", ttl_ms, TTL_MS_MAX)


def default_ttl(ttl_ms: int) -> int:
    """The default of a store. Raises ValueError below 0."""
    if ttl_ms < 0:
        raise ValueError("ttl_ms must be >= 0")
    if ttl_ms > TTL_MS_MAX:
        raise ValueError(f"ttl_ms must be <= {TTL_MS_MAX}")
    return ttl_ms


def _check_integer(field: str, value: Any, value_max: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(field, "must be an integer")
    if value < 0:
        raise InvalidInput(field, "must be >= 0")
    if value > value_max:
        raise InvalidInput(field, f"must be <= {value_max}")


def _size(field: str, text: Any, size_max: int) -> int:
    if not isinstance(text, str):
        raise InvalidInput(field, "must be text")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        lone = ord(text[error.start])
        raise InvalidInput(field, f"has a lone surrogate, U+{lone:04X}, which is no text") from None
    if size > size_max:
        raise TooLarge(field, size, size_max, "bytes")
    return size
