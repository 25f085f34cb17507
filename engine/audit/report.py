"""What verification reports: numbered checks, each with a reason, and their worst verdict."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

REASON_CHARACTERS_MAX = 400


class Verdict(Enum):
    """How a check, or the whole file, came out; the value is the exit code of the command."""

    VERIFIED = 0
    TAMPERED = 1
    PENDING = 3
    UNAVAILABLE = 4
    UNBINDABLE = 5


_BY_SEVERITY = (
    Verdict.TAMPERED,
    Verdict.UNAVAILABLE,
    Verdict.UNBINDABLE,
    Verdict.PENDING,
    Verdict.VERIFIED,
)


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check and its reason, in one line."""

    number: int
    name: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """All checks that could be made, in order, and the worst of them."""

    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks."""
        found = {check.verdict for check in self.checks}
        return next(verdict for verdict in _BY_SEVERITY if verdict in found)

    @property
    def reason(self) -> str:
        """Why the verdict is what it is: the first check that has it."""
        decisive = next(check for check in self.checks if check.verdict is self.verdict)
        return f"{decisive.name}: {decisive.reason}"


def make_check(number: int, name: str, verdict: Verdict, reason: str) -> Check:
    """A reason can quote the file: it must not be able to write over the verdict on a terminal."""
    shown = reason[:REASON_CHARACTERS_MAX] + "…" * (len(reason) > REASON_CHARACTERS_MAX)
    if not shown.isprintable():
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
        shown = "".join(escaped)
    return Check(number, name, verdict, shown)


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
                "verdict": check.verdict.name.lower(),
                "reason": check.reason,
            }
            for check in report.checks
        ],
    }
