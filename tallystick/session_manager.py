"""Several sessions in one program: which it holds, and which of them pays.

sessions = SessionManager(Client(url, api_key="zfi_test_…"))
daily = sessions.create(agent_id="shopper", user_wallet="0x…", label="daily-budget")
sessions.pay("12.50", merchant="books")        # from the selected one: the first, until `select`
sessions.rotate()                              # the next payment is from its successor
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

from tallystick.calls import Call, of_session
from tallystick.client import Client
from tallystick.configurations import Configuration, checked_configuration, exported, fields_of
from tallystick.errors import ApiError, SessionNotActive
from tallystick.exchange import given_or_new
from tallystick.fields import ChangedFields, FilterFields, RevocationFields, SessionFields

if TYPE_CHECKING:
    from tallystick.answers import CreatedSession, PaymentAnswer, SessionAnswer

ACTIVE_WAIT_S = 30.0
"""How long a new session that is being registered is waited for before it takes over."""
_POLL_S = 0.2
_ENDED = ("SESSION_REVOKED", "SESSION_EXPIRED")


class SessionManager:
    """Sessions whose tokens this program has, by id; one of them is selected.

    `client` has an operator's key. Every method may raise `ApiError`; several threads may share it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tokens: dict[str, str] = {}
        self._selected: str | None = None
        self._unknown: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def held(self) -> list[str]:
        """The ids of the sessions whose tokens are here, the first first."""
        with self._lock:
            return list(self._tokens)

    @property
    def selected(self) -> str:
        """The session that pays if none is named.

        Raises:
            SessionNotActive: none is held.
        """
        with self._lock:
            if self._selected is None:
                raise SessionNotActive("no session is held: create or restore one")
            return self._selected

    def create(self, **fields: Unpack[SessionFields]) -> "CreatedSession":
        """Open a session and hold it; the first that is held is selected."""
        created = self._client.create_session(**fields)
        self._hold(created["id"], created["session_token"])
        return created

    def restore(self, session_id: str, session_token: str) -> "SessionAnswer":
        """Hold a session again whose token was kept, after a restart.

        Raises:
            ApiError: the server does not know the token.
            ValueError: it is another session's.
        """
        own: Call[SessionAnswer] = Call("GET", of_session("self"), secret=session_token)
        session = self._client.ask(own)
        if session["id"] != session_id:
            raise ValueError(f"session_token: is that of {session['id']}, not of {session_id}")
        self._hold(session_id, session_token)
        return session

    def statuses(self, **filters: Unpack[FilterFields]) -> dict[str, str]:
        """The status of each session that matches, by its id."""
        return {each["id"]: each["status"] for each in self._client.each_session(**filters)}

    def select(self, session_id: str) -> None:
        """Have payments made from this one from now on.

        Raises:
            SessionNotActive: its token is not held.
        """
        self._token(session_id)
        with self._lock:
            self._selected = session_id

    def pay(
        self,
        amount: str | float,
        *,
        session: str | None = None,
        idempotency_key: str | None = None,
        **details: Any,
    ) -> "PaymentAnswer":
        """Pay from `session`, or from the selected one; `details` are those of `Client.pay`.

        What the selected one is denied because it just ended is asked of the one that is selected
        by then. A key whose answer was lost stays with the session that it was sent to.
        """

        def paid(chosen: str, key: str) -> "PaymentAnswer":
            token = self._token(chosen)
            return self._client.pay(amount, session_token=token, idempotency_key=key, **details)

        return self._from(session, idempotency_key, paid)

    def execute(
        self,
        to: str,
        amount: str | float,
        *,
        session: str | None = None,
        idempotency_key: str | None = None,
        **details: Any,
    ) -> "PaymentAnswer":
        """Have the server send an amount of a token from `session`, or from the selected one."""

        def sent(chosen: str, key: str) -> "PaymentAnswer":
            return self._client.execute(chosen, to, amount, idempotency_key=key, **details)

        return self._from(session, idempotency_key, sent)

    def open_client(self, session_id: str | None = None) -> Client:
        """A client that has a session's token and no key, to `fetch` with or to hand to an agent;
        whoever asks for it closes it."""
        return Client(self._client.url, session_token=self._token(session_id or self.selected))

    def rotate(
        self,
        session_id: str | None = None,
        *,
        wait_s: float = ACTIVE_WAIT_S,
        **changes: Unpack[ChangedFields],
    ) -> "CreatedSession":
        """Put a new session in the place of one, without a gap: opened like the old one but for
        `changes`, narrowed by the same restrictions, active; then selected if the old one was; and
        only then is the old one revoked. What it holds can still be captured.

        Raises:
            SessionNotActive: the new one was not active in time. It is held; the old one goes on.
        """
        old_id = session_id or self.selected
        old = self._client.session(old_id)
        fields = cast("SessionFields", {**fields_of(old), **changes})
        if old["parent_id"] is None:
            new = self._client.create_session(**fields)
        else:
            new = self._client.create_child(old["parent_id"], **fields)
        self._hold(new["id"], new["session_token"])
        if old["restrictions"]:
            self._restrict(new["id"], old["restrictions"])
        self._wait_until_active(new, wait_s)
        with self._lock:
            if self._selected == old_id:
                self._selected = new["id"]
        self.revoke(old_id)
        return new

    def revoke(self, session_id: str) -> None:
        """End a session for good; others go on. If it was selected, it still is."""
        self._client.revoke_session(session_id)

    def revoke_many(self, **filters: Unpack[RevocationFields]) -> "list[str]":
        """End all live sessions that match, all or none; returns their ids.

        Raises:
            ApiError: `selection_changed`: one more was made at that moment. Nothing was done.
        """
        shown = self._client.preview_revocation(**filters)
        if not shown["count"]:
            return []
        done = self._client.revoke_sessions(shown["selection"], **filters)
        return [each["id"] for each in done["sessions"]]

    def export(self, session_id: str | None = None) -> Configuration:
        """A session to hand on, or to keep for after a restart. It holds the token: a secret."""
        chosen = session_id or self.selected
        token = self._token(chosen)
        return exported(self._client.session(chosen), token, self._client.url)

    def load(self, configuration: Mapping[str, Any]) -> "SessionAnswer":
        """Hold the session of a configuration.

        Raises:
            ConfigurationError: it is none.
        """
        found = checked_configuration(configuration)
        return self.restore(found["session_id"], found["session_token"])

    def list(self, **filters: Unpack[FilterFields]) -> "list[SessionAnswer]":
        """All sessions of the workspace that match, held here or not, the newest first."""
        return [*self._client.each_session(**filters)]

    def _hold(self, session_id: str, session_token: str) -> None:
        with self._lock:
            self._tokens[session_id] = session_token
            self._selected = self._selected or session_id

    def _token(self, session_id: str) -> str:
        with self._lock:
            token = self._tokens.get(session_id)
        if token is None:
            raise SessionNotActive(f"the token of {session_id} is not held: restore it")
        return token

    def _from(self, session: str | None, key: str | None, asked: Any) -> "PaymentAnswer":
        used = given_or_new(key)
        while True:
            with self._lock:
                chosen = session or self._unknown.get(used)
            chosen = chosen or self.selected
            try:
                answer: PaymentAnswer = asked(chosen, used)
            except ApiError as error:
                if error.is_unknown:
                    with self._lock:
                        self._unknown[used] = chosen
                elif session is None and error.code in _ENDED and self.selected != chosen:
                    with self._lock:
                        self._unknown.pop(used, None)
                    continue
                raise
            with self._lock:
                self._unknown.pop(used, None)
            return answer

    def _restrict(self, session_id: str, restrictions: Sequence[str]) -> None:
        """Narrow a new session, or have none: it must not allow more than the one before it."""
        try:
            self._client.restrict_session(session_id, restrictions)
        except BaseException:
            self._client.revoke_session(session_id)
            raise

    def _wait_until_active(self, session: "SessionAnswer", wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while session["status"] != "active":
            if time.monotonic() >= deadline:
                raise SessionNotActive(f"{session['id']} is {session['status']} after {wait_s:g} s")
            time.sleep(_POLL_S)
            session = self._client.session(session["id"])
