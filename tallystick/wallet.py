"""What an agent pays with: always one session, opened as its owner configured it."""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from tallystick.client import Client
from tallystick.configurations import Configuration, checked_configuration
from tallystick.fields import SessionFields
from tallystick.session_manager import SessionManager

if TYPE_CHECKING:
    from tallystick.answers import PaymentAnswer, SessionAnswer


class Wallet:
    """The sessions of one agent. Every method may raise `ApiError`.

        wallet = Wallet(client, agent_id="shopper", user_wallet="0x…", label="daily-budget",
                        limits={"max_per_day": "200"}, duration_hours=24)
        wallet.init()
        wallet.pay("12.50", merchant="books")

    `client` has an operator's key; `fields` are those of each session that is opened.
    """

    def __init__(self, client: Client, **fields: Unpack[SessionFields]) -> None:
        self._client = client
        self._fields = fields
        self.sessions = SessionManager(client)
        self._current: str | None = None
        self._opening = threading.Lock()

    @classmethod
    def from_configuration(cls, client: Client, configuration: Mapping[str, Any]) -> "Wallet":
        """The wallet of a configuration that was exported, also on another machine: it goes on with
        that session, and opens others like it.

        Raises:
            ConfigurationError: it is none.
        """
        found = checked_configuration(configuration)
        wallet = cls(client, **found["session"])
        wallet.sessions.load(found)
        wallet._current = found["session_id"]
        return wallet

    def init(self) -> "SessionAnswer":
        """Hold a session that has not ended: the one that is held, or a fresh one."""
        with self._opening:
            if self._current is not None:
                session = self._client.session(self._current)
                if session["status"] not in ("revoked", "expired"):
                    return session
            fresh = self.sessions.create(**self._fields)
            self.sessions.select(fresh["id"])
            self._current = fresh["id"]
            return fresh

    @property
    def session_id(self) -> str:
        """The session that pays; it is opened if none is held yet."""
        return self._current or self.init()["id"]

    def pay(self, amount: str | float, **details: Any) -> "PaymentAnswer":
        """Pay within the limits; `details` are those of `Client.pay`."""
        return self.sessions.pay(amount, session=self.session_id, **details)

    def execute(self, to: str, amount: str | float, **details: Any) -> "PaymentAnswer":
        """Have the server send an amount of a token; `details` are those of `Client.execute`."""
        return self.sessions.execute(to, amount, session=self.session_id, **details)

    def open_client(self) -> Client:
        """A client with the session's token alone, to `fetch` with; whoever asks closes it."""
        return self.sessions.open_client(self.session_id)

    def list_sessions(self, *, status: str | None = None) -> "list[SessionAnswer]":
        """All sessions of the agent, in one `status` or every, the newest first."""
        return self.sessions.list(agent_id=self._fields["agent_id"], status=status)

    def get_session_statuses(self) -> dict[str, str]:
        """The status of each session of the agent, by its id."""
        return self.sessions.statuses(agent_id=self._fields["agent_id"])

    def revoke_session(self, session_id: str | None = None) -> None:
        """End a session, the one that is held unless another is named. The next `init` opens a
        fresh one in its place."""
        self.sessions.revoke(session_id or self.session_id)

    def export(self) -> Configuration:
        """What `from_configuration` takes. It holds the session's token: a secret."""
        return self.sessions.export(self.session_id)
