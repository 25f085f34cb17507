"""Who paid may read again what is theirs for a while, by signing in: once by each signature.

    visits = Visits("https://store.example", lease_s=3600)
    await visits.begin(grants, payer)               # they paid
    payer = await visits.enter(grants, told, target, chains)

Of each payer one text is written down beside the payments' (`engine/storage/grants.py`): until when
they may, and the sign-ins that could still be sent again. So whatever process is asked, a sign-in
is good once. docs/decisions/0032 says why it is as it is.
"""

import asyncio
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self
from weakref import WeakValueDictionary

from engine.clock import Clock, system_clock
from engine.errors import InvalidInput
from engine.selling.refusals import SignInRefused
from engine.selling.sign_in import AGE_S_MAX, EXTENSION, SignIn, Wanted, offer, read_sign_in
from engine.storage.grants import Grants
from engine.storage.payer import Payer

LEASE_S = 3_600
LEASE_S_MAX = 31_536_000
SIGN_INS_MAX = 300
"""So many sign-ins of one payer in five minutes; who wants more pays."""
FORMAT = 1
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Lease:
    """What one payer may: read until `until_ms`, and not by what is `spent`, which says until when
    each could come again. `now_ms` is the latest time that was seen: a clock that is set back
    makes nothing good again."""

    until_ms: int = 0
    now_ms: int = 0
    spent: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, body: bytes | None) -> Self:
        """What `body` wrote; of somebody who never paid there is None."""
        if body is None:
            return cls()
        told = json.loads(body)
        assert told.pop("format") == FORMAT, "leases of another release"
        return cls(**told)

    @property
    def body(self) -> bytes:
        """As it is kept."""
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()

    def begun(self, now_ms: int, lease_ms: int) -> Self:
        """They paid now."""
        now_ms = max(now_ms, self.now_ms)
        return replace(self, until_ms=max(self.until_ms, now_ms + lease_ms), now_ms=now_ms)

    def entered(self, sign_in: SignIn, now_ms: int) -> Self:
        """They signed in now.

        Raises:
            SignInRefused: it is not the time, it came before, or they paid too long ago.
        """
        now_ms = max(now_ms, self.now_ms)
        sign_in.check_time(now_ms)
        if now_ms >= self.until_ms:
            raise SignInRefused("nothing was paid lately: pay", code="lease_over")
        spent = {each: until_ms for each, until_ms in self.spent.items() if until_ms > now_ms}
        if sign_in.id in spent:
            raise SignInRefused("it came before: sign another nonce", code="invalid_siwx_nonce")
        if len(spent) >= SIGN_INS_MAX:
            raise SignInRefused(
                f"{SIGN_INS_MAX} in {AGE_S_MAX} seconds are enough: pay, or wait",
                code="too_many_sign_ins",
            )
        return replace(self, now_ms=now_ms, spent=spent | {sign_in.id: sign_in.ends_ms})


class Visits:
    """`origin` is where clients reach the server, as they write it: a sign-in for any other is not
    taken, whatever host a request names. After a payment they may read for `lease_s` seconds.

    Raises:
        InvalidInput: naming `origin` or `lease_s`.
    """

    def __init__(self, origin: str, lease_s: int = LEASE_S, *, clock: Clock = system_clock) -> None:
        if not _ORIGIN.fullmatch(origin):
            raise InvalidInput("origin", "takes https://host or https://host:port, lower case")
        if type(lease_s) is not int or not 0 < lease_s <= LEASE_S_MAX:
            raise InvalidInput("lease_s", f"takes 1 to {LEASE_S_MAX} seconds")
        self.origin = origin
        self._lease_ms = lease_s * 1000
        self._clock = clock
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def offer(self, target: str, chains: tuple[str, ...]) -> dict[str, Any]:
        """The `extensions` of a 402; `target` is path and query, as they were asked for."""
        wanted = Wanted(self.origin, self.origin + target, chains)
        return {EXTENSION: offer(wanted, secrets.token_hex(16), self._clock())}

    async def begin(self, grants: Grants, payer: Payer) -> None:
        """They paid: from now on they may read."""
        await self._change(grants, payer, lambda lease, now_ms: lease.begun(now_ms, self._lease_ms))

    async def enter(
        self, grants: Grants, told: Mapping[str, Any], target: str, chains: tuple[str, ...]
    ) -> Payer:
        """Who signed in, this once.

        Raises:
            SignInRefused: nobody did, for this; or it is not theirs to read any more.
        """
        sign_in = read_sign_in(told, Wanted(self.origin, self.origin + target, chains))
        await self._change(
            grants, sign_in.payer, lambda lease, now_ms: lease.entered(sign_in, now_ms)
        )
        return sign_in.payer

    async def _change(
        self, grants: Grants, payer: Payer, change: Callable[[Lease, int], Lease]
    ) -> None:
        """One after the other here, so that only another process can have changed it meanwhile."""
        name = _id(payer)
        turn = self._turns.setdefault(name, asyncio.Lock())
        async with turn:
            while True:
                kept, now_ms = await grants.read(name)
                lease = change(Lease.read(kept), now_ms)
                if await grants.replace(name, kept, lease.body):
                    return


def _id(payer: Payer) -> str:
    """Never that of a payment, which begins with a token."""
    return f"visits/{payer.account}"
