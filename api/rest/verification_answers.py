"""What a verified evidence file is told as."""

from typing import Literal

from typing_extensions import TypedDict


class CheckAnswer(TypedDict):
    """One check of an evidence file."""

    number: int
    name: str
    verdict: str
    reason: str


class VerificationAnswer(TypedDict):
    """Whether evidence holds by the chain and the registry that this server uses.

    `exit_code` is that of `tallystick verify`; the reasons are of the first check that decides.
    """

    verdict: Literal["verified", "tampered", "pending", "unavailable", "unbindable"]
    exit_code: int
    reason: str
    checks: list[CheckAnswer]
    chain: str
    registry: str
    not_proven: list[str]
