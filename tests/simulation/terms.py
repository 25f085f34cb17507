"""What a session's grant allows, worked out a second time: nothing here is the engine's.

The sentences are read word by word; every window is a queue of payments and a sum that follows it.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

HOUR_MS = 3_600_000
LENGTH_MS = {"hour": HOUR_MS, "day": 24 * HOUR_MS, "week": 168 * HOUR_MS, "month": 720 * HOUR_MS}
DAYS = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]  # the epoch began on a Thursday
MINUTES = 7 * 24 * 60
CODE = {
    "revoked": "SESSION_REVOKED",
    "valid_until": "SESSION_EXPIRED",
    "anchored": "SESSION_NOT_ANCHORED",
    "valid_from": "SESSION_NOT_STARTED",
    "active_hours": "OUTSIDE_ACTIVE_HOURS",
    "parameters": "PARAMETERS_MISMATCH",
    "permissions": "PERMISSION_NOT_ALLOWED",
    "chains": "CHAIN_NOT_ALLOWED",
    "never_chain": "CHAIN_NOT_ALLOWED",
    "tokens": "TOKEN_NOT_ALLOWED",
    "never_token": "TOKEN_NOT_ALLOWED",
    "token_price": "TOKEN_NOT_ALLOWED",
    "merchants": "MERCHANT_NOT_ALLOWED",
    "never_merchant": "MERCHANT_NOT_ALLOWED",
    "per_transaction": "LIMIT_EXCEEDED",
    "payments": "LIMIT_EXCEEDED",
    "per_day": "LIMIT_EXCEEDED",
    "per_week": "LIMIT_EXCEEDED",
    "per_month": "LIMIT_EXCEEDED",
    "lifetime": "LIMIT_EXCEEDED",
    "token_cap": "LIMIT_EXCEEDED",
    "merchant_cap": "LIMIT_EXCEEDED",
    "ancestor_budget": "LIMIT_EXCEEDED",
    "agent_budget": "LIMIT_EXCEEDED",
    "workspace_budget": "LIMIT_EXCEEDED",
    "approval_above": "APPROVAL_REQUIRED",
    "all": "ALLOWED",
}
BUDGETS = {"ancestor_budget", "agent_budget", "workspace_budget"}
USED_UP = BUDGETS | {
    *("payments", "per_day", "per_week", "per_month", "lifetime", "token_cap", "merchant_cap")
}


@dataclass(slots=True)
class Spend:
    """An allowed payment; `amount` is what still counts of it, `state` as its owner sees it."""

    decided_ms: int
    amount: int
    merchant: str | None
    token: str
    held: int = 0
    state: str = "held"
    expires_ms: int = 0


class Window:
    """What was decided in `(now - length_ms, now]` and still counts; no length: for ever."""

    __slots__ = ("inside", "length_ms", "most", "name", "of", "rule", "told", "used")

    def __init__(
        self,
        rule: str,
        of: str,
        name: str | None,
        most: int | None,
        length_ms: int | None,
        told: str = "",
    ) -> None:
        self.rule, self.of, self.name = rule, of, name
        self.most, self.length_ms, self.told = most, length_ms, told or rule
        self.inside: deque[Spend] = deque()
        self.used = 0

    def concerns(self, token: str, merchant: str | None) -> bool:
        return self.name is None or self.name == (token if self.of == "token" else merchant)

    def count(self, amount: int) -> int:
        return min(amount, 1) if self.of == "payments" else amount

    def over(self, asked: dict[str, Any]) -> bool:
        """Whether a payment is more than what is left, at the instant of the last `slide`."""
        return (
            self.most is not None
            and self.used + self.count(asked["amount_micro_usd"]) > self.most
            and self.concerns(asked["token"], asked["merchant"])
        )

    def evidence(self, amount: int) -> tuple[Any, ...]:
        """Of what is over: limit, used, requested, length, and when it would fit."""
        count, most = self.count(amount), self.most or 0
        fits_at = self.fits_at(self.used + count - most)
        return most, self.used, count, self.length_ms, fits_at

    def slide(self, now_ms: int) -> None:
        if self.length_ms is None:
            return
        while self.inside and self.inside[0].decided_ms <= now_ms - self.length_ms:
            self.used -= self.count(self.inside.popleft().amount)

    def fits_at(self, needed: int) -> int | None:
        """When so much of what is inside has left."""
        if self.length_ms is None:
            return None
        for spend in self.inside:
            needed -= self.count(spend.amount)
            if needed <= 0:
                return spend.decided_ms + self.length_ms
        return None

    def shrink(self, spend: Spend, to: int, now_ms: int) -> None:
        """Call it before the spend itself is made smaller, so that what leaves was what is in."""
        self.slide(now_ms)
        if self.length_ms is None or spend.decided_ms > now_ms - self.length_ms:
            self.used -= self.count(spend.amount) - self.count(to)


class Terms:
    """A grant, in the JSON of its record, and all that was spent of it."""

    def __init__(self, grant: dict[str, Any]) -> None:
        self.grant = grant
        self.limits = grant["limits_micro_usd"]
        self.until_ms = grant["valid_until_s"] * 1000
        self.from_ms = grant["valid_from_s"] * 1000
        self.never: set[tuple[str, str]] = set()
        self.per_payment: list[tuple[str, str, int]] = []
        self.open: bytearray | None = None
        self.windows = [
            Window(f"per_{name}", "sum", None, self.limits[f"per_{name}"], LENGTH_MS[name])
            for name in ("day", "week", "month")
        ]
        self.caps: list[Window] = []
        for sentence in grant["conditions"]:
            self._read(sentence, sentence.split())
        order = list(LENGTH_MS)
        by_name = {length_ms: order.index(name) for name, length_ms in LENGTH_MS.items()}
        self.caps.sort(key=lambda cap: by_name.get(cap.length_ms or 0, 9))

    def lower(self, lowered: Iterable[dict[str, int | None]]) -> None:
        """Of each limit the smallest holds; what was spent counts as before."""
        every = [self.grant["limits_micro_usd"], *lowered]
        self.limits = {
            name: min((each[name] for each in every if each[name] is not None), default=None)
            for name in every[0]
        }
        for window in self.windows:
            window.most = self.limits[window.rule]

    def _read(self, sentence: str, words: list[str]) -> None:
        if words[0] == "never":
            self.never.add((words[1], words[2]))
        elif words[0] == "only":
            self.open = self.open or bytearray(MINUTES)
            start, end = (int(at[:2]) * 60 + int(at[3:]) for at in words[1].split("-"))
            for day in words[4:]:
                first = DAYS.index(day) * 24 * 60
                self.open[first + start : first + end] = b"\1" * (end - start)
        elif words[0] == "lifetime":
            self.caps.append(Window("lifetime", "sum", None, _micro(words[3]), None))
        elif words[0] == "at":
            length_ms, told = LENGTH_MS.get(words[5]), f"payments_per_{words[5]}"
            self.caps.append(Window("payments", "payments", None, int(words[2]), length_ms, told))
        elif words[7] == "transaction":
            self.per_payment.append((words[0], words[1], _micro(words[4])))
        else:
            length_ms = LENGTH_MS.get(words[7])
            rule, most = f"{words[0]}_cap", _micro(words[4])
            self.caps.append(Window(rule, words[0], words[1], most, length_ms, sentence))

    def all_windows(self) -> Iterator[Window]:
        yield from self.windows
        yield from self.caps

    def verdict(
        self,
        standing: str,
        now_ms: int,
        chain_ms: int,
        asked: dict[str, Any],
        *,
        above: Iterable[str] = (),
        approved: bool = False,
    ) -> str:
        """The rule that decides; `above` are those of budgets that it is over."""
        for window in self.all_windows():
            window.slide(now_ms)
        against = {*self._against(standing, now_ms, chain_ms, asked), *above}
        if approved:
            against.discard("approval_above")
        return next((rule for rule in CODE if rule in against), "all") if against else "all"

    def _against(
        self, standing: str, now_ms: int, chain_ms: int, asked: dict[str, Any]
    ) -> Iterator[str]:
        amount, merchant, token = asked["amount_micro_usd"], asked["merchant"], asked["token"]
        names = {"merchant": merchant, "token": token, "chain": asked["chain"]}
        if standing != "active":
            yield {"revoked": "revoked", "pending": "anchored", "mismatch": "parameters"}[standing]
        if max(now_ms, chain_ms) >= self.until_ms:
            yield "valid_until"
        if now_ms < self.from_ms:
            yield "valid_from"
        if self.open is not None and not self.open[now_ms // 60_000 % MINUTES]:
            yield "active_hours"
        if self.grant["permissions"] and asked["permission"] not in self.grant["permissions"]:
            yield "permissions"
        for what, name in names.items():
            if self.grant[f"{what}s"] and name not in self.grant[f"{what}s"]:
                yield f"{what}s"
            if (what, name) in self.never:
                yield f"never_{what}"
        if not asked["token_priced"]:
            yield "token_price"
        limit = self.limits["per_transaction"]
        if limit is not None and amount > limit:
            yield "per_transaction"
        for what, name, most in self.per_payment:
            if names[what] == name and amount > most:
                yield "per_transaction"
        for window in self.all_windows():
            if window.over(asked):
                yield window.rule
        above = self.limits["approval_above"]
        if above is not None and amount > above:
            yield "approval_above"

    def first_over(self, asked: dict[str, Any], rule: str) -> tuple[Any, ...]:
        """What is over first by a rule: limit, used, requested, length, and when it would fit."""
        for window in self.all_windows():
            if window.rule == rule and window.over(asked):
                return window.evidence(asked["amount_micro_usd"])
        return ()

    def used(self) -> list[int]:
        """Of the day, the week and the month."""
        return [window.used for window in self.windows]

    def left(self, amount: int, token: str | None, merchant: str | None) -> dict[str, int | None]:
        """What remains when `amount` more is spent."""
        left: dict[str, int | None] = {
            window.rule: None if window.most is None else max(0, window.most - window.used - amount)
            for window in self.windows
        }
        left |= dict.fromkeys(("lifetime", "payments", "token", "merchant"))
        for cap in self.caps:
            name = cap.rule.removesuffix("_cap")
            if cap.name is None or (token is not None and cap.concerns(token, merchant)):
                free = max(0, (cap.most or 0) - cap.used - cap.count(amount))
                known = left[name]
                left[name] = free if known is None else min(free, known)
        return left

    def add(self, spend: Spend) -> None:
        for window in self.all_windows():
            if window.concerns(spend.token, spend.merchant):
                window.inside.append(spend)
                window.used += window.count(spend.amount)

    def reduce(self, spend: Spend, to: int, now_ms: int) -> None:
        for window in self.all_windows():
            if window.concerns(spend.token, spend.merchant):
                window.shrink(spend, to, now_ms)
        spend.amount = to


def _micro(dollars: str) -> int:
    return int(Decimal(dollars) * 1_000_000)
