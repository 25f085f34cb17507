"""`verify_evidence` beside the agent: a file of this machine, by a chain that a person named."""

import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from pydantic import Field

from api.mcp.answers import Verification
from api.mcp.rest import Refused, Rest
from api.mcp.tool import Arguments, Tool
from api.mcp.verifying import verification
from api.mcp.verifying import verify_evidence as declare
from engine.audit.pieces import Source
from engine.evidence.stored_file import open_file

Verifier = Callable[[Source], Mapping[str, Any]]
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
        with ExitStack() as opened:
            try:
                _check_regular(path)
                content = opened.enter_context(open_file(path))
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or error
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


def _check_regular(path: Path) -> None:
    """Raises ValueError for a pipe or a device, which may have no end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("is no regular file")
