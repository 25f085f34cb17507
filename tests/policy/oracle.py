"""A second account of the rules, written from their definition and from nothing else.

It sums all of history at every instant and imports nothing from the engine, so a mistake there has
no twin here. It is slow on purpose.
"""

from dataclasses import dataclass
from fractions import Fraction

WINDOW_RULES = ("per_day", "per_week", "per_month")


@dataclass
class Spend:
    """An allowed amount; `amounts` lists `(since_ms, amount)`, newest last."""

    decided_ms: int
    amounts: list[tuple[int, int]]
    caps: tuple[int | None, ...] = ()

    def amount_at(self, t_ms: int) -> int:
        return [amount for since_ms, amount in self.amounts if since_ms <= t_ms][-1]


class History:
    """Everything one session ever spent."""

    def __init__(self, lengths_ms: tuple[int, ...]) -> None:
        self.lengths_ms = lengths_ms
        self.spends: list[Spend] = []

    def inside(self, length_ms: int, t_ms: int) -> list[Spend]:
        return [s for s in self.spends if t_ms - length_ms < s.decided_ms <= t_ms]

    def used(self, t_ms: int) -> tuple[int, ...]:
        return tuple(
            sum(spend.amount_at(t_ms) for spend in self.inside(length_ms, t_ms))
            for length_ms in self.lengths_ms
        )

    def frees_at(self, window: int, needed: int, now_ms: int) -> int | None:
        """The first instant by which `needed` of what is inside now is outside."""
        length_ms = self.lengths_ms[window]
        inside = self.inside(length_ms, now_ms)
        instants = [now_ms, *sorted(spend.decided_ms + length_ms for spend in inside)]
        for t_ms in instants:
            gone = [spend for spend in inside if not t_ms - length_ms < spend.decided_ms]
            if sum(spend.amount_at(now_ms) for spend in gone) >= needed:
                return t_ms
        return None

    def verdict(
        self,
        caps: tuple[int | None, ...],
        per_transaction: int | None,
        approval_above: int | None,
        amount: int,
        now_ms: int,
    ) -> tuple[str, str]:
        """The code and the rule that decide."""
        if per_transaction is not None and amount > per_transaction:
            return "LIMIT_EXCEEDED", "per_transaction"
        for rule, cap, used in zip(WINDOW_RULES, caps, self.used(now_ms), strict=True):
            if cap is not None and used + amount > cap:
                return "LIMIT_EXCEEDED", rule
        if approval_above is not None and amount > approval_above:
            return "APPROVAL_REQUIRED", "approval_above"
        return "ALLOWED", "all"

    def remaining(self, caps: tuple[int | None, ...], now_ms: int) -> list[int | None]:
        return [
            None if cap is None else max(cap - used, 0)
            for cap, used in zip(caps, self.used(now_ms), strict=True)
        ]

    def overspent_at(self, t_ms: int) -> list[int]:
        """The windows that, at `t_ms`, hold more than the limit of the last approval inside."""
        over = []
        for window, length_ms in enumerate(self.lengths_ms):
            inside = self.inside(length_ms, t_ms)
            cap = inside[-1].caps[window] if inside else None
            if cap is not None and sum(spend.amount_at(t_ms) for spend in inside) > cap:
                over.append(window)
        return over


def micro_usd(text: str) -> int | None:
    """Read a decimal one character at a time; None if it is not an amount."""
    whole, point, fraction = text.partition(".")
    if not whole or (point and not fraction) or len(fraction) > 6:
        return None
    if any(character not in "0123456789" for character in whole + fraction):
        return None
    if len(whole) > 1 and whole[0] == "0":
        return None
    value = Fraction(0)
    for character in whole:
        value = value * 10 + "0123456789".index(character)
    for place, character in enumerate(fraction, start=1):
        value += Fraction("0123456789".index(character), 10**place)
    micro = value * 1_000_000
    return int(micro) if 0 < micro < 10**15 else None
