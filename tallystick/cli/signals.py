"""What ends a command from outside: Ctrl-C (SIGINT), and being asked to (SIGTERM).

Python looks for a signal between its own instructions and when one interrupts a system call. What
comes after the last look and before the call begins would be heard when the call ends: for who
waits for an answer that does not come, never.
"""

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

INTERRUPTED_EXIT_CODE = 130
TERMINATED_EXIT_CODE = 143

_NUDGE = signal.SIGURG
"""Nobody sends it unless asked to, and nothing happens to whom it is sent."""
_NUDGES = 20
_NUDGE_INTERVAL_S = 0.1


@contextmanager
def signals_heard() -> Iterator[None]:
    """Have the main thread hear every signal soon, whatever it waits for; elsewhere do nothing.

    The interpreter notes each on a socket at once; a thread that reads there then interrupts the
    main thread with a signal that does nothing, again for a while, as that can come too early too.

    SIGTERM ends what runs inside as Ctrl-C does, with a status of its own, unless whoever started
    the command has it ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted, note = socket.socketpair()
    note.setblocking(False)
    before = signal.signal(_NUDGE, lambda _signal, _frame: None)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)
    noted_before = signal.set_wakeup_fd(note.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_nudge, args=(noted,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(noted_before)
        if signal.getsignal(signal.SIGTERM) is _end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(_NUDGE, signal.SIG_DFL if before is None else before)
        note.close()


def leave(_signal: int, _frame: object) -> NoReturn:
    """End on SIGTERM as `finally` blocks want it: for what goes on until it is told to stop."""
    sys.exit(0)


def _end(_signal: int, _frame: object) -> NoReturn:
    sys.exit(TERMINATED_EXIT_CODE)


def _nudge(noted: socket.socket) -> None:
    main = threading.main_thread().ident
    assert main is not None, "it runs"
    with noted:
        while heard := noted.recv(1):
            if heard[0] != _NUDGE:
                for _ in range(_NUDGES):
                    time.sleep(_NUDGE_INTERVAL_S)
                    signal.pthread_kill(main, _NUDGE)
