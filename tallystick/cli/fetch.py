"""`tallystick fetch`: ask for a URL, and pay if it asks for that."""

import base64
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import InvalidInput
from tallystick.cli.connection import DEFAULT_URL, SessionToken, Url, as_session
from tallystick.cli.output import ReaderGoneError, dollars, errors, failed, print_json
from tallystick.paying import MAX_TIME_S

if TYPE_CHECKING:
    import httpx

    from tallystick.cli.asking import Asking
    from tallystick.errors import PaymentOutcomeUnknown
    from tallystick.paying.order import Paid

OUTCOME_UNKNOWN_EXIT_CODE = 3


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(fetch)


def fetch(
    resource: Annotated[str, typer.Argument(metavar="URL", help="The URL of a resource.")],
    method: Annotated[
        str | None,
        typer.Option("--request", "-X", help="The method; GET by default, POST with data."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="A body; @FILE takes it from a file.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="Such as 'Accept: text/plain'.")
    ] = None,
    max_price: Annotated[
        str | None, typer.Option(help="Dollars; what costs more is not bought.")
    ] = None,
    max_time: Annotated[
        float, typer.Option(help="Seconds that the resource may take in all.")
    ] = MAX_TIME_S,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the body.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="An idempotency key: the same key pays once.")
    ] = None,
    url: Url = DEFAULT_URL,
    session_token: SessionToken = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer and the payment as JSON.")
    ] = False,
) -> int:
    """Ask for a URL, and pay by x402 if it wants that.

    It is paid within the session's limits. Prints the body, and on standard error what was paid.
    Exit status 1 if the answer is a refusal, 3 if it was paid and nobody knows whether that
    arrived, 6 if the policy denies it.
    """
    import httpx

    from tallystick.errors import PaymentError, PaymentOutcomeUnknown
    from tallystick.paying.transports import paid

    content = None if data is None else _content(data)
    headers = dict(map(_header, header or []))
    if output is not None and not output.parent.is_dir():  # before anything is paid
        raise InvalidInput("--output", f"{output.parent} is no directory")
    with as_session(url, session_token) as client, _told_if_ended(client):
        try:
            response = client.fetch(
                resource,
                method or ("GET" if content is None else "POST"),
                content=content,
                headers=headers,
                max_price=max_price,
                idempotency_key=key,
                max_time_s=max_time,
            )
        except PaymentOutcomeUnknown as error:
            return _outcome_unknown(error)
        except PaymentError as error:
            return failed(error.code, error.message, 1)
        except httpx.HTTPError as error:
            return failed("no_answer", f"{resource}: {error}; nothing was paid", 1)
    bought = paid(response)
    if bought is not None:
        errors.print(_told(bought), soft_wrap=True, markup=False)
    if output is not None:
        try:
            output.write_bytes(response.content)
        except OSError as error:
            raise InvalidInput("--output", f"{output}: {error.strerror}") from error
    if as_json:
        print_json(_as_json(response, bought, output))
    elif output is None:
        # On a terminal nothing is to be glued to its last line.
        ends = not sys.stdout.isatty() or response.content[-1:] in (b"", b"\n")
        _print_body(response.content if ends else response.content + b"\n")
    if response.is_success:
        return 0
    return failed("http_error", f"the answer is a {response.status_code}", 1)


@contextmanager
def _told_if_ended(client: "Asking") -> Iterator[None]:
    """Tell whoever ends it, once something is signed. Before that, the client tells."""
    from tallystick.paying.order import unknown

    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if client.signed is not None:
            _outcome_unknown(unknown(client.signed, "interrupted"))
        raise


def _outcome_unknown(error: "PaymentOutcomeUnknown") -> int:
    again = f"; to pay once, ask again with --key {shlex.quote(str(error.idempotency_key))}"
    return failed(error.code, error.message + again, OUTCOME_UNKNOWN_EXIT_CODE)


def _told(bought: "Paid") -> str:
    told = f"{dollars(bought.amount_usd)} to {bought.pay_to} on {bought.network}"
    if bought.tx_hash is None:  # what refuses may well not have taken it
        return f"signed {told}: {bought.payment_id}; the answer does not say that it was settled"
    return f"paid {told}: {bought.payment_id}, {bought.tx_hash}"


def _as_json(
    response: "httpx.Response", bought: "Paid | None", output: Path | None
) -> dict[str, Any]:
    from dataclasses import asdict

    body: dict[str, Any] = {"output": str(output)}
    if output is None:
        try:
            body = {"body": response.content.decode()}
        except UnicodeDecodeError:
            body = {"body_base64": base64.b64encode(response.content).decode()}
    return {
        "status": response.status_code,
        "content_type": response.headers.get("Content-Type"),
        "payment": None if bought is None else asdict(bought),
        **body,
    }


def _print_body(content: bytes) -> None:
    """The bytes as they are: it may be an image."""
    try:
        binary = getattr(sys.stdout, "buffer", None)
        if binary is None:
            sys.stdout.write(content.decode(errors="backslashreplace"))
        else:
            sys.stdout.flush()
            binary.write(content)
            binary.flush()
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGoneError from error


def _content(data: str) -> bytes:
    if not data.startswith("@"):
        return data.encode()
    try:
        return Path(data[1:]).read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidInput("--data", f"{data[1:]}: {error}") from error


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise InvalidInput("--header", f"{text!r} is not of the form 'Name: value'")
    return name.strip(), value.strip()
