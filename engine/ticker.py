"""The thread on which an engine ticks (`Lead.tick`): on time, and at once when somebody waits."""

import contextlib
import threading
import time
from collections.abc import Callable

import structlog

from engine.errors import TallystickError, Unavailable
from engine.lead import Lead

GIVE_WAY_S = 0.01
"""Between two ticks of which the second has work that the first left, others may come first."""

_log = structlog.get_logger(__name__)


class Ticker:
    """Ticks from `start` on until `stopping`."""

    def __init__(
        self,
        tick: Callable[[bool], bool],
        lead: Lead,
        stopping: threading.Event,
        *,
        poll_s: float,
        anchor_s: float,
    ) -> None:
        """`tick` is told whether to anchor, every `anchor_s` if that is not 0, and says whether it
        left work to the next one."""
        self._tick = tick
        self._lead = lead
        self._poll_s = poll_s
        self._anchor_s = anchor_s
        self._stopping = stopping
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether there is a thread; else whoever needs a tick makes it."""
        return self._thread is not None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Do not wait for the next tick."""
        self._wake.set()

    def join(self) -> None:
        """Wait for the last tick, once `stopping` is set."""
        self.wake()
        if self._thread is not None:
            self._thread.join()

    def catch_up(self) -> None:
        """Tick until nothing is left to do or the chain is silent, or leave who leads the time to.

        Raises:
            Unavailable: the engine is stopping.
        """
        while self._tick(False) and self._lead.chain_fault is None:
            self._stopping.wait(GIVE_WAY_S)
            self._check()
        if not self._lead.leads:
            self._stopping.wait(2 * self._poll_s)
        self._check()

    def _check(self) -> None:
        if self._stopping.is_set():
            raise Unavailable("the engine is stopping")

    def _run(self) -> None:
        anchored_at = time.monotonic()
        while not self._stopping.is_set():
            due = 0 < self._anchor_s <= time.monotonic() - anchored_at
            if due:
                anchored_at = time.monotonic()
            # One bad tick must not end all later ones, and the line may not fit on a full disk.
            behind = False
            with contextlib.suppress(Exception):
                behind = self._tick_or_doubt(due)
            if behind:
                self._stopping.wait(GIVE_WAY_S)
            else:
                self._wake.wait(self._poll_s)
                self._wake.clear()

    def _tick_or_doubt(self, anchor: bool) -> bool:
        try:
            return self._tick(anchor)
        except Exception as error:  # noqa: BLE001 (whatever it was, it is a doubt)
            if self._lead.database_silent:  # which was told, and says nothing about the chain
                return False
            reason = error.message if isinstance(error, TallystickError) else repr(error)
            self._lead.chain_fault = f"the chain could not be followed: {reason}"
            _log.exception("tick_failed")
            return False
