"""What both ways in say of an evidence file."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from api.mcp.answers import Verification
from api.mcp.rest import Rest
from api.mcp.tool import Arguments, Tool


def verification(found: Mapping[str, Any]) -> Verification:
    """The result, of the facts that `POST /api/v1/evidence/verify` answers."""
    return {
        "verdict": found["verdict"],
        "reason": found["reason"],
        "checks": [
            {"name": check["name"], "verdict": check["verdict"], "reason": check["reason"]}
            for check in found["checks"]
        ],
        "registry": found["registry"],
        "not_proven": found["not_proven"],
    }


def verify_evidence(
    description: str,
    arguments: type[Arguments],
    run: Callable[[Rest, Any], Awaitable[Verification]],
) -> Tool:
    """The tool, whoever asks the chain for it."""
    return Tool(
        name="verify_evidence",
        title="Does an evidence file hold?",
        description=(
            "Verify the evidence of a session's payments against the chain: that the session "
            "existed, what it allowed, and that every payment was one that its records allow. "
            + description
        ),
        arguments=arguments,
        answer=Verification,
        run=run,
    )
