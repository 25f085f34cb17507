"""A client of a Tallystick server.

    client = Client("http://127.0.0.1:8402", api_key="zfi_test_…")
    session = client.create_session(agent_id="shopper", user_wallet="0x…")
    client.pay("12.50", merchant="books", session_token=session["session_token"])

    agent = Client("http://127.0.0.1:8402", session_token=session["session_token"])
    agent.fetch("https://api.shop.test/report").text    # pays if it is asked to (x402)

Amounts are decimal strings (or whole numbers) in dollars, never floats.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import httpx

from tallystick import calls
from tallystick.calls import Answer, Call, query_of
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
from tallystick.oversight import Oversight
from tallystick.pages import each_of_pages, each_of_parts
from tallystick.paying import MAX_TIME_S
from tallystick.paying.deadline import DeadlineTransport
from tallystick.paying.fetching import BYTES_MAX, Wanted, fetched
from tallystick.paying.order import Order, Receipt, Signed, read_signed, refused, report_of
from tallystick.retrying import RETRIES, pause_s

if TYPE_CHECKING:  # the server's own types, which a client does without
    from tallystick.answers import (
        CreatedSession,
        ManyRevoked,
        PaymentAnswer,
        PaymentsPage,
        SessionAnswer,
        SimulatedPayment,
    )


class Client(Oversight):
    """Speaks to one server. Every method may raise `ApiError`.

    With a `session_token` and no `api_key` it pays, and sees and ends that session's payments.

    What a server did not do, or does once however often it is asked, is asked again up to `retries`
    times, after half a second, a second … (`tallystick.retrying`). Several threads may share one.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        session_token: str | None = None,
        transport: httpx.BaseTransport | None = None,
        retries: int = RETRIES,
    ) -> None:
        secret = api_key or session_token
        self.url = url
        self._retries = retries
        self._session_token = session_token
        self._http = httpx.Client(
            base_url=url, headers=authorization(secret), transport=transport, trust_env=False
        )
        self._web: httpx.BaseTransport | None = None

    def __enter__(self) -> Self:
        """Close the connections at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self._web is not None:
            self._web.close()

    def create_session(
        self, *, idempotency_key: str | None = None, **fields: Unpack[SessionFields]
    ) -> "CreatedSession":
        """Create a session; the answer holds its `session_token`, once.

        Without an `idempotency_key` one is made. If the answer is lost it is on the `ApiError`: to
        ask again with it within a day has the same session answered, with its token.

        Raises:
            ApiError: such as `invalid_parameter`, naming the field.
        """
        return self.ask(calls.create_session(fields, idempotency_key))

    def create_child(
        self,
        session_id: str,
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[SessionFields],
    ) -> "CreatedSession":
        """Create a session beneath another one; a holder of that one's token may, too."""
        return self.ask(calls.create_child(session_id, fields, idempotency_key))

    def consent(
        self, session_id: str, owner_signature: str, *, consent: str = "eip712"
    ) -> "SessionAnswer":
        """Hand in the owner's signature over the session's `typed_data`, and say of which kind."""
        signed = {"consent": consent, "owner_signature": owner_signature}
        return self.ask(calls.change_session(session_id, "consent", signed))

    def sessions(
        self, *, page: int = 1, limit: int = SESSIONS_PAGE_MAX, **filters: Unpack[FilterFields]
    ) -> "list[SessionAnswer]":
        """A page of at most a thousand sessions of the workspace, the newest first."""
        return self.ask(calls.sessions(page, limit, filters))

    def each_session(self, **filters: Unpack[FilterFields]) -> "Iterator[SessionAnswer]":
        """All sessions that match, page by page, the newest first; each once."""
        return each_of_parts(
            lambda page: self.sessions(page=page, **filters), limit=SESSIONS_PAGE_MAX
        )

    def session(self, session_id: str) -> "SessionAnswer":
        """One session with what is left of its limits."""
        return self.ask(calls.session(session_id))

    def restrict_session(self, session_id: str, restrictions: Sequence[str]) -> "SessionAnswer":
        """Narrow a session by conditions, in place of earlier ones; none at all lifts them."""
        narrowed = {"restrictions": list(restrictions)}
        return self.ask(calls.change_session(session_id, "restrict", narrowed))

    def pause_session(self, session_id: str) -> "SessionAnswer":
        """Stop an active session and what is beneath it; again changes nothing."""
        return self.ask(calls.change_session(session_id, "pause"))

    def resume_session(self, session_id: str) -> "SessionAnswer":
        """Let a paused session go on, and what was paused with it."""
        return self.ask(calls.change_session(session_id, "resume"))

    def revoke_session(self, session_id: str) -> None:
        """End a session, and all beneath it, for good; again changes nothing."""
        self.ask(calls.revoke_session(session_id))

    def preview_revocation(self, **filters: Unpack[RevocationFields]) -> "ManyRevoked":
        """Which live sessions match; their `selection` is what `revoke_sessions` ends."""
        return self.ask(calls.preview_revocation(filters))

    def revoke_sessions(self, selection: str, **filters: Unpack[RevocationFields]) -> "ManyRevoked":
        """End exactly the sessions that a preview of the same filters has shown: all or none.

        Raises:
            ApiError: `selection_changed`: others match by now, and nothing was done.
        """
        return self.ask(calls.revoke_many(filters, selection))

    def pay(
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
        """Pay within the session's limits; with `hold` the amount waits to be captured.

        `amount` is dollars, `chain` CAIP-2 and the server's own unless named.

        Without an `idempotency_key` one is made. If the answer is lost it is on the `ApiError`: to
        ask again with it pays once, to ask again without it can pay twice.
        """
        return self.ask(
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

    def execute(
        self,
        session_id: str,
        to: str,
        amount: str | float,
        *,
        token: str = "USDC",  # noqa: S107 (a currency)
        memo: str | None = None,
        idempotency_key: str | None = None,
    ) -> "PaymentAnswer":
        """Have the server send an amount of a token from a session; keys as in `pay`."""
        return self.ask(
            calls.execute(
                session_id, to, amount, token=token, memo=memo, idempotency_key=idempotency_key
            )
        )

    def fetch(
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
        """Ask for a URL, and pay by x402 if it is answered with a 402; needs the session's token.

        What was paid is `tallystick.paid(response)`. `max_price` is dollars, `timeout_s` the
        longest silence, `max_time_s` what all exchanges with the resource may take together,
        `bytes_max` the length of the answer. Every call is a purchase of its own: ask again with
        the `idempotency_key` of an error, and it is paid for once.

        Raises:
            PaymentDenied: the session's policy does not allow it.
            PaymentError: see `tallystick.errors`, which has a class for each way it can go wrong.
            InvalidInput: the URL, a header, the price or a time is none.
            httpx.HTTPError: the URL does not answer in time, or redirects without end; nothing was
                paid.
        """
        key = given_or_new(idempotency_key)
        wanted = Wanted(
            url, method, content, headers or {}, max_price, key, timeout_s, max_time_s, bytes_max
        )
        if self._web is None:
            self._web = DeadlineTransport()
        return fetched(wanted, self, self._web)

    def buy(self, order: Order) -> Signed:
        """Have what a 402 asks for signed, as `PayingTransport` does."""
        try:
            token = session_token_of(self._session_token)
            ordered: Call[dict[str, Any]] = Call(
                "POST", ORDERS, order.to_json(), key=order.key, session_token=token
            )
            answer = self._once(ordered)
        except ApiError as error:
            raise refused(order, error) from error
        return read_signed(order, answer)

    def report(self, signed: Signed, receipt: Receipt | None) -> str | None:
        """Report what a resource said became of a payment; returns what the server knows of it.

        None: it could not be told. It finds out from the chain.
        """
        path = f"/api/v1/ai/payments/{part(signed.id)}/settlement"
        try:
            token = session_token_of(self._session_token)
            told: Call[dict[str, Any]] = Call(
                "POST", path, report_of(receipt), session_token=token, missable=True
            )
            return str(self._once(told).get("state"))
        except ApiError:
            return None

    def capture(self, payment_id: str, amount: str | float | None = None) -> "PaymentAnswer":
        """Spend a hold, or part of it."""
        return self.ask(calls.capture(payment_id, amount))

    def void(self, payment_id: str) -> "PaymentAnswer":
        """Give a hold back."""
        return self.ask(calls.void(payment_id))

    def payments(
        self, *, page: int = 1, limit: int = 20, **filters: Unpack[PaymentFilterFields]
    ) -> "PaymentsPage":
        """A page of at most 100 payments, the newest first; a session token sees its own."""
        return self.ask(calls.payments(page, limit, filters))

    def each_payment(self, **filters: Unpack[PaymentFilterFields]) -> "Iterator[PaymentAnswer]":
        """All payments that match, page by page, the newest first; each once."""
        return each_of_pages(lambda page: self.payments(page=page, limit=PAGE_MAX, **filters))

    def payment(self, payment_id: str) -> "PaymentAnswer":
        """One payment: the decision as it was made, and the state of its hold."""
        return self.ask(calls.payment(payment_id))

    def simulate(self, session_id: str, **payment: Any) -> "SimulatedPayment":
        """What would be decided now; `payment` has the fields of `POST /api/v1/payments`."""
        return self.ask(calls.simulate(session_id, payment))

    def evidence(self, session_id: str, *, withhold: Sequence[str] = ()) -> bytes:
        """The evidence file of a session, byte for byte.

        `withhold` names what it does not show: `label`, `merchant`, `user_wallet`.
        """
        path = f"/api/v1/sessions/{part(session_id)}/evidence"
        file: Call[Any] = Call("GET", path + query_of(withhold=withhold or None))
        return self._heard(file).content

    def ask(self, call: Call[Answer]) -> Answer:
        """Ask, and ask again where that is safe (`tallystick.retrying`); raises `ApiError`."""
        tried = 0
        while True:
            try:
                return self._once(call)
            except ApiError as error:
                tried += 1
                wait_s = pause_s(call, error, tried, self._retries)
                if wait_s is None:
                    error.idempotency_key = call.key
                    raise
            time.sleep(wait_s)

    def _once(self, call: Call[Answer]) -> Answer:
        answer: Answer = read_json(self._heard(call), self._http.base_url, call.kind)
        return answer

    def _heard(self, call: Call[Any]) -> httpx.Response:
        with heard(self._http.base_url):
            response = self._http.request(
                call.method,
                call.path,
                content=call.content(),
                headers=call.headers(),
                timeout=call.timeout_s,
            )
        return checked(response, self._http.base_url)
