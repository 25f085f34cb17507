"""Whom a facilitator serves."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Served:
    """For whom gas is paid: CAIP-19 tokens and lower-case payees; None is for all."""

    tokens: frozenset[str] | None = None
    payees: frozenset[str] | None = None
