"""What an operator's client does with keys: `client.keys` and `client.agent_keys`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tallystick.calls import Call, query_of
from tallystick.exchange import given_or_new, part

if TYPE_CHECKING:
    from tallystick.answers import AgentKeyAnswer, ApiKeyAnswer, CreatedAgentKey, CreatedApiKey

_OF_OPERATORS = "/api/v1/api-keys"
_OF_AGENTS = "/api/v1/agent-keys"
_PAGE_MAX = 1000


@dataclass(frozen=True, slots=True)
class OperatorKeys:
    """The keys of the workspace's operators. Every method may raise `ApiError`."""

    ask: Callable[[Call[Any]], Any]

    def create(
        self,
        name: str,
        *,
        mode: str = "test",
        workspace_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> "CreatedApiKey":
        """A key for one more operator, `test` or `live`; only the admin makes one. The answer holds
        it as `full_key`, once."""
        body = {"name": name, "mode": mode, "workspace_id": workspace_id}
        key = given_or_new(idempotency_key)
        made: CreatedApiKey = self.ask(Call("POST", _OF_OPERATORS, body, key=key))
        return made

    def list(self) -> "list[ApiKeyAnswer]":
        """All keys, the oldest first, revoked ones too."""
        found: list[ApiKeyAnswer] = self.ask(Call("GET", _OF_OPERATORS, kind=list))
        return found

    def rotate(self, key_id: str) -> "CreatedApiKey":
        """Put a new key, `full_key`, in the place of one, which is not valid any more."""
        path = f"{_OF_OPERATORS}/{part(key_id)}/rotate"
        made: CreatedApiKey = self.ask(Call("POST", path, once=True))
        return made

    def revoke(self, key_id: str) -> None:
        """End a key; again changes nothing."""
        self.ask(Call("POST", f"{_OF_OPERATORS}/{part(key_id)}/revoke"))


@dataclass(frozen=True, slots=True)
class AgentKeys:
    """The keys of the software of agents. Every method may raise `ApiError`."""

    ask: Callable[[Call[Any]], Any]

    def create(
        self,
        name: str,
        agent_id: str,
        *,
        scopes: Sequence[str] = ("create_payments",),
        rate_limit_per_hour: int = 1000,
        ip_allowlist: Sequence[str] = (),
        expires_in_seconds: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> "CreatedAgentKey":
        """A key for an agent, which is registered if it is new. The answer holds it as `full_key`,
        once."""
        body = {
            "name": name,
            "agent_id": agent_id,
            "scopes": list(scopes),
            "rate_limit_per_hour": rate_limit_per_hour,
            "ip_allowlist": list(ip_allowlist),
            "expires_in_seconds": expires_in_seconds,
            "metadata": metadata,
        }
        key = given_or_new(idempotency_key)
        made: CreatedAgentKey = self.ask(Call("POST", _OF_AGENTS, body, key=key))
        return made

    def list(self, *, agent_id: str | None = None, page: int = 1) -> "list[AgentKeyAnswer]":
        """A page of at most a thousand keys, of all agents or of one, the newest first."""
        asked = query_of(page=page, limit=_PAGE_MAX, agent_id=agent_id)
        found: list[AgentKeyAnswer] = self.ask(Call("GET", _OF_AGENTS + asked, kind=list))
        return found

    def revoke(self, agent_key_id: str) -> None:
        """End a key at once; again changes nothing."""
        self.ask(Call("POST", f"{_OF_AGENTS}/{part(agent_key_id)}/revoke"))
