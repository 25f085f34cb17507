"""What the store answers, field by field."""

from typing import Literal

from typing_extensions import TypedDict


class PageAnswer(TypedDict):
    """Entries in the order of their keys; a cursor if there are more."""

    entries: dict[str, str]
    cursor: str | None


class PutAnswer(TypedDict):
    """What was stored."""

    key: str
    stored: Literal[1]


class DeletedAnswer(TypedDict):
    """Whether it was there when it was deleted."""

    key: str
    deleted: bool


class FoundAnswer(TypedDict):
    """Each key asked for, with null for what is not there."""

    entries: dict[str, str | None]


class StoredManyAnswer(TypedDict):
    """How many were stored."""

    stored: int


class DeletedManyAnswer(TypedDict):
    """How many were there."""

    deleted: int
