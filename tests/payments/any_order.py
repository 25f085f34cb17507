"""Whatever goes wrong in whatever order: one transfer and one success for an authorization.

CI tries a few orders; `scripts/settle-any-order --seed N --examples M` as many as one likes.

The token here never uses up a nonce, so that nothing but the facilitator stands between two
transfers.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import ChainUnavailable, TransactionRejected
from engine.errors import Unavailable
from tests.payments.paying import Till, embedded_till

FAULTS = (
    "none",
    "lost on the way",
    "lost on the way back",
    "refused",
    "no receipt",
    "no claim",
    "no end",
)
settle = st.tuples(st.just("settle"), st.integers(0, 1), st.sampled_from(FAULTS))
other = st.tuples(st.sampled_from(["restart", "somebody else pays", "verify"]))


@contextmanager
def forgetful(directory: Path, chain: EmbeddedChain) -> Iterator[Till]:
    """A till for a token that forgets; it waits for no receipt."""
    till = embedded_till(directory / "claims.sqlite3", chain, "ForgetsNonces")
    till.receipt_timeout_s = 0.0
    till.reopen()
    yield till
    till.facilitator.close()


def faulty(till: Till, fault: str) -> ExitStack:
    """Let one thing go wrong until the end."""
    send = till.gateway.send_raw

    def on_the_way(raw: bytes) -> bytes:
        raise ChainUnavailable("lost on the way")

    def on_the_way_back(raw: bytes) -> bytes:
        send(raw)
        raise ChainUnavailable("lost on the way back")

    def refused(raw: bytes) -> bytes:
        raise TransactionRejected("refused")

    def no_receipt(tx_hash: bytes) -> None:
        """It is not mined yet, as far as this endpoint knows."""

    def full_disk(*_: Any) -> None:
        raise Unavailable("the disk is full")

    replaced: dict[str, tuple[Any, str, Any]] = {
        "lost on the way": (till.gateway, "send_raw", on_the_way),
        "lost on the way back": (till.gateway, "send_raw", on_the_way_back),
        "refused": (till.gateway, "send_raw", refused),
        "no receipt": (till.gateway, "receipt", no_receipt),
        "no claim": (till.claims, "open", full_disk),
        "no end": (till.claims, "close", full_disk),
    }
    faults = ExitStack()
    if fault in replaced:
        faults.enter_context(mock.patch.object(*replaced[fault]))
    return faults


def check_in_order(till: Till, steps: Sequence[tuple[Any, ...]]) -> None:
    """Take these steps with one authorization; at the end it was paid once and told once."""
    authorization = till.authorization()
    requests = [till.request(authorization, url=f"https://shop.test/{n}") for n in range(2)]
    before, others, told = till.transfers(), 0, []
    # At the end all is well, and both come once more.
    for step, *how in [*steps, ("settle", 0, "none"), ("settle", 1, "none")]:
        if step == "restart":
            till.reopen()
        elif step == "verify":
            till.verify(requests[0])
        elif step == "somebody else pays":
            others += till.settle(till.request())["success"]
        else:
            which, fault = how
            with faulty(till, fault):
                try:
                    told.append(till.settle(requests[which]))
                except Unavailable:
                    continue
    [success] = [answer for answer in told if answer["success"]]
    assert till.transfers() - before - others == 1
    assert told[-1]["transaction"] == success["transaction"]


def check_any_order(till: Till, *, examples: int, drawn_from: int) -> None:
    """Try so many orders, drawn from a number."""

    @seed(drawn_from)
    @settings(max_examples=examples, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(settle | other, max_size=8))
    def drawn(steps: list[tuple[Any, ...]]) -> None:
        check_in_order(till, steps)

    drawn()


def main(arguments: list[str] | None = None) -> int:
    """The command; fails as a test does."""
    parser = argparse.ArgumentParser(prog="scripts/settle-any-order")
    parser.add_argument("--seed", type=int, required=True, help="of everything that is drawn")
    parser.add_argument("--examples", type=int, default=300, help="in all (%(default)s)")
    asked = parser.parse_args(arguments)
    chain = EmbeddedChain(None)
    with tempfile.TemporaryDirectory() as directory, forgetful(Path(directory), chain) as till:
        check_any_order(till, examples=asked.examples, drawn_from=asked.seed)
    chain.close()
    sys.stdout.write(f"paid once and told once, {asked.examples} times\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
