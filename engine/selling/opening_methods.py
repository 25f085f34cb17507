"""Opens several payment methods at once: a chain that is silent holds up none but its own.

To open one its chain is asked for the token's domain. Those that cannot be opened yet are asked
again and again, and offered from then on.
"""

import threading
import weakref
from collections.abc import Callable, Sequence

import structlog

from engine.errors import Unavailable
from engine.selling.methods import PaymentMethod, PaymentMethods
from engine.settings import Token

GRACE_S = 1.0
"""So long the others are waited for once one is open."""
RETRY_S = 30.0

_log = structlog.get_logger(__name__)


class Opening:
    """`open_one` opens the method of one token; it may take long, and raise `Unavailable`."""

    def __init__(
        self,
        tokens: Sequence[Token],
        open_one: Callable[[Token], PaymentMethod],
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        self._tokens = tokens
        self._open_one = open_one
        self._retry_s = retry_s
        self._changed = threading.Condition()
        self._open: dict[str, PaymentMethod] = {}
        self._failed: dict[str, Unavailable] = {}
        self._given_up = threading.Event()
        self._methods: Callable[[], PaymentMethods | None] | None = None

    def first(self) -> list[PaymentMethod]:
        """Those that can be opened now, in the order of their tokens: at least one.

        Raises:
            Unavailable: none can.
        """
        for token in self._tokens:
            threading.Thread(target=self._keep_on, args=(token,), daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._open or self._all_tried())
            if not self._open:
                self._given_up.set()
                raise self._failed[self._tokens[0].asset]
            self._changed.wait_for(self._all_tried, GRACE_S)
            return self._in_order()

    def add_later(self, methods: PaymentMethods) -> None:
        """From now on `methods` has each that is open, as long as anybody has `methods`."""
        with self._changed:
            self._methods = weakref.ref(methods)
            methods.become(self._in_order())

    def _all_tried(self) -> bool:
        return len(self._open.keys() | self._failed.keys()) == len(self._tokens)

    def _in_order(self) -> list[PaymentMethod]:
        return [self._open[each.asset] for each in self._tokens if each.asset in self._open]

    def _keep_on(self, token: Token) -> None:
        while not self._try(token):
            if self._given_up.wait(self._retry_s):
                return
            if self._methods is not None and self._methods() is None:
                return

    def _try(self, token: Token) -> bool:
        try:
            method = self._open_one(token)
        except Unavailable as error:
            _log.warning("not_sold_in", token=token.asset, reason=error.message)
            with self._changed:
                self._failed[token.asset] = error
                self._changed.notify_all()
            return False
        with self._changed:
            self._open[token.asset] = method
            methods = self._methods and self._methods()
            if methods is not None:
                methods.become(self._in_order())
            self._changed.notify_all()
        return True
