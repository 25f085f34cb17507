"""A client on asyncio: sessions, payments, approvals and x402, as `Client` has them.

async with AsyncClient("http://127.0.0.1:8402", session_token="zai_session_…") as client:
    report = await client.fetch("https://api.shop.test/report")

What `Client` has beside them is asked by the same call: `await client.ask(Call("GET", path))`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import httpx

from tallystick import calls
from tallystick.calls import Answer, Call
from tallystick.defaults import DEFAULT_URL, PAGE_MAX, SESSIONS_PAGE_MAX
from tallystick.errors import ApiError
from tallystick.exchange import (
    ORDERS,
    TIMEOUT_S,
    authorization,
    checked,
    given_or_new,
    heard,
    part,
    read_json,
    session_token_of,
)
from tallystick.fields import FilterFields, PaymentFilterFields, RevocationFields, SessionFields
from tallystick.pages import async_each_of_pages, async_each_of_parts
from tallystick.paying import MAX_TIME_S
from tallystick.paying.deadline import AsyncDeadlineTransport
from tallystick.paying.fetching import BYTES_MAX, Wanted, async_fetched
from tallystick.paying.order import Order, Receipt, Signed, read_signed, refused, report_of
from tallystick.retrying import RETRIES, pause_s

if TYPE_CHECKING:  # the server's own types, which a client does without
    from tallystick.answers import (
        ApprovalAnswer,
        ApprovalsPage,
        CreatedSession,
        ManyRevoked,
        PaymentAnswer,
        PaymentsPage,
        SessionAnswer,
        SimulatedPayment,
    )


class AsyncClient:
    """Speaks to one server, with an operator's key or a session's token. Every method is that of
    `Client`, where it is described, and may raise `ApiError`."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        session_token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        retries: int = RETRIES,
    ) -> None:
        self._session_token = session_token
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=authorization(api_key or session_token),
            transport=transport,
            trust_env=False,
        )
        self._web: httpx.AsyncBaseTransport | None = None

    async def __aenter__(self) -> Self:
        """Close the connections at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        if self._web is not None:
            await self._web.aclose()

    async def create_session(
        self, *, idempotency_key: str | None = None, **fields: Unpack[SessionFields]
    ) -> "CreatedSession":
        """Create a session; the answer holds its `session_token`, once."""
        return await self.ask(calls.create_session(fields, idempotency_key))

    async def create_child(
        self,
        session_id: str,
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[SessionFields],
    ) -> "CreatedSession":
        """Create a session beneath another one; a holder of that one's token may, too."""
        return await self.ask(calls.create_child(session_id, fields, idempotency_key))

    async def consent(
        self, session_id: str, owner_signature: str, *, consent: str = "eip712"
    ) -> "SessionAnswer":
        """Hand in the owner's signature over the session's `typed_data`."""
        signed = {"consent": consent, "owner_signature": owner_signature}
        return await self.ask(calls.change_session(session_id, "consent", signed))

    async def sessions(
        self, *, page: int = 1, limit: int = SESSIONS_PAGE_MAX, **filters: Unpack[FilterFields]
    ) -> "list[SessionAnswer]":
        """A page of at most a thousand sessions, the newest first."""
        return await self.ask(calls.sessions(page, limit, filters))

    def each_session(self, **filters: Unpack[FilterFields]) -> "AsyncIterator[SessionAnswer]":
        """All sessions that match, the newest first; each once."""
        return async_each_of_parts(
            lambda page: self.sessions(page=page, **filters), limit=SESSIONS_PAGE_MAX
        )

    async def session(self, session_id: str) -> "SessionAnswer":
        """One session with what is left of its limits."""
        return await self.ask(calls.session(session_id))

    async def restrict_session(
        self, session_id: str, restrictions: Sequence[str]
    ) -> "SessionAnswer":
        """Narrow a session by conditions, in place of earlier ones; none at all lifts them."""
        narrowed = {"restrictions": list(restrictions)}
        return await self.ask(calls.change_session(session_id, "restrict", narrowed))

    async def pause_session(self, session_id: str) -> "SessionAnswer":
        """Stop an active session and what is beneath it."""
        return await self.ask(calls.change_session(session_id, "pause"))

    async def resume_session(self, session_id: str) -> "SessionAnswer":
        """Let a paused session go on, and what was paused with it."""
        return await self.ask(calls.change_session(session_id, "resume"))

    async def revoke_session(self, session_id: str) -> None:
        """End a session, and all beneath it, for good."""
        await self.ask(calls.revoke_session(session_id))

    async def preview_revocation(self, **filters: Unpack[RevocationFields]) -> "ManyRevoked":
        """Which live sessions match; their `selection` is what `revoke_sessions` ends."""
        return await self.ask(calls.preview_revocation(filters))

    async def revoke_sessions(
        self, selection: str, **filters: Unpack[RevocationFields]
    ) -> "ManyRevoked":
        """End exactly the sessions that a preview of the same filters has shown: all or none."""
        return await self.ask(calls.revoke_many(filters, selection))

    async def pay(
        self,
        amount: str | float,
        *,
        merchant: str | None = None,
        token: str = "USDC",  # noqa: S107 (a currency)
        chain: str | None = None,
        hold: bool = False,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        session_token: str | None = None,
    ) -> "PaymentAnswer":
        """Pay within the session's limits; with `hold` the amount waits to be captured."""
        return await self.ask(
            calls.pay(
                amount,
                merchant=merchant,
                token=token,
                chain=chain,
                hold=hold,
                description=description,
                metadata=metadata,
                idempotency_key=idempotency_key,
                session_token=session_token or self._session_token,
            )
        )

    async def execute(
        self,
        session_id: str,
        to: str,
        amount: str | float,
        *,
        token: str = "USDC",  # noqa: S107 (a currency)
        memo: str | None = None,
        idempotency_key: str | None = None,
    ) -> "PaymentAnswer":
        """Have the server send an amount of a token from a session."""
        return await self.ask(
            calls.execute(
                session_id, to, amount, token=token, memo=memo, idempotency_key=idempotency_key
            )
        )

    async def fetch(
        self,
        url: str,
        method: str = "GET",
        *,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        max_price: str | int | None = None,
        idempotency_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        max_time_s: float = MAX_TIME_S,
        bytes_max: int = BYTES_MAX,
    ) -> httpx.Response:
        """Ask for a URL, and pay if it is answered with a 402: see `Client.fetch`."""
        key = given_or_new(idempotency_key)
        wanted = Wanted(
            url, method, content, headers or {}, max_price, key, timeout_s, max_time_s, bytes_max
        )
        if self._web is None:
            self._web = AsyncDeadlineTransport()
        return await async_fetched(wanted, self, self._web)

    async def buy(self, order: Order) -> Signed:
        """Have what a 402 asks for signed, as `AsyncPayingTransport` does."""
        try:
            token = session_token_of(self._session_token)
            ordered: Call[dict[str, Any]] = Call(
                "POST", ORDERS, order.to_json(), key=order.key, session_token=token
            )
            answer = await self._once(ordered)
        except ApiError as error:
            raise refused(order, error) from error
        return read_signed(order, answer)

    async def report(self, signed: Signed, receipt: Receipt | None) -> str | None:
        """Report what a resource said became of a payment: see `Client.report`."""
        path = f"/api/v1/ai/payments/{part(signed.id)}/settlement"
        try:
            token = session_token_of(self._session_token)
            told: Call[dict[str, Any]] = Call("POST", path, report_of(receipt), session_token=token)
            return str((await self._once(told)).get("state"))
        except ApiError:
            return None

    async def capture(self, payment_id: str, amount: str | float | None = None) -> "PaymentAnswer":
        """Spend a hold, or part of it."""
        return await self.ask(calls.capture(payment_id, amount))

    async def void(self, payment_id: str) -> "PaymentAnswer":
        """Give a hold back."""
        return await self.ask(calls.void(payment_id))

    async def payments(
        self, *, page: int = 1, limit: int = 20, **filters: Unpack[PaymentFilterFields]
    ) -> "PaymentsPage":
        """A page of at most 100 payments, the newest first; a session token sees its own."""
        return await self.ask(calls.payments(page, limit, filters))

    def each_payment(
        self, **filters: Unpack[PaymentFilterFields]
    ) -> "AsyncIterator[PaymentAnswer]":
        """All payments, the newest first; each once."""
        return async_each_of_pages(lambda page: self.payments(page=page, limit=PAGE_MAX, **filters))

    async def payment(self, payment_id: str) -> "PaymentAnswer":
        """One payment."""
        return await self.ask(calls.payment(payment_id))

    async def simulate(self, session_id: str, **payment: Any) -> "SimulatedPayment":
        """What would be decided now; `payment` has the fields of `POST /api/v1/payments`."""
        return await self.ask(calls.simulate(session_id, payment))

    async def approvals(
        self,
        *,
        session_id: str | None = None,
        state: str | None = None,
        page: int = 1,
        limit: int = 20,
    ) -> "ApprovalsPage":
        """A page of at most 100 approvals, the newest first."""
        return await self.ask(calls.approvals(session_id, state, page, limit))

    def each_approval(
        self, *, session_id: str | None = None, state: str | None = None
    ) -> "AsyncIterator[ApprovalAnswer]":
        """All approvals that match, the newest first; each once."""
        return async_each_of_pages(
            lambda page: self.approvals(
                session_id=session_id, state=state, page=page, limit=PAGE_MAX
            )
        )

    async def approval(self, approval_id: str) -> "ApprovalAnswer":
        """What a denied payment waits for."""
        return await self.ask(calls.approval(approval_id))

    async def grant_approval(self, approval_id: str) -> "ApprovalAnswer":
        """Grant an approval; look at its `state`."""
        return await self.ask(calls.decide_approval(approval_id, "grant"))

    async def deny_approval(self, approval_id: str, reason: str | None = None) -> "ApprovalAnswer":
        """Deny an approval."""
        return await self.ask(calls.decide_approval(approval_id, "deny", {"reason": reason}))

    async def ask(self, call: Call[Answer]) -> Answer:
        """Ask, and ask again where that is safe (`tallystick.retrying`)."""
        tried = 0
        while True:
            try:
                return await self._once(call)
            except ApiError as error:
                tried += 1
                wait_s = pause_s(call, error, tried, self._retries)
                if wait_s is None:
                    error.idempotency_key = call.key
                    raise
            await asyncio.sleep(wait_s)

    async def _once(self, call: Call[Answer]) -> Answer:
        base_url = self._http.base_url
        with heard(base_url):
            response = await self._http.request(
                call.method,
                call.path,
                content=call.content(),
                headers=call.headers(),
                timeout=call.timeout_s,
            )
        answer: Answer = read_json(checked(response, base_url), base_url, call.kind)
        return answer
