"""A payer's store in the simplest words: a dict, and when what ends."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Entry = tuple[str, int, int | None]  # value, life, end


@dataclass
class Model:
    """One payer."""

    entries_max: int
    bytes_max: int
    entries: dict[str, Entry] = field(default_factory=dict)

    def pass_time(self, now: int) -> None:
        self.entries = {
            key: entry for key, entry in self.entries.items() if entry[2] is None or entry[2] > now
        }

    def left(self, entries: Mapping[str, str]) -> tuple[int, int]:
        after = {key: value for key, (value, _, _) in self.entries.items()} | dict(entries)
        size = sum(len((key + value).encode()) for key, value in after.items())
        return self.entries_max - len(after), self.bytes_max - size

    def fits(self, entries: Mapping[str, str]) -> bool:
        return min(self.left(entries)) >= 0

    def set(self, entries: Mapping[str, str], life: int, now: int) -> None:
        for key, value in entries.items():
            self.entries[key] = (value, life, now + life if life else None)

    def get(self, keys: Iterable[str], now: int) -> dict[str, str | None]:
        for key in self.entries.keys() & set(keys):
            value, life, _ = self.entries[key]
            self.set({key: value}, life, now)
        return {key: self.entries[key][0] if key in self.entries else None for key in keys}

    def delete(self, keys: Iterable[str]) -> int:
        return len([self.entries.pop(key) for key in set(keys) & self.entries.keys()])

    def list(self, prefix: str) -> dict[str, str]:
        return {key: self.entries[key][0] for key in sorted(self.entries) if key.startswith(prefix)}
