"""How many payments are worked on at once: so many on each network, and so many of one payer."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import Unavailable
from engine.selling.refusals import PaymentInProgress
from engine.storage.payer import Payer


class Places:
    """For one event loop. A payer is an address, on whatever networks."""

    def __init__(self, network_max: int, payer_max: int) -> None:
        self._network_max = network_max
        self._payer_max = payer_max
        self._payments: set[str] = set()
        self._on_networks: Counter[str] = Counter()
        self._of_payers: Counter[str] = Counter()

    @contextmanager
    def taken(self, payment: str, payer: Payer, full: Unavailable) -> Iterator[None]:
        """Have a place inside; a payment has only one.

        Raises:
            PaymentInProgress: it has it.
            Unavailable: `full`, if there is none.
        """
        if payment in self._payments:
            raise PaymentInProgress("this payment is being looked at: send it again, and no other")
        network, address = payer.chain, payer.address.lower()
        if (
            self._on_networks[network] >= self._network_max
            or self._of_payers[address] >= self._payer_max
        ):
            raise full
        self._payments.add(payment)
        self._on_networks[network] += 1
        self._of_payers[address] += 1
        try:
            yield
        finally:
            self._payments.remove(payment)
            self._on_networks[network] -= 1
            self._of_payers -= Counter((address,))  # forgets who has none
