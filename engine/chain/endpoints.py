"""Several endpoints of one chain, as one gateway: one is asked, the next when that one fails.

The first is asked as long as it answers and keeps up. One that failed is left alone for a while;
one that lags is not asked while another is further. Whether they say the same is not looked at
here, but for the chain's id: see `Witnesses`.

    gateway = Endpoints([JsonRpcChain(url) for url in urls])
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from engine.chain.gateway import (
    NO_SENDER,
    BlockHeader,
    ChainChanged,
    ChainUnavailable,
    Log,
    Receipt,
    TopicFilter,
)
from engine.clock import Clock
from engine.clock import stopwatch as system_stopwatch

if TYPE_CHECKING:  # who has no endpoint needs no HTTP client
    from engine.chain.json_rpc import JsonRpcChain

LAG_BLOCKS_MAX = 16
"""An endpoint whose newest block is further below the newest of all than this lags."""
PAUSE_MS = 30_000
"""So long one that failed is not asked again while another answers: a silent one costs its
time-out each time."""

Answer = TypeVar("Answer")


class EndpointsDisagree(ChainChanged):
    """Two endpoints of one chain say different things of it; who lies cannot be told from here.

    `evidence` says what about, and what each of the two said, as JSON of the log.
    """

    code = "endpoints_disagree"

    def __init__(self, what: str, said: Sequence[tuple[str, str]]) -> None:
        by_whom = ", ".join(f"{name} says {words}" for name, words in said)
        super().__init__(f"the endpoints disagree on {what}: {by_whom}")
        self.evidence = {
            "about": what,
            "said": [{"endpoint": name, "said": words} for name, words in said],
        }


@dataclass(slots=True, eq=False)
class Endpoint:
    """One of them. `name` is its number and what may be shown of its URL.

    `fault` is why it was not heard when it was last asked, None if it was; `head` is its newest
    block, None if it never told one.
    """

    chain: "JsonRpcChain"
    number: int
    head: BlockHeader | None = None
    lags_blocks: int = 0
    fault: str | None = None
    failed_ms: int = 0
    compared_number: int | None = None
    """The newest block up to which it says the same as the index, as far as it was compared."""

    @property
    def name(self) -> str:
        """Two keys of one provider have the same host, so its place in the list is told too."""
        return f"endpoint {self.number} ({self.chain.name})"

    @property
    def trouble(self) -> str | None:
        """What an operator should know of it, if anything."""
        if self.fault is not None:
            return f"{self.name} fails: {self.fault}"
        if self.lags_blocks:
            return f"{self.name} is {self.lags_blocks} blocks behind"
        return None


class Endpoints:
    """A `ChainGateway` over two or more endpoints; its methods are those of `ChainGateway`.

    `close` closes all of them.
    """

    def __init__(
        self, chains: "Sequence[JsonRpcChain]", *, stopwatch: Clock = system_stopwatch
    ) -> None:
        assert len(chains) > 1
        self.all = [Endpoint(chain, number) for number, chain in enumerate(chains, 1)]
        self._stopwatch = stopwatch
        self._asked = self.all[0]
        self._chain_id: int | None = None

    @property
    def asked(self) -> Endpoint:
        """The one that is asked now."""
        return self._asked

    def others(self) -> list[Endpoint]:
        """Those that are not asked and have answered when they were last looked at."""
        return [e for e in self.all if e is not self._asked and e.head and e.fault is None]

    def look(self) -> None:
        """Ask each for its newest block, and settle by that which one is asked from now on.

        Raises:
            ChainUnavailable: none answers.
            EndpointsDisagree: one serves another chain than another.
            ChainChanged: all that answer serve another chain than before.
        """
        moved: tuple[Endpoint, ChainChanged] | None = None
        answering = []
        for endpoint in self._ready():
            try:
                endpoint.head = endpoint.chain.head()
                endpoint.fault = None
                self._confirm(endpoint)
            except ChainUnavailable as error:
                self.failed(endpoint, error)
            except ChainChanged as error:
                moved = endpoint, error
            else:
                answering.append(endpoint)
        if moved is not None:
            self._moved(*moved, answering)
        if not answering:
            raise ChainUnavailable("; ".join(e.fault for e in self.all if e.fault is not None))
        newest = max(_height(endpoint) for endpoint in answering)
        for endpoint in answering:
            behind = newest - _height(endpoint)
            endpoint.lags_blocks = behind if behind > LAG_BLOCKS_MAX else 0
        self._asked = next(e for e in answering if not e.lags_blocks)

    def failed(self, endpoint: Endpoint, error: ChainUnavailable) -> None:
        """It gave no answer that could be used: leave it alone for a while."""
        endpoint.fault = error.message
        endpoint.failed_ms = self._stopwatch()

    def _ready(self) -> list[Endpoint]:
        """Those to ask, the one that is asked first; all of them if each has just failed."""
        now_ms = self._stopwatch()
        ready = [e for e in self.all if e.fault is None or now_ms - e.failed_ms >= PAUSE_MS]
        return ready or self.all

    def _confirm(self, endpoint: Endpoint) -> None:
        if self._chain_id is None:
            self._chain_id = endpoint.chain.chain_id
        if (found := endpoint.chain.chain_id) != self._chain_id:
            raise ChainChanged(f"{endpoint.name} serves chain {found}, not {self._chain_id}")

    def _moved(self, endpoint: Endpoint, error: ChainChanged, others: Sequence[Endpoint]) -> None:
        if not others:
            raise error
        said = [(others[0].name, str(self._chain_id)), (endpoint.name, error.message)]
        raise EndpointsDisagree("the chain's id", said) from error

    def _ask(self, question: "Callable[[JsonRpcChain], Answer]") -> Answer:
        """The answer of the one that is asked, or else of the next that has one."""
        ready = sorted(self._ready(), key=lambda endpoint: endpoint is not self._asked)
        failures = []
        for endpoint in ready:
            try:
                answer = question(endpoint.chain)
            except ChainUnavailable as error:
                self.failed(endpoint, error)
                failures.append(error)
            else:
                self._asked = endpoint
                return answer
        raise ChainUnavailable("; ".join(each.message for each in failures)) from failures[-1]

    @property
    def chain_id(self) -> int:
        """See `ChainGateway`; all that answer serve the same.

        Raises:
            EndpointsDisagree: they do not.
        """
        if self._chain_id is None:
            self.look()
        assert self._chain_id is not None, "whoever answered told it"
        return self._chain_id

    def head(self) -> BlockHeader:
        """See `ChainGateway`."""
        return self._ask(lambda chain: chain.head())

    def block(self, number: int) -> BlockHeader | None:
        """See `ChainGateway`."""
        return self._ask(lambda chain: chain.block(number))

    def headers(self, first: int, last: int) -> list[BlockHeader]:
        """See `ChainGateway`."""
        return self._ask(lambda chain: chain.headers(first, last))

    def block_logs(self, header: BlockHeader) -> list[Log]:
        """See `ChainGateway`."""
        return self._ask(lambda chain: chain.block_logs(header))

    def logs(
        self,
        *,
        from_block: int,
        to_block: int,
        addresses: Collection[str] | None = None,
        topics: Sequence[TopicFilter] = (),
    ) -> list[Log]:
        """See `ChainGateway`."""
        return self._ask(
            lambda chain: chain.logs(
                from_block=from_block, to_block=to_block, addresses=addresses, topics=topics
            )
        )

    def call(
        self, to: str, data: bytes, *, block: int | None = None, sender: str = NO_SENDER
    ) -> bytes:
        """See `ChainGateway`."""
        return self._ask(lambda chain: chain.call(to, data, block=block, sender=sender))

    def code(self, address: str) -> bytes:
        """See `ChainGateway`."""
        return self._ask(lambda chain: chain.code(address))

    def code_hashes(self, addresses: Sequence[str]) -> list[bytes]:
        """See `ChainGateway`."""
        return self._ask(lambda chain: chain.code_hashes(addresses))

    def balance(self, address: str) -> int:
        """See `ChainGateway`."""
        return self._ask(lambda chain: chain.balance(address))

    def transaction_count(
        self, address: str, *, pending: bool = False, block: int | None = None
    ) -> int:
        """See `ChainGateway`."""
        return self._ask(
            lambda chain: chain.transaction_count(address, pending=pending, block=block)
        )

    def estimate_gas(self, *, sender: str, to: str | None, data: bytes, value: int = 0) -> int:
        """See `ChainGateway`."""
        return self._ask(
            lambda chain: chain.estimate_gas(sender=sender, to=to, data=data, value=value)
        )

    def fees(self) -> tuple[int, int]:
        """See `ChainGateway`."""
        return self._ask(lambda chain: chain.fees())

    def send_raw(self, raw: bytes) -> bytes:
        """See `ChainGateway`; the same transaction may reach two of them, and is mined once."""
        return self._ask(lambda chain: chain.send_raw(raw))

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        """See `ChainGateway`."""
        return self._ask(lambda chain: chain.receipt(tx_hash))

    def close(self) -> None:
        """See `ChainGateway`."""
        for endpoint in self.all:
            endpoint.chain.close()


def _height(endpoint: Endpoint) -> int:
    assert endpoint.head is not None, "it answered"
    return endpoint.head.number


def open_chain(
    urls: Sequence[str], *, expected_chain_id: int | None = None
) -> "JsonRpcChain | Endpoints":
    """The chain behind one endpoint, or behind several; with an id, no other chain is believed.

    Raises:
        ChainError: one is not an http or https URL.
    """
    from engine.chain.json_rpc import JsonRpcChain

    chains = [JsonRpcChain(url, expected_chain_id=expected_chain_id) for url in urls]
    return chains[0] if len(chains) == 1 else Endpoints(chains)
