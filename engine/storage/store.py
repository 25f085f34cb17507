"""What a store is: the four verbs it must have, and the others that it may have.

A store keeps text under `(payer, key)`. `payer` is an account, `Payer.account`; a store never looks
at what another payer has. It is handed what `Limits` allow, because everybody goes through a
`Session`, which checks. An entry may have a life: it is over `ttl_ms` after the entry was last set
or got, and what is over is as if it had been deleted.

Verbs that a store may have beside those of `Store`; a `Session` does without where one is missing:

    get_many(payer, keys) -> dict           every key asked for, with None for what is not there
    set_many(payer, entries, *, ttl_ms)     all of them or none
    delete_many(payer, keys) -> int         how many were there
    check_set(payer, entries)               raise what `set_many` would raise, and write nothing
    replace(payer, key, old, new, *, ttl_ms) -> bool
                                            `new` in place of `old`, if that is what is there: both
                                            are values, or None for nothing
    reserve(payer, entries, reservation, life_ms, *, alone)
                                            as `check_set`, and keep the room so long: with it,
                                            `set_many` and `replace` take `reservation`, which
                                            uses it up. Of those with the same key `alone` there
                                            is one at a time; for others `WriteInProgress`
    release(payer, reservation)             keep it no longer
    cursor_key() -> bytes                   what authenticates cursors: the same in every process
    close()                                 let go of everything; nothing is asked afterwards
    limits: Limits                          what a payer may store here
    grants: Grants                          what payments have bought (`engine/storage/grants.py`)
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in the order of their keys' code points; `cursor` is set if there are more."""

    entries: dict[str, str]
    cursor: str | None = None


class Store(Protocol):
    """The verbs that every store has. Each is atomic."""

    async def get(self, payer: str, key: str) -> str | None:
        """The value, or None. Begins the life of the entry anew, with the entry's own `ttl_ms`."""

    async def set(self, payer: str, key: str, value: str, *, ttl_ms: int | None = None) -> None:
        """Store it, in place of what is there. A life of 0 never ends; None is the store's default.

        Raises:
            QuotaExceeded: and nothing was written.
        """

    async def delete(self, payer: str, key: str) -> bool:
        """Delete it; whether it was there."""

    async def list(
        self,
        payer: str,
        *,
        prefix: str = "",
        cursor: str | None = None,
        limit: int = 0,
        keys_only: bool = False,
    ) -> Page:
        """At most `limit` entries whose keys begin with `prefix`; 0 is for all. Lives go on.

        `cursor` is from the page before; it must lead on even if everything on that page is gone.
        Callers get it sealed, so it may be as plain as the last key. With `keys_only` every value
        is "".
        """
