"""Writes to a store until it is killed, and says what was acknowledged: `python -m … KIND PLACE`.

Each line that it prints is the number of an entry, or of a batch of entries, that is stored.
"""

import asyncio
import sys

from engine.storage.payer import Payer
from engine.storage.session import Session
from tests.storage.stores import CHAIN, open_storage

TASKS = 8
BATCH = 3
VALUE = "0123456789" * 100


def payer(task: int) -> Payer:
    """Whose store each task writes to: two share one."""
    return Payer(f"0x{task // 2:040x}", CHAIN)


def batch(task: int, number: int) -> dict[str, str]:
    """What a task writes as its `number`th."""
    return {f"{task} {number % 40} {n}": f"{number} {VALUE}" for n in range(BATCH)}


async def write(session: Session, task: int) -> None:
    """Forever; each write replaces what was written forty writes before."""
    number = 0
    while True:
        number += 1
        await session.set_many(batch(task, number))
        print(task, number, flush=True)  # noqa: T201


async def main(kind: str, place: str) -> None:
    """All tasks at once."""
    storage = open_storage(kind, place)
    await asyncio.gather(*(write(storage.session(payer(task)), task) for task in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
