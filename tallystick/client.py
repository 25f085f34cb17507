"""A client of a Tallystick server.

    client = Client("http://127.0.0.1:8402", api_key="zfi_test_…")
    session = client.create_session(agent_id="shopper", user_wallet="0x…")
    client.pay("12.50", merchant="books", session_token=session["session_token"])

    agent = Client("http://127.0.0.1:8402", session_token=session["session_token"])
    agent.fetch("https://api.shop.test/report").text    # pays if it is asked to (x402)

Amounts are decimal strings (or whole numbers) in dollars, never floats.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import httpx

from tallystick.errors import ApiError
from tallystick.exchange import (
    DEFAULT_URL,
    ORDERS,
    TIMEOUT_S,
    authorization,
    checked,
    heard,
    new_key,
    part,
    paying_headers,
    read_json,
)
from tallystick.paying import MAX_TIME_S
from tallystick.paying.deadline import DeadlineTransport
from tallystick.paying.fetching import BYTES_MAX, Wanted, fetched
from tallystick.paying.order import Order, Receipt, Signed, read_signed, refused, report_of

REPLAY_TIMEOUT_S = 600.0
"""What replays a session's log, or reads a chain, takes longer the more there is of it."""


class Client:
    """Speaks to one server. Every method may raise `ApiError`.

    With a `session_token` and no `api_key` it pays, and sees and ends that session's payments.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        session_token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        secret = api_key or session_token
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

    def deployment(self) -> dict[str, Any]:
        """The chain, the contracts and the log of the server."""
        return self._object("GET", "/api/v1/deployment")

    def register_agent(self, agent_id: str, name: str | None = None) -> dict[str, Any]:
        """Register an agent; registering it again changes nothing."""
        return self._object("POST", "/api/v1/agents", {"agent_id": agent_id, "name": name})

    def set_budget(self, agent_id: str | None = None, **limits: Any) -> dict[str, Any]:
        """Limit what an agent, or the workspace, spends in all sessions; replaces all its limits.

        `limits` are those of `PUT /api/v1/budgets/workspace`.
        """
        return self._object("PUT", _budget(agent_id), limits)

    def budgets(self) -> list[dict[str, Any]]:
        """The budgets of the workspace and of its agents."""
        found: list[dict[str, Any]] = read_json(self._call("GET", "/api/v1/budgets"), list)
        return found

    def budget(self, agent_id: str | None = None) -> dict[str, Any]:
        """The budget of an agent or, without one, of the workspace."""
        return self._object("GET", _budget(agent_id))

    def clear_budget(self, agent_id: str | None = None) -> None:
        """Lift a budget."""
        self._call("DELETE", _budget(agent_id))

    def create_session(self, **fields: Any) -> dict[str, Any]:
        """Create a session; `fields` are those of `POST /api/v1/ai/sessions`."""
        return self._object("POST", "/api/v1/ai/sessions", fields)

    def create_child(self, session_id: str, **fields: Any) -> dict[str, Any]:
        """Create a session beneath another one; a holder of that one's token may, too."""
        return self._object("POST", f"/api/v1/ai/sessions/{part(session_id)}/children", fields)

    def consent(
        self, session_id: str, owner_signature: str, *, consent: str = "eip712"
    ) -> dict[str, Any]:
        """Hand in the owner's signature over the session's `typed_data`, and say of which kind."""
        return self._object(
            "POST",
            f"/api/v1/ai/sessions/{part(session_id)}/consent",
            {"consent": consent, "owner_signature": owner_signature},
        )

    def sessions(self, *, page: int = 1) -> list[dict[str, Any]]:
        """A page of at most a thousand sessions of the workspace, the newest first."""
        answer = self._call("GET", f"/api/v1/ai/sessions?page={page}")
        found: list[dict[str, Any]] = read_json(answer, list)
        return found

    def session(self, session_id: str) -> dict[str, Any]:
        """One session with what is left of its limits."""
        return self._object("GET", f"/api/v1/ai/sessions/{part(session_id)}")

    def restrict_session(self, session_id: str, restrictions: Sequence[str]) -> dict[str, Any]:
        """Narrow a session by conditions, in place of earlier ones; none at all lifts them."""
        return self._object(
            "POST",
            f"/api/v1/ai/sessions/{part(session_id)}/restrict",
            {"restrictions": list(restrictions)},
        )

    def revoke_session(self, session_id: str) -> None:
        """End a session for good."""
        self._call("POST", f"/api/v1/ai/sessions/{part(session_id)}/revoke")

    def pay(
        self,
        amount: str | int,
        *,
        merchant: str | None = None,
        token: str = "USDC",  # noqa: S107 (a currency)
        hold: bool = False,
        description: str | None = None,
        idempotency_key: str | None = None,
        session_token: str | None = None,
    ) -> dict[str, Any]:
        """Pay within the session's limits; with `hold` the amount waits to be captured.

        Without an `idempotency_key` one is made. If the answer is lost it is on the `ApiError`: to
        ask again with it pays once, to ask again without it can pay twice.
        """
        body: dict[str, Any] = {
            "amount": amount,
            "merchant_id": merchant,
            "token": token,
            "description": description,
            "capture_method": "manual" if hold else "automatic",
        }
        key = new_key() if idempotency_key is None else idempotency_key
        headers = {
            "Idempotency-Key": key,
            "X-Session-Token": session_token or self._session_token or "",
        }
        try:
            return self._object("POST", "/api/v1/payments", body, headers)
        except ApiError as error:
            error.idempotency_key = key
            raise

    def execute(
        self,
        session_id: str,
        to: str,
        amount: str | int,
        *,
        token: str = "USDC",  # noqa: S107 (a currency)
        memo: str | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Have the server send an amount of a token from a session; keys as in `pay`."""
        body = {"to": to, "amount": amount, "token": token, "memo": memo}
        key = new_key() if idempotency_key is None else idempotency_key
        path = f"/api/v1/ai/sessions/{part(session_id)}/execute"
        try:
            return self._object("POST", path, body, {"Idempotency-Key": key})
        except ApiError as error:
            error.idempotency_key = key
            raise

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
        key = new_key() if idempotency_key is None else idempotency_key
        wanted = Wanted(
            url, method, content, headers or {}, max_price, key, timeout_s, max_time_s, bytes_max
        )
        if self._web is None:
            self._web = DeadlineTransport()
        return fetched(wanted, self, self._web)

    def buy(self, order: Order) -> Signed:
        """Have what a 402 asks for signed, as `PayingTransport` does."""
        try:
            headers = paying_headers(self._session_token, order.key)
            answer = self._object("POST", ORDERS, order.to_json(), headers)
        except ApiError as error:
            raise refused(order, error) from error
        return read_signed(order, answer)

    def report(self, signed: Signed, receipt: Receipt | None) -> str | None:
        """Report what a resource said became of a payment; returns what the server knows of it.

        None: it could not be told. It finds out from the chain.
        """
        path = f"/api/v1/ai/payments/{part(signed.id)}/settlement"
        try:
            headers = paying_headers(self._session_token)
            told = self._object("POST", path, report_of(receipt), headers)
        except ApiError:
            return None
        return str(told.get("state"))

    def accept_settlement(self, payment_id: str, reason: str) -> dict[str, Any]:
        """Count a payment that the chain contradicts as spent, once it can say nothing else."""
        path = f"/api/v1/ai/payments/{part(payment_id)}/settlement/accept"
        return self._object("POST", path, {"reason": reason}, timeout_s=REPLAY_TIMEOUT_S)

    def capture(self, payment_id: str, amount: str | int | None = None) -> dict[str, Any]:
        """Spend a hold, or part of it."""
        return self._object(
            "POST", f"/api/v1/payments/{part(payment_id)}/capture", {"amount": amount}
        )

    def void(self, payment_id: str) -> dict[str, Any]:
        """Give a hold back."""
        return self._object("POST", f"/api/v1/payments/{part(payment_id)}/void")

    def payments(
        self, *, session_id: str | None = None, page: int = 1, limit: int = 20
    ) -> dict[str, Any]:
        """A page of at most 100 payments, the newest first; a session token sees its own."""
        of = "" if session_id is None else f"&session_id={part(session_id)}"
        return self._object("GET", f"/api/v1/payments?page={page}&limit={limit}{of}")

    def payment(self, payment_id: str) -> dict[str, Any]:
        """One payment: the decision as it was made, and the state of its hold."""
        return self._object("GET", f"/api/v1/payments/{part(payment_id)}")

    def explanation(self, payment_id: str) -> dict[str, Any]:
        """Why a payment was decided as it was: every rule, and whether it comes out the same."""
        return self._object(
            "GET",
            f"/api/v1/payments/{part(payment_id)}/explanation",
            timeout_s=REPLAY_TIMEOUT_S,
        )

    def simulate(self, session_id: str, **payment: Any) -> dict[str, Any]:
        """What would be decided now; `payment` has the fields of `POST /api/v1/payments`."""
        return self._object("POST", f"/api/v1/ai/sessions/{part(session_id)}/simulate", payment)

    def backtest(self, session_id: str, draft: Mapping[str, Any]) -> dict[str, Any]:
        """What a draft of the policy would have decided on the session's log."""
        return self._object(
            "POST",
            f"/api/v1/ai/sessions/{part(session_id)}/backtest",
            draft,
            timeout_s=REPLAY_TIMEOUT_S,
        )

    def approvals(
        self,
        *,
        session_id: str | None = None,
        state: str | None = None,
        page: int = 1,
        limit: int = 20,
    ) -> dict[str, Any]:
        """A page of at most 100 approvals, the newest first."""
        of = "" if session_id is None else f"&session_id={part(session_id)}"
        of += "" if state is None else f"&state={part(state)}"
        return self._object("GET", f"/api/v1/approvals?page={page}&limit={limit}{of}")

    def approval(self, approval_id: str) -> dict[str, Any]:
        """What a denied payment waits for (`approval_id` of the `ApiError`'s body); once granted
        it names the payment."""
        return self._object("GET", f"/api/v1/approvals/{part(approval_id)}")

    def grant_approval(self, approval_id: str) -> dict[str, Any]:
        """Grant an approval; look at its `state`: the payment is made, refused, or waits for more
        grants."""
        return self._object("POST", f"/api/v1/approvals/{part(approval_id)}/grant")

    def deny_approval(self, approval_id: str, reason: str | None = None) -> dict[str, Any]:
        """Deny an approval."""
        path = f"/api/v1/approvals/{part(approval_id)}/deny"
        return self._object("POST", path, {"reason": reason})

    def anchor(self) -> dict[str, Any]:
        """Sign a checkpoint of the log and anchor it now."""
        return self._object("POST", "/api/v1/log/anchor")

    def resume_chain(self) -> dict[str, Any]:
        """Have all of the chain read again, after a reorganisation that was too deep."""
        return self._object("POST", "/api/v1/chain/resume")

    def reconcile(self, *, from_block: int | None = None) -> dict[str, Any]:
        """Compare ledger and chain now, the whole chain or from a block on; see `open`."""
        since = "" if from_block is None else f"?from_block={from_block}"
        return self._object("POST", f"/api/v1/reconciliation{since}", timeout_s=REPLAY_TIMEOUT_S)

    def reconciliation(self) -> dict[str, Any]:
        """The open discrepancies, the last reconciliation, and how far one has come."""
        return self._object("GET", "/api/v1/reconciliation")

    def evidence(self, session_id: str, *, withhold: Sequence[str] = ()) -> bytes:
        """The evidence file of a session, byte for byte.

        `withhold` names what it does not show: `label`, `merchant`, `user_wallet`.
        """
        path = f"/api/v1/sessions/{part(session_id)}/evidence"
        query = urlencode({"withhold": list(withhold)}, doseq=True)
        return self._call("GET", f"{path}?{query}" if query else path).content

    def _object(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        answer = self._call(method, path, body, headers, timeout_s)
        found: dict[str, Any] = read_json(answer, dict)
        return found

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> httpx.Response:
        with heard(self._http.base_url):
            response = self._http.request(
                method, path, json=body, headers=headers, timeout=timeout_s
            )
        return checked(response)


def _budget(agent_id: str | None) -> str:
    if agent_id is None:
        return "/api/v1/budgets/workspace"
    return f"/api/v1/agents/{part(agent_id)}/budget"
