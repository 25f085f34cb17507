"""Stores that somebody else might have written."""

from engine.storage.memory import MemoryStore

STORE = MemoryStore(max_entries=7)
NUMBER = 7


class Shelves:
    """A name for what is inside."""

    Store = MemoryStore


def make() -> MemoryStore:
    """A store."""
    return MemoryStore(max_entries=8)


def fail() -> MemoryStore:
    """No store, this time."""
    raise LookupError("no disk")


class Deaf:
    """Lacks `list`."""

    async def get(self, payer: str, key: str) -> str | None: ...

    async def set(self, payer: str, key: str, value: str, *, ttl_ms: int | None = None) -> None: ...

    async def delete(self, payer: str, key: str) -> bool: ...


class Hasty(MemoryStore):
    """Answers before it is asked to."""

    def get_many(self, payer: str, keys: object) -> dict[str, str | None]:  # type: ignore[override]
        return {}
