"""`verify_evidence` beside the agent: a file of this machine, by a chain that a person named."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from pydantic import Field

from api.mcp.answers import Verification
from api.mcp.rest import Refused, Rest
from api.mcp.tool import Arguments, Tool
from api.mcp.verifying import verification
from api.mcp.verifying import verify_evidence as declare

Verifier = Callable[[bytes], Mapping[str, Any]]
"""From an evidence file to what `POST /api/v1/evidence/verify` would answer."""

NOT_CONFIGURED = (
    "which chain is believed is not for a model to say: start `tallystick mcp` with --rpc and "
    "--registry"
)


class EvidenceFile(Arguments):
    """An evidence file."""

    file: Annotated[str, Field(description="Its path on this machine")]


def verify_evidence(verifier: Verifier | None) -> Tool:
    """The tool; without a `verifier` it says how to give it one."""

    def verified(path: Path) -> Mapping[str, Any]:
        if verifier is None:
            raise Refused("not_configured", NOT_CONFIGURED)
        try:
            content = path.read_bytes()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "cannot be read"
            raise Refused("invalid_parameter", f"file: {why}", field="file") from None
        return verifier(content)

    async def run(_rest: Rest, asked: EvidenceFile) -> Verification:
        return verification(await to_thread.run_sync(verified, Path(asked.file)))

    return declare(
        "Give the path of an evidence file, and hear whether it holds by the chain and the "
        "registry that the person who started this program named.",
        EvidenceFile,
        run,
    )
