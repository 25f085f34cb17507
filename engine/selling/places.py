"""How many payments are worked on at once: so many in all, and so many of one payer."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import Unavailable
from engine.selling.refusals import PaymentInProgress


class Places:
    """For one event loop."""

    def __init__(self, all_max: int, payer_max: int) -> None:
        self._all_max = all_max
        self._payer_max = payer_max
        self._payments: set[str] = set()
        self._of_payers: Counter[str] = Counter()

    @contextmanager
    def taken(self, payment: str, payer: str, full: Unavailable) -> Iterator[None]:
        """Have a place inside; a payment has only one.

        Raises:
            PaymentInProgress: it has it.
            Unavailable: `full`, if there is none.
        """
        if payment in self._payments:
            raise PaymentInProgress("this payment is being looked at: send it again, and no other")
        if len(self._payments) >= self._all_max or self._of_payers[payer] >= self._payer_max:
            raise full
        self._payments.add(payment)
        self._of_payers[payer] += 1
        try:
            yield
        finally:
            self._payments.remove(payment)
            self._of_payers -= Counter((payer,))  # forgets who has none
