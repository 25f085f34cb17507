"""A second account of conditions and budgets: it reads the sentences word by word and sums all of
history at every instant. It imports nothing from the engine. Slow on purpose.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

HOUR_MS = 60 * 60 * 1000
LENGTHS_MS = {"hour": HOUR_MS, "day": 24 * HOUR_MS, "week": 168 * HOUR_MS, "month": 720 * HOUR_MS}
PRECEDENCE = [
    "valid_until",
    "valid_from",
    "active_hours",
    "never_chain",
    "never_token",
    "never_merchant",
    "per_transaction",
    "payments",
    "per_day",
    "per_week",
    "per_month",
    "lifetime",
    "token_cap",
    "merchant_cap",
    "ancestor_budget",
    "agent_budget",
    "workspace_budget",
    "approval_above",
]


@dataclass
class Paid:
    """An allowed payment and how much of it still counts."""

    decided_ms: int
    amount: int
    merchant: str | None
    token: str


@dataclass(frozen=True)
class Bound:
    """One limit over time: the rule, what it counts, how much, how long (None: for ever)."""

    rule: str
    counts: str
    name: str | None
    most: int
    length_ms: int | None

    def of(self, paid: Paid) -> int:
        if self.counts == "payments":
            return 1 if paid.amount else 0
        named = {"token": paid.token, "merchant": paid.merchant}
        return paid.amount if self.counts == "sum" or named[self.counts] == self.name else 0

    def used(self, history: list[Paid], t_ms: int) -> int:
        return sum(
            self.of(paid)
            for paid in history
            if paid.decided_ms <= t_ms
            and (self.length_ms is None or paid.decided_ms > t_ms - self.length_ms)
        )

    def bursts(self, history: list[Paid], asked: Paid, t_ms: int) -> bool:
        return self.of(asked) > 0 and self.used(history, t_ms) + self.of(asked) > self.most


@dataclass
class Terms:
    """What holds for one session. Budgets are `(rule, its history, {limit name: limit})`."""

    sentences: list[str]
    restrictions: list[str]
    limits: dict[str, int | None]
    valid_ms: tuple[int, int]
    budgets: list[tuple[str, list[Paid], dict[str, int]]] = field(default_factory=list)

    def bounds(self) -> Iterator[tuple[Bound, list[Paid] | None]]:
        """Every limit over time; whose history it counts, None for the session's own."""
        for name in ("day", "week", "month"):
            limit = self.limits[f"per_{name}"]
            if limit is not None:
                yield Bound(f"per_{name}", "sum", None, limit, LENGTHS_MS[name]), None
        for sentence in self.sentences + self.restrictions:
            words = sentence.split()
            if words[0] == "lifetime":
                yield Bound("lifetime", "sum", None, micro(words[3]), None), None
            elif words[0] == "at":
                bound = Bound("payments", "payments", None, int(words[2]), LENGTHS_MS.get(words[5]))
                yield bound, None
            elif words[0] in ("token", "merchant") and words[7] != "transaction":
                length_ms = LENGTHS_MS.get(words[7])
                rule = f"{words[0]}_cap"
                yield Bound(rule, words[0], words[1], micro(words[4]), length_ms), None
        for rule, history, limits in self.budgets:
            for name, most in limits.items():
                counts = "payments" if name.startswith("payments") else "sum"
                length_ms = LENGTHS_MS.get(name.rpartition("_")[2])
                yield Bound(rule, counts, None, most, length_ms), history

    def broken(self, history: list[Paid], asked: Paid, t_ms: int) -> set[str]:
        """The rules that have something against a payment at an instant."""
        rules = {
            bound.rule
            for bound, other in self.bounds()
            if bound.bursts(history if other is None else other, asked, t_ms)
        }
        if t_ms < self.valid_ms[0]:
            rules.add("valid_from")
        if t_ms >= self.valid_ms[1]:
            rules.add("valid_until")
        if not (is_open(self.sentences, t_ms) and is_open(self.restrictions, t_ms)):
            rules.add("active_hours")
        for name, limit in (
            ("per_transaction", self.limits["per_transaction"]),
            ("approval_above", self.limits["approval_above"]),
        ):
            if limit is not None and asked.amount > limit:
                rules.add(name)
        names = {
            "merchant": asked.merchant,
            "token": asked.token,
            "chain": asked.token.split("/")[0],
        }
        for words in (sentence.split() for sentence in self.sentences + self.restrictions):
            if words[0] == "never" and words[2] in (names[words[1]], portless(names[words[1]])):
                rules.add(f"never_{words[1]}")
            if words[-1] != "transaction" or names[words[0]] != words[1]:
                continue
            if asked.amount > micro(words[4]):
                rules.add("per_transaction")
        return rules

    def verdict(self, history: list[Paid], asked: Paid, t_ms: int) -> str:
        """The rule that decides, "all" if the payment is allowed."""
        return min(self.broken(history, asked, t_ms), key=PRECEDENCE.index, default="all")

    def left(self, history: list[Paid], asked: Paid, t_ms: int) -> dict[str, int | None]:
        """What remains of everything that bounds payments like this one."""
        left: dict[str, int | None] = dict.fromkeys(
            ("per_day", "per_week", "per_month", "lifetime", "payments", "token", "merchant")
        )
        for bound, other in self.bounds():
            name = bound.rule.removesuffix("_cap")
            if other is None and (bound.counts != name or bound.of(asked)):
                free = max(0, bound.most - bound.used(history, t_ms))
                left[name] = free if left[name] is None else min(free, left[name] or 0)
        return left

    def allowed_at(self, history: list[Paid], asked: Paid, now_ms: int) -> int | None:
        """Search: the first instant, of all at which anything could change, that allows it."""
        instants = {now_ms, *self.valid_ms}
        for paid in [*history, *(paid for _, other, _ in self.budgets for paid in other)]:
            instants |= {paid.decided_ms + length_ms for length_ms in LENGTHS_MS.values()}
        # Hours open on some minute of some day within a week of any of these.
        edges = {
            word
            for sentence in self.sentences + self.restrictions
            if sentence.startswith("only")
            for word in sentence.split()[1].split("-")
        } | {"00:00"}
        days = {
            (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).date()
            + timedelta(days=day)
            for at_ms in instants
            for day in range(9)
        }
        for day in days:
            midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
            for edge in edges:
                hour, minute = edge.split(":")
                opening = midnight + timedelta(hours=int(hour), minutes=int(minute))
                instants.add(int(opening.timestamp()) * 1000)
        for t_ms in sorted(instants):
            if t_ms >= now_ms and not self.broken(history, asked, t_ms):
                return t_ms
        return None


def is_open(sentences: list[str], t_ms: int) -> bool:
    """Whether some active hours are open; without any, always."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=t_ms)
    hours = [sentence.split() for sentence in sentences if sentence.startswith("only")]
    for words in hours:
        start, _, end = words[1].partition("-")
        if at.strftime("%a") in words[4:] and start <= at.strftime("%H:%M") < end:
            return True
    return not hours


def portless(name: str | None) -> str | None:
    """A host that is named with a port, without it."""
    host, colon, port = (name or "").rpartition(":")
    return host if colon and port and set(port) <= set("0123456789") else name


def micro(dollars: str) -> int:
    """Micro-USD of decimal dollars."""
    value = Fraction(dollars) * 1_000_000
    assert value.denominator == 1
    return value.numerator
