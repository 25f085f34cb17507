"""What verification reports: numbered checks, each with a reason, and their worst verdict."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from engine.audit import canonical

REASON_CHARACTERS_MAX = 400
VALUE_CHARACTERS_MAX = 120
"""So much is shown of a value of the file."""


class Verdict(Enum):
    """How a check, or the whole file, came out; the value is the exit code of the command."""

    VERIFIED = 0
    TAMPERED = 1
    PENDING = 3
    UNAVAILABLE = 4
    UNBINDABLE = 5


BY_SEVERITY = (
    Verdict.TAMPERED,
    Verdict.UNAVAILABLE,
    Verdict.UNBINDABLE,
    Verdict.PENDING,
    Verdict.VERIFIED,
)
"""The verdicts, the worst first."""


class Finding(Exception):
    """Raised by a check that does not verify: its verdict, and the reason in one line."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason


def tampered(reason: str) -> Finding:
    """The finding that something was changed, made up or left out."""
    return Finding(Verdict.TAMPERED, reason)


def counted(count: int, noun: str) -> str:
    """So many of something."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def wrong(error: Exception) -> str:
    """What an error says is wrong with the file; where it says it of Python's own, only that it is.

    What we refuse, we refuse with a `ValueError` of our own words.
    """
    if isinstance(error, KeyError) and isinstance(error.args[0], str):
        return f"{error.args[0]} is missing"
    ours = isinstance(error, ValueError) and not isinstance(error, msgspec.MsgspecError)
    return str(error) if ours else "something in it is not of its type"


def shown(value: object) -> str:
    """A value of the file as JSON, of which a long one is cut off."""
    text = canonical.encode(value).decode()
    return text[:VALUE_CHARACTERS_MAX] + "…" * (len(text) > VALUE_CHARACTERS_MAX)


def difference(path: str, made: object, told: object) -> str:
    """The first place, below `path`, where what we made differs from what we were told, and how."""
    if isinstance(made, dict) and isinstance(told, dict):
        for name in sorted(made.keys() | told.keys()):
            within = f"{path}.{name}"
            if name not in told:
                return f"{within} is {shown(made[name])}, and not in the record"
            if name not in made:
                return f"{within} is not to be in the record"
            # As bytes, because to Python 1 equals True.
            if canonical.encode(made[name]) != canonical.encode(told[name]):
                return difference(within, made[name], told[name])
    return f"{path} is {shown(made)}, the record says {shown(told)}"


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check and its reason, in one line.

    One that could not be made has the verdict of the check that it waited for, and `made` is false.
    """

    number: int
    name: str
    verdict: Verdict
    reason: str
    made: bool = True

    @property
    def state(self) -> str:
        """What the row says: its verdict in lower case, or `not_checked`."""
        return self.verdict.name.lower() if self.made else "not_checked"

    @property
    def stops(self) -> bool:
        """Whether a check that rests on this one cannot be made."""
        return self.verdict in (Verdict.TAMPERED, Verdict.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in order, and the worst of them."""

    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks."""
        found = {check.verdict for check in self.checks}
        return next(verdict for verdict in BY_SEVERITY if verdict in found)

    @property
    def reason(self) -> str:
        """Why the verdict is what it is: the first check that has it."""
        decisive = next(check for check in self.checks if check.verdict is self.verdict)
        return f"{decisive.name}: {decisive.reason}"


def make_check(
    number: int, name: str, verdict: Verdict, reason: str, *, made: bool = True
) -> Check:
    """A reason can quote the file: it must not be able to write over the verdict on a terminal."""
    shown = reason[:REASON_CHARACTERS_MAX] + "…" * (len(reason) > REASON_CHARACTERS_MAX)
    if not shown.isprintable():
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
        shown = "".join(escaped)
    return Check(number, name, verdict, shown, made)


def summary(report: Report) -> dict[str, Any]:
    """A report as JSON."""
    return {
        "verdict": report.verdict.name.lower(),
        "exit_code": report.verdict.value,
        "reason": report.reason,
        "checks": [
            {
                "number": check.number,
                "name": check.name,
                "verdict": check.state,
                "reason": check.reason,
            }
            for check in report.checks
        ],
    }
