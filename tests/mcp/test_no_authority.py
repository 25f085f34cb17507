"""No tool widens what its caller may do: calls in any order, and the ledger before and after.

A caller is the holder of one session's token, of another's, a stranger, or somebody without a
token. After every call, of both sessions:

- what is fixed of a session (limits, conditions, state, expiry) is as it was
- what remains fell by exactly what was held or paid since, and rose by nothing
- a payment that the ledger would have denied before it denies still
- the session that is not the caller's is as it was, and after a call of nobody's so is the log
"""

from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.ledger.oracle import query
from tests.ledger.paying import URL, offer, required
from tests.mcp.hands import Hands
from tests.paying.shop import Agent
from tests.rest.served import SESSIONS, Served
from tests.world import USD

MOVING = ("remaining_today", "remaining_by_condition")
PROBES_USD = (1, 10, 11, 20, 21)
EXAMPLES, CALLS = 6, 12
USED = """
SELECT COALESCE(SUM(CASE state WHEN 'held' THEN amount WHEN 'captured' THEN captured END), 0)
FROM decisions WHERE session_id = ?
"""

amounts = st.sampled_from(["10.01", "20", "0.000001", "10", "20.01", "0", ""])
CALLERS = ("mine", "other", "mine", "other", "stranger", "nobody")


class State(NamedTuple):
    """One session as the operator sees it."""

    fixed: dict[str, Any]
    remaining: int
    used: int
    allowed: tuple[bool, ...]


class AnyCalls(RuleBasedStateMachine):
    """See the module. `served`, `mine` and `other` are set by the test."""

    served: Served
    agents: dict[str, Agent]

    @initialize()
    def look(self) -> None:
        self.approvals = ["apr_" + "0" * 26 + "_0"]
        self.before = {name: self.state(agent) for name, agent in self.agents.items()}
        self.records = self.served.records()
        secrets = {name: agent.token for name, agent in self.agents.items()}
        secrets |= {"stranger": "zai_session_" + "0" * 64, "nobody": None}
        self.hands = {name: Hands(self.served.url, secret) for name, secret in secrets.items()}

    @rule(
        caller=st.sampled_from(CALLERS),
        name=st.sampled_from(["check_session_inventory", "check_budget", "verify_evidence"]),
        session=st.sampled_from(["self", "mine", "other"]),
    )
    def read(self, caller: str, name: str, session: str) -> None:
        arguments: dict[str, dict[str, Any]] = {
            "check_session_inventory": {},
            "check_budget": {"session_id": self.id(session)},
            "verify_evidence": {"evidence": "{}"},
        }
        self.call(caller, name, arguments[name])

    @rule(
        caller=st.sampled_from(CALLERS), amount=amounts, session=st.sampled_from(["self", "mine"])
    )
    def simulate(self, caller: str, amount: str, session: str) -> None:
        self.call(caller, "simulate_payment", {"amount": amount, "session_id": self.id(session)})

    @rule(caller=st.sampled_from(CALLERS), amount=amounts)
    def request(self, caller: str, amount: str) -> None:
        heard = self.call(caller, "request_approval", {"amount": amount, "merchant_id": "books"})
        if "approval_id" in heard:
            self.approvals.append(heard["approval_id"])

    @rule(caller=st.sampled_from(CALLERS), which=st.integers(0, 5))
    def approval(self, caller: str, which: int) -> None:
        approval = self.approvals[which % len(self.approvals)]
        self.call(caller, "check_approval", {"approval_id": approval})

    @rule(
        caller=st.sampled_from(CALLERS),
        units=st.sampled_from([1, 10_000, 9_990_000, 10_010_000, 20_010_000]),
        session=st.sampled_from(["self", "mine", "other"]),
        key=st.sampled_from([None, "one", "two"]),
    )
    def pay(self, caller: str, units: int, session: str, key: str | None) -> None:
        self.call(
            caller,
            "pay_x402",
            {
                "payment_required": required(offer(self.served.world, units)),
                "resource": URL,
                "session_id": self.id(session),
                "idempotency_key": key,
            },
        )

    def call(self, caller: str, name: str, arguments: dict[str, Any]) -> Any:
        """Call a tool, and hold the ledger against what it was."""
        heard = self.hands[caller].result(name, **arguments).structured_content
        after = {session: self.state(agent) for session, agent in self.agents.items()}
        for session, now in after.items():
            was = self.before[session]
            assert now.fixed == was.fixed
            assert was.remaining - now.remaining == now.used - was.used >= 0
            for allowed, still in zip(was.allowed, now.allowed, strict=True):
                assert allowed or not still
            assert session == caller or now == was
        if caller not in self.agents:
            assert self.served.records() == self.records
            assert heard["status"] == 401 or heard["code"] == "invalid_parameter"
        self.before, self.records = after, self.served.records()
        return heard

    def id(self, named: str) -> str:
        """A session as a caller names it."""
        return "self" if named == "self" else self.agents[named].session.id

    def state(self, agent: Agent) -> State:
        """A session as the operator and the ledger have it."""
        session = self.served.get(f"{SESSIONS}/{agent.session.id}").json()
        [(used,)] = query(self.served.world.store, USED, agent.session.id)
        return State(
            fixed={name: value for name, value in session.items() if name not in MOVING},
            remaining=round(session["remaining_today"] * USD),
            used=used,
            allowed=tuple(self.would_allow(agent, dollars) for dollars in PROBES_USD),
        )

    def would_allow(self, agent: Agent, dollars: int) -> bool:
        """Whether the ledger would allow a payment now."""
        world = self.served.world
        found = world.engine.ledger.simulate(agent.session.id, world.request(dollars)).result()
        return found.decision.allowed


def test_calls_in_any_order_widen_nothing(served: Served, agent: Agent, other: Agent) -> None:
    AnyCalls.served, AnyCalls.agents = served, {"mine": agent, "other": other}
    run_state_machine_as_test(
        AnyCalls,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=CALLS,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    for each in (agent, other):  # it was about something
        [(used,)] = query(served.world.store, USED, each.session.id)
        assert used > 0
    waiting = [served.get(f"/api/v1/approvals?session_id={a.session.id}") for a in (agent, other)]
    assert any(heard.json()["data"] for heard in waiting)
