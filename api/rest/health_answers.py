"""What `/healthz` and `/readyz` answer."""

from typing import Literal

from typing_extensions import TypedDict

from api.rest.answers import built_late


class Health(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class NetworkAnswer(TypedDict):
    """A chain that payments are on: its newest block, how many blocks the reading is behind, and
    how many signed payments wait for it. What is not heard stops only payments there."""

    chain: str
    heard: bool
    head_block: int | None
    lag_blocks: int | None
    open: int


class Readiness(TypedDict):
    """Whether decisions can be made; how many records there are, and how many are anchored, if the
    database says so.

    A warning stops no decision, but somebody should act on it.
    """

    ready: bool
    faults: list[str]
    warnings: list[str]
    records: int | None
    anchored: int | None
    networks: list[NetworkAnswer]


built_late(list(globals().values()))
