"""Reads from one chain which authorizations were used, and leaves no silent gap.

Every block's bloom is looked at, and a block that may have used one is read whole: all its events
together must make up its bloom (`engine.chain.bloom`). What is final is read once. The blocks above
are read again whenever the chain replaced one of them, so there is nothing to take back. Nothing is
stored: after a restart the blocks are read again from where each payment was signed.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import structlog
from eth_utils.crypto import keccak

from engine.chain.bloom import admits, mask_of
from engine.chain.contracts import AUTHORIZATION_USED
from engine.chain.gateway import (
    BlockHeader,
    CallReverted,
    ChainGateway,
    ChainUnavailable,
    Log,
)
from engine.ledger.payment import payment_id
from engine.ledger.settlements import State
from engine.payments.settlement_states import Answer, Signed, Use, uses_of

BLOCKS_PER_READ_MAX = 2_000
_AUTHORIZATION_STATE = keccak(text="authorizationState(address,bytes32)")[:4]
_ADDRESS = re.compile(r"0x[0-9a-f]{40}")
_AMOUNT = re.compile(r"0|[1-9][0-9]{0,77}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_STATES = frozenset(get_args(State))
_log = structlog.get_logger(__name__)

Key = tuple[str, int]


def signed_of(row: Any) -> Signed:
    """What a row of `settlements` says was signed.

    Raises:
        ValueError: a column of it cannot hold what it does; names the column.
    """
    for column, fits in _FITS.items():
        if not fits(getattr(row, column)):
            raise ValueError(f"its {column} is none")
    network, _, token = row.asset.rpartition("/erc20:")
    if network != row.network or not _ADDRESS.fullmatch(token):
        raise ValueError("its asset is none of its network's")
    if row.state in ("final", "expired") and row.block_number is None:
        raise ValueError(f"it is {row.state} by no block")
    return Signed(
        session_id=row.session_id,
        number=row.number,
        token=token,
        payer=row.payer,
        pay_to=row.pay_to,
        amount=int(row.amount),
        nonce=row.nonce,
        valid_before_s=row.valid_before_s,
        from_block=row.from_block,
    )


class Readable:
    """Keeps rows that cannot be read apart, so that the others go on without them.

    Each of those is logged once while it lasts.
    """

    def __init__(self) -> None:
        self.damaged: Mapping[str, str] = {}
        """Why, by the payments' ids, of the rows that were given last."""

    def of(self, rows: Iterable[Any]) -> list[tuple[Any, Signed]]:
        """The rows that can be read, and what each says was signed."""
        found, damaged = [], {}
        for row in rows:
            try:
                found.append((row, signed_of(row)))
            except ValueError as error:
                name = payment_id(str(row.session_id), row.number)
                damaged[name] = str(error)
                if self.damaged.get(name) != damaged[name]:
                    _log.error("settlement_unreadable", payment=name, reason=damaged[name])
        self.damaged = damaged
        return found


@dataclass(frozen=True, slots=True)
class View:
    """What the chain shows up to `head`; of it `final` is the newest block that is, if any."""

    head: BlockHeader
    final: BlockHeader | None
    uses: Mapping[Key, Sequence[Use]]


@dataclass(slots=True)
class _Followed:
    """A payment, and how far the final part of the chain was read for it.

    `before` is the block below `next`, once that was read.
    """

    signed: Signed
    mask: int
    next: int
    before: BlockHeader | None = None
    uses: list[Use] = field(default_factory=list)


class SettlementReader:
    """One chain, on which nothing is replaced below `finality` blocks. For one thread."""

    def __init__(self, gateway: ChainGateway, *, finality: int) -> None:
        self._gateway = gateway
        self._finality = finality
        self._followed: dict[Key, _Followed] = {}
        self._headers: list[BlockHeader] = []
        self._tokens: frozenset[str] = frozenset()
        self._logs: dict[bytes, list[Log]] = {}
        """The events of those tokens in blocks that are not final, by the blocks' hashes."""

    def read(self, payments: Collection[Signed]) -> View:
        """What the chain shows of these payments.

        Raises:
            ChainUnavailable: it does not answer, contradicts itself, or was replaced below what was
                final: then all is read again the next time.
            ChainChanged: it is another chain.
        """
        head = self._gateway.head()
        self._follow(payments)
        final_number = head.number - self._finality
        if not self._followed:
            self._headers, self._logs = [], {}
            return View(head, None, {})
        while (first := self._next()) + BLOCKS_PER_READ_MAX <= final_number:
            last = first + BLOCKS_PER_READ_MAX - 1
            self._scan(self._gateway.headers(first, last), last)
        headers = self._up_to(head, max(0, min(first, final_number, head.number)))
        recent = self._scan(headers, final_number)
        final = headers[final_number - headers[0].number] if final_number >= 0 else None
        uses = {key: [*each.uses, *recent.get(key, ())] for key, each in self._followed.items()}
        above = {header.hash for header in headers if header.number > final_number}
        self._logs = {at: logs for at, logs in self._logs.items() if at in above}
        return View(head, final, uses)

    def ask(self, signed: Signed, at: BlockHeader) -> Answer:
        """What the token says of the nonce after a block.

        Raises:
            ChainUnavailable: the chain does not answer, or the block is not on it any more.
        """
        payer = bytes.fromhex(signed.payer[2:]).rjust(32, b"\0")
        data = _AUTHORIZATION_STATE + payer + signed.nonce
        try:
            answer = self._gateway.call(signed.token, data, block=at.number)
        except CallReverted:
            return "unreadable"
        if self._gateway.block(at.number) != at:
            raise ChainUnavailable(f"block {at.number} was replaced while it was asked about")
        if len(answer) != 32 or int.from_bytes(answer) > 1:
            return "unreadable"
        return "used" if answer[-1] else "unused"

    def reverted(self, tx_hash: bytes) -> bool:
        """Whether a transaction was mined and moved nothing."""
        receipt = self._gateway.receipt(tx_hash)
        return receipt is not None and not receipt.succeeded

    def _next(self) -> int:
        """The first block that has to be read."""
        return min(each.next for each in self._followed.values())

    def _follow(self, payments: Collection[Signed]) -> None:
        known, self._followed = self._followed, {}
        for signed in payments:
            payer = bytes.fromhex(signed.payer[2:]).rjust(32, b"\0")
            token = bytes.fromhex(signed.token[2:])
            self._followed[signed.key] = known.get(signed.key) or _Followed(
                signed,
                mask_of(token, AUTHORIZATION_USED, payer, signed.nonce),
                # What was newest when it was signed may have been replaced by fewer blocks.
                max(0, signed.from_block - self._finality),
            )
        tokens = frozenset(each.signed.token for each in self._followed.values())
        if tokens != self._tokens:
            self._tokens, self._logs = tokens, {}

    def _up_to(self, head: BlockHeader, first: int) -> list[BlockHeader]:
        """The blocks from `first` to the head, as far as possible those that were read before."""
        headers, self._headers = self._headers, []
        if not headers or not headers[0].number <= first <= headers[-1].number <= head.number:
            headers = []
        elif headers[-1].number < head.number:
            more = self._gateway.headers(headers[-1].number + 1, head.number)
            headers = headers + more if more[0].parent_hash == headers[-1].hash else []
        elif headers[-1].hash != head.hash:
            headers = []
        headers = headers or self._gateway.headers(first, head.number)
        if headers[-1].hash != head.hash:
            raise ChainUnavailable(f"block {head.number} was replaced while the chain was read")
        self._headers = headers[first - headers[0].number :]
        return self._headers

    def _scan(self, headers: Sequence[BlockHeader], final_number: int) -> dict[Key, list[Use]]:
        """Read consecutive blocks. Up to `final_number` it is noted in what is followed that they
        were; the uses above are returned."""
        recent: dict[Key, list[Use]] = {}
        for header in headers:
            logs: list[Log] | None = None
            for key, each in self._followed.items():
                if header.number < each.next:
                    continue
                if each.before is not None and header.number == each.next:
                    self._check_follows(header, each.before)
                uses: list[Use] = []
                if admits(header.logs_bloom, each.mask):
                    logs = self._events(header) if logs is None else logs
                    uses = uses_of(each.signed, logs)
                if header.number <= final_number:
                    each.uses += uses
                    each.next, each.before = header.number + 1, header
                elif uses:
                    recent.setdefault(key, []).extend(uses)
            if logs is not None and header.number > final_number:
                self._logs[header.hash] = logs
        return recent

    def _events(self, header: BlockHeader) -> list[Log]:
        known = self._logs.get(header.hash)
        if known is not None:
            return known
        return [log for log in self._gateway.block_logs(header) if log.address in self._tokens]

    def _check_follows(self, header: BlockHeader, before: BlockHeader) -> None:
        if header.parent_hash == before.hash:
            return
        self._followed, self._headers = {}, []
        raise ChainUnavailable(
            f"block {before.number}, which was final, was replaced: all is read again"
        )


def _is_address(value: object) -> bool:
    return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 32


def _is_text(value: object) -> bool:
    return isinstance(value, str) and _SURROGATE.search(value) is None  # it may be written again


def _or_none(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "session_id": _is_text,
    "number": _is_count,
    "workspace_id": _is_text,
    "session_type": _is_text,
    "label": _or_none(_is_text),
    "record_id": _is_count,
    "network": _is_text,
    "asset": _is_text,
    "payer": _is_address,
    "pay_to": _is_address,
    "amount": lambda value: isinstance(value, str) and _AMOUNT.fullmatch(value) is not None,
    "nonce": _is_hash,
    "valid_before_s": _is_count,
    "from_block": _is_count,
    "state": lambda value: isinstance(value, str) and value in _STATES,
    "tx_hash": _or_none(_is_hash),
    "block_number": _or_none(_is_count),
    "block_hash": _or_none(_is_hash),
}
