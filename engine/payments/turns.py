"""Turns of sessions, where not all of their payments can be looked after at once."""

from collections.abc import Collection, Iterable

Key = tuple[str, int]
"""A payment: its session, and the number of its record."""


class Turns:
    """Whose turn it is, where not all that is to be done can be done at once."""

    def __init__(self) -> None:
        self._taken = 0
        self._last: dict[Key | str, int] = {}

    def order(self, keys: Iterable[Key]) -> list[Key]:
        """The first of each session, then the second of each; who waited longest begins."""
        ranks: dict[str, int] = {}
        ranked: list[tuple[int, int, int, Key]] = []
        for key in keys:
            rank = ranks[key[0]] = ranks.get(key[0], -1) + 1
            ranked.append((rank, self._last.get(key[0], 0), len(ranked), key))
        return [key for *_, key in sorted(ranked)]

    def last(self, key: Key) -> int:
        """When it had its turn; 0 if never."""
        return self._last.get(key, 0)

    def take(self, key: Key) -> None:
        """It, and so its session, has its turn now."""
        self._taken += 1
        self._last[key] = self._last[key[0]] = self._taken

    def keep(self, keys: Collection[Key]) -> None:
        """Forget all others."""
        known = {*keys, *(session_id for session_id, _ in keys)}
        self._last = {each: last for each, last in self._last.items() if each in known}
