"""Work that is done again and again beside everything else."""

import contextlib
import threading
from collections.abc import Callable

import structlog

from engine.errors import Unavailable

_log = structlog.get_logger(__name__)


def repeating(
    name: str, work: Callable[[], object], *, interval_s: float, stopping: threading.Event
) -> threading.Thread:
    """A thread, started, that does `work` after every `interval_s` until `stopping`.

    What fails is noted, and the next time may do better.
    """
    thread = threading.Thread(
        target=_repeat, args=(name, work, interval_s, stopping), name=name, daemon=True
    )
    thread.start()
    return thread


def _repeat(
    name: str, work: Callable[[], object], interval_s: float, stopping: threading.Event
) -> None:
    while not stopping.wait(interval_s):
        with contextlib.suppress(Exception):  # the line may not fit on a full disk
            _do(name, work, stopping)


def _do(name: str, work: Callable[[], object], stopping: threading.Event) -> None:
    try:
        work()
    except Unavailable as error:
        if not stopping.is_set():
            _log.warning("not_done", what=name, reason=error.message)
    except Exception:  # noqa: BLE001 (whatever it was, it is noted)
        _log.exception("failed", what=name)
