"""A contender in a process of its own, so that no other's memory or threads slow it down."""

import gc
import multiprocessing
import shutil
import signal
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from bench.contender import Contender, Rate, Workload

CLOSE_TIMEOUT_S = 120


class ContenderFailed(Exception):
    """A contender could not do its work; carries its traceback."""


class Apart:
    """Starts the process; `close` ends it. Between turns it waits and uses no processor."""

    def __init__(self, kind: type[Contender], workload: Workload) -> None:
        self.kind = kind
        # Not `fork`: a forked child would share what the others of this process hold open.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, kind, workload), name=kind.name
        )
        self._process.start()
        theirs.close()

    def prepare(self) -> Mapping[str, str]:
        """As the contender's.

        Raises:
            ContenderFailed: it raised.
        """
        prepared: Mapping[str, str] = self._ask("prepare")
        return prepared

    def run(self, seconds: float) -> Rate:
        """As the contender's.

        Raises:
            ContenderFailed: it raised.
        """
        rate: Rate = self._ask("run", seconds)
        return rate

    def close(self) -> None:
        """End it in order; kill it if it does not end. Closing again does nothing."""
        if self._pipe.closed:
            return
        self._pipe.close()
        self._process.join(CLOSE_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _ask(self, *request: Any) -> Any:
        try:
            self._pipe.send(request)
            done, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ContenderFailed(f"{self.kind.name}: its process ended") from error
        if not done:
            raise ContenderFailed(f"{self.kind.name}:\n{answer}")
        return answer


def _serve(pipe: Connection, kind: type[Contender], workload: Workload) -> None:
    # Ctrl-C reaches this process too; it ends when its parent closes the pipe, in order.
    signal.signal(signal.SIGINT, lambda *_: None)
    directory = workload.directory / kind.name
    directory.mkdir()
    directory.chmod(0o755)  # a database server may run as another user, whatever the umask
    tempfile.tempdir = str(directory)
    contender = kind(replace(workload, directory=directory))
    try:
        while True:
            try:
                name, *arguments = pipe.recv()
            except EOFError:
                return
            gc.collect()
            try:
                answer = True, getattr(contender, name)(*arguments)
            except Exception:  # noqa: BLE001 (whatever it was, the parent reports it)
                answer = False, traceback.format_exc()
            try:
                pipe.send(answer)
            except BrokenPipeError:
                return
    finally:
        try:
            contender.close()
        finally:
            shutil.rmtree(directory, ignore_errors=True)
