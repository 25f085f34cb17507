"""`tallystick compare`: whether two people were shown one log."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tallystick.cli.connection import AsJson
from tallystick.cli.output import console, failed, print_json

if TYPE_CHECKING:
    from engine.audit.compare import Comparison, Shown
    from engine.audit.evidence import Evidence

UNKNOWN_EXIT_CODE = 4

_ANSWER_BYTES_MAX = 65_536
_COLOURS = {0: "green", 1: "red", 3: "yellow", 4: "yellow"}
_SOURCE = "An evidence file, a checkpoint, or the URL of a server's checkpoint."


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


def compare(
    one: Annotated[str, typer.Argument(help=_SOURCE)],
    other: Annotated[str, typer.Argument(help="Another.")],
    log_key: Annotated[
        str,
        typer.Option(help="The log's verifier key, name+id+base64: not the word of either."),
    ],
    server: Annotated[
        str | None,
        typer.Option(help="URL of a server that has the log, for a proof that it only grew."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell whether two signed heads are of one log.

    Both are signed by the log's key; of two logs, somebody was shown a split view.

    Exit status: 0 consistent, 1 split view, 3 the server's proof shows nothing, 4 nobody can say.
    """
    from engine.audit import compare as audit
    from engine.audit.checkpoint import NoteError, public_key_of
    from engine.errors import InvalidInput

    try:
        public_key_of(log_key)
    except NoteError as error:
        raise InvalidInput("--log-key", str(error)) from error
    shown = _shown("ONE", one, log_key), _shown("OTHER", other, log_key)
    prove = None if server is None else lambda old, new: _proof(server, old, new)
    found = audit.compare(*shown, prove)
    if as_json:
        print_json(_told(found, shown))
    else:
        for name, seen in zip((one, other), shown, strict=True):
            head = seen.head
            console.print(
                escape(f"{head.size} records, root {head.root.hex()}: {name}"), soft_wrap=True
            )
        colour, said = _COLOURS[found.outcome.value], found.outcome.name.replace("_", " ")
        console.print(f"\n[bold {colour}]{said}[/]: {escape(found.reason)}", soft_wrap=True)
    raise typer.Exit(found.outcome.value)


def _told(found: "Comparison", shown: Sequence["Shown"]) -> dict[str, Any]:
    heads = [
        {"origin": seen.head.origin, "size": seen.head.size, "root": "0x" + seen.head.root.hex()}
        for seen in shown
    ]
    outcome = found.outcome.name.lower()
    return {"outcome": outcome, "reason": found.reason, "one": heads[0], "other": heads[1]}


def _shown(name: str, source: str, log_key: str) -> "Shown":
    from engine.audit.checkpoint import NoteError
    from engine.audit.compare import shown_by
    from engine.audit.evidence import EvidenceError
    from engine.audit.proofs import ProofError
    from engine.errors import InvalidInput

    try:
        return shown_by(_read(name, source), log_key)
    except (EvidenceError, NoteError, ProofError) as error:
        raise InvalidInput(name, f"{source}: {error}") from error


def _read(name: str, source: str) -> "Evidence | str":
    """What a file or a URL holds: evidence, or the text of a checkpoint."""
    from engine.audit.evidence import open_evidence
    from engine.errors import InvalidInput
    from engine.evidence.stored_file import open_file
    from tallystick.errors import ApiError

    if source.startswith(("http://", "https://")):
        try:
            return _get(source).decode("utf-8", "replace")
        except ApiError as error:
            raise typer.Exit(failed(error.code, error.message, UNKNOWN_EXIT_CODE)) from error
    try:
        with open_file(Path(source)) as content:
            if content[:1] == b"{":
                return open_evidence(content)
            return content[:_ANSWER_BYTES_MAX].decode("utf-8", "replace")
    except OSError as error:
        raise InvalidInput(name, f"{source}: {error.strerror}") from error


def _proof(server: str, old_size: int, new_size: int) -> Sequence[bytes]:
    """What the server has for a consistency proof; whether it is one is checked by who asked.

    Raises:
        NoProofError: it has none, or does not answer.
    """
    import json

    from engine.audit.compare import NoProofError
    from tallystick.errors import ApiError

    url = f"{server.rstrip('/')}/api/v1/log/consistency?old_size={old_size}&new_size={new_size}"
    try:
        nodes = json.loads(_get(url))["proof"]
        return [bytes.fromhex(node.removeprefix("0x")) for node in nodes]
    except ApiError as error:
        raise NoProofError(error.message) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoProofError("what it answers is no proof") from error


def _get(url: str) -> bytes:
    """The beginning of what is at a URL, which is all of a checkpoint or a proof.

    Raises:
        ApiError: there is nothing, or nobody answers.
    """
    import httpx

    from tallystick.errors import ApiError
    from tallystick.exchange import TIMEOUT_S, checked, heard

    try:
        asked = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ApiError(0, "unreachable", f"{url}: {error}", {}) from error
    found = b""
    shown = asked.copy_with(query=None)
    with (
        heard(shown),
        httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http,
        http.stream("GET", asked) as response,
    ):
        for piece in response.iter_bytes():
            found += piece
            if len(found) > _ANSWER_BYTES_MAX:
                raise ApiError(0, "no_answer", f"{url}: the answer is too long", {})
        checked(httpx.Response(response.status_code, content=found), shown)
    return found
