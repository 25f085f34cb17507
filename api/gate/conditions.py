"""`If-Match` and `If-None-Match` (RFC 9110, 13.1): a write that is done if no other came before.

The entity tag of a value is the beginning of its SHA-256, so who stored it knows it, too.
"""

import hashlib
import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from engine.errors import InvalidInput
from engine.storage.limits import Changed

MATCH, NONE_MATCH = "If-Match", "If-None-Match"
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"[ \t]*{_TAG}[ \t]*(?:,[ \t]*{_TAG}[ \t]*)*")
_ANY = frozenset("*")


def etag(value: str) -> str:
    """The entity tag of a value, in its quotes."""
    return f'"{hashlib.sha256(value.encode()).hexdigest()[:32]}"'


@dataclass(frozen=True, slots=True)
class Condition:
    """The tags that a request named in either header; `*` alone is any value. None: not sent."""

    match: frozenset[str] | None
    none_match: frozenset[str] | None

    def check(self, value: str | None) -> None:
        """Whether it holds of what is there; None is nothing.

        Raises:
            Changed: it does not.
        """
        tags = frozenset() if value is None else _ANY | {etag(value)}
        if self.match is not None and not self.match & tags:
            raise Changed(f"{MATCH} does not name what is there")
        if self.none_match is not None and self.none_match & tags:
            raise Changed(f"{NONE_MATCH} names what is there")


def read_condition(headers: Headers) -> Condition | None:
    """On what condition something is to be written; None if there is none.

    Raises:
        InvalidInput: naming the header that cannot be read.
    """
    match, none_match = _read(headers, MATCH), _read(headers, NONE_MATCH)
    if match is None and none_match is None:
        return None
    # A weak tag says nothing of each byte, and matches no value (8.8.3.2); among those that are
    # not to be there it is as good as a strong one.
    weak = frozenset(tag.removeprefix("W/") for tag in none_match or ())
    return Condition(match, None if none_match is None else weak)


def refuse_condition(headers: Headers) -> None:
    """Raises `InvalidInput` for a condition on what can have none: it is not to be overlooked."""
    for name in (MATCH, NONE_MATCH):
        if name in headers:
            raise InvalidInput(name, "is for a put and a delete of one key")


def _read(headers: Headers, name: str) -> frozenset[str] | None:
    sent = headers.getlist(name)
    if not sent:
        return None
    text = ",".join(sent)
    if text.strip(" \t") == "*":
        return _ANY
    if not _TAGS.fullmatch(text):
        raise InvalidInput(name, 'takes * or entity tags in quotes: "…", "…"')
    return frozenset(re.findall(_TAG, text))
