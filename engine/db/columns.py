"""What the tables are made of."""

from typing import Any

from pydantic import ConfigDict
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text
from sqlmodel import Field, SQLModel


class Row(SQLModel):
    """A row of a table. Nothing makes one: statements name columns. So pydantic need not build what
    would check it, at each start."""

    model_config = ConfigDict(defer_build=True)  # type: ignore[assignment]


def raw(*, nullable: bool = False, unique: bool = False) -> Any:
    """Bytes."""
    return Field(sa_column=Column(LargeBinary, nullable=nullable, unique=unique))


def big(*, nullable: bool = False, unique: bool = False) -> Any:
    """An integer of 64 bits."""
    return Field(sa_column=Column(BigInteger, nullable=nullable, unique=unique))


def key(kind: Any = Text) -> Any:
    """A column of the primary key, which the database does not count up."""
    return Field(sa_column=Column(kind, primary_key=True, autoincrement=False))


def place() -> Any:
    """A primary key that rows stand in the order of."""
    # SQLite keeps rows by such a key, and by it alone if the column is an INTEGER and no BIGINT.
    return key(BigInteger().with_variant(Integer(), "sqlite"))


def text(*, nullable: bool = False) -> Any:
    """A string."""
    return Field(sa_column=Column(Text, nullable=nullable))
