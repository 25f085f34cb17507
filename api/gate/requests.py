"""What comes in at the store: keys in paths, and bodies of bounded length."""

from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.convertors import Convertor, register_url_convertor

from api.rest.exact_json import parsed
from api.unknown_fields import not_one_of
from engine.errors import InvalidInput
from engine.storage.limits import TooLarge

BATCH_BYTES_MAX = 2**20
"""The JSON of a batch."""
KEY = "text"
"""The convertor of a path's last part that may be any text, line ends and slashes too."""


class _Text(Convertor[str]):
    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor(KEY, _Text())


def check_path(request: Request) -> None:
    """Whether the path is UTF-8. Servers put U+FFFD where it is not, which is another text.

    Raises:
        InvalidInput: it is not.
    """
    try:
        unquote_to_bytes(request.scope.get("raw_path") or b"").decode()
    except UnicodeDecodeError:
        raise InvalidInput("key", "is not UTF-8, percent-encoded") from None


async def read_body(request: Request, bytes_max: int, field: str) -> bytes:
    """The body, as it was sent; the rest of a longer one is not read.

    Raises:
        TooLarge, InvalidInput: it is longer, or compressed.
    """
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise InvalidInput("Content-Encoding", "takes no compressed body")
    return await body_of(request, bytes_max, field)


async def body_of(request: Request, bytes_max: int, field: str) -> bytes:
    """The body, whatever it is; who has the request may read it again.

    Raises:
        TooLarge: it is longer.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise TooLarge(field, len(body), bytes_max, "bytes")
    request._body = bytes(body)  # noqa: SLF001 (where `Request.body` keeps it)
    return bytes(body)


async def read_object(request: Request, known: set[str]) -> tuple[bytes, dict[str, Any]]:
    """A body that is a JSON object of some of the fields `known`, and its bytes.

    Raises:
        TooLarge, InvalidInput: it is none, or has others.
    """
    body = await read_body(request, BATCH_BYTES_MAX, "body")
    found = await parsed(body)
    if not isinstance(found, dict):
        raise InvalidInput("body", "takes a JSON object")
    for field in found.keys() - known:
        told = not_one_of(str(field), {name: name for name in known})
        raise InvalidInput(str(field)[:100], told)
    return body, found
